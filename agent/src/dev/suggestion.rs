//! A `send` line that works as printed from where the developer stands.

use std::fs;
use std::path::Path;

/// A line that changes a heading of the front page; where none is found, one that adds a page.
pub(super) fn suggest(site_root: &Path, state: Option<&Path>) -> String {
    let program = program();
    let state = state
        .map(|state| format!(" --state {}", quote(&state.display().to_string())))
        .unwrap_or_default();
    for page in [
        "src/pages/index.astro",
        "src/pages/index.md",
        "src/pages/index.mdx",
    ] {
        if let Some(heading) = fs::read_to_string(site_root.join(page))
            .ok()
            .and_then(|text| heading(&text))
        {
            return format!(
                "{program} send{state} --replace {page} {} {}",
                quote(&heading),
                quote(&format!("{heading}!"))
            );
        }
    }
    format!(
        "{program} send{state} --write src/pages/hello.md={}",
        quote("# Hello")
    )
}

/// How this program is called from here: by its name if that finds it, else by its path.
fn program() -> String {
    let Ok(own) = std::env::current_exe() else {
        return "edit-agent".to_owned();
    };
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|folder| folder.join("edit-agent"))
            .find(|path| path.is_file())
    });
    if found
        .and_then(|found| fs::canonicalize(found).ok())
        .is_some_and(|found| Some(found) == fs::canonicalize(&own).ok())
    {
        return "edit-agent".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    quote(&own.strip_prefix(here).unwrap_or(&own).display().to_string())
}

/// The words of a heading that stand in the file exactly once.
fn heading(text: &str) -> Option<String> {
    let html = text.match_indices("<h1").filter_map(|(at, _)| {
        let (_, words) = text[at..].split_once('>')?;
        Some(words.split_once("</h1>")?.0)
    });
    let markdown = text.lines().filter_map(|line| line.strip_prefix("# "));
    html.chain(markdown)
        .map(str::trim)
        .find(|words| {
            !words.is_empty()
                && words.len() <= 80
                && !words.contains(['{', '<', '\n', '\''])
                && text.matches(words).count() == 1
        })
        .map(str::to_owned)
}

/// A word for the shell.
fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./=@:+,".contains(c));
    if plain {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heading_of_the_front_page_is_found_if_it_is_plain_and_alone() {
        assert_eq!(
            heading("---\n---\n<Base><h1 id=\"x\">Rare stamps</h1></Base>").as_deref(),
            Some("Rare stamps")
        );
        assert_eq!(
            heading("<h1>{title}</h1>\n# Hello"),
            Some("Hello".to_owned())
        );
        assert_eq!(heading("<title>Home</title><h1>Home</h1>"), None);
    }

    #[test]
    fn a_word_for_the_shell_is_one_word() {
        assert_eq!(quote("it's $5"), r"'it'\''s $5'");
        assert_eq!(quote("src/pages/index.astro"), "src/pages/index.astro");
    }
}
