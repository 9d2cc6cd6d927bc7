//! One line that says what a change set does, for people and for the subject of its commit.

use std::collections::BTreeMap;

use contract::SitePath;

use super::FileChange;

/// Characters of the subject of a commit that every tool shows whole.
const MAX_CHARS: usize = 72;

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Delete,
    Edit,
}

impl Verb {
    fn of(change: &FileChange) -> Self {
        match (&change.before, &change.after) {
            (None, _) => Self::Add,
            (Some(_), None) => Self::Delete,
            (Some(_), Some(_)) => Self::Edit,
        }
    }
}

/// The line, at most [`MAX_CHARS`].
pub(super) fn of(files: &BTreeMap<SitePath, FileChange>) -> String {
    if let Some((from, to)) = rename(files) {
        let names = || format!("Rename {} to {}", from.file_name(), to.file_name());
        return fitting(&[format!("Rename {from} to {to}"), names()]);
    }
    let mut verbs = files.values().map(Verb::of);
    let first = verbs.next().unwrap_or(Verb::Edit);
    let verb = if verbs.all(|verb| verb == first) {
        first
    } else {
        Verb::Edit
    };
    if let (1, Some(path)) = (files.len(), files.keys().next()) {
        return fitting(&[
            format!("{verb:?} {path}"),
            format!("{verb:?} …/{}", path.file_name()),
        ]);
    }
    let count = format!("{verb:?} {} files", files.len());
    match common_folder(files.keys()) {
        Some(folder) => {
            let last = folder.rsplit('/').next().unwrap_or(folder);
            fitting(&[
                format!("{count} in {folder}"),
                format!("{count} in …/{last}"),
                count,
            ])
        }
        None => count,
    }
}

/// The first that fits, or as much of the last as fits.
fn fitting(candidates: &[String]) -> String {
    let fits = |line: &&String| line.chars().count() <= MAX_CHARS;
    if let Some(line) = candidates.iter().find(fits) {
        return line.clone();
    }
    let shortest = candidates.last().map_or("", String::as_str);
    shortest.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

/// The two paths, if one file has moved and nothing else happened.
fn rename(files: &BTreeMap<SitePath, FileChange>) -> Option<(&SitePath, &SitePath)> {
    if files.len() != 2 {
        return None;
    }
    let from = files
        .iter()
        .find(|(_, change)| Verb::of(change) == Verb::Delete)?;
    let to = files
        .iter()
        .find(|(_, change)| Verb::of(change) == Verb::Add)?;
    (from.1.before == to.1.after).then_some((from.0, to.0))
}

/// The deepest folder that has all `paths`.
fn common_folder<'p>(mut paths: impl Iterator<Item = &'p SitePath>) -> Option<&'p str> {
    let (mut folder, _) = paths.next()?.as_str().rsplit_once('/')?;
    for path in paths {
        while !path
            .as_str()
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
        {
            (folder, _) = folder.rsplit_once('/')?;
        }
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;

    fn summary(files: &[(&str, Option<&str>, Option<&str>)]) -> String {
        let version = |text: &str| Version {
            content: text.into(),
            executable: false,
        };
        let change = |(path, before, after): &(&str, Option<&str>, Option<&str>)| {
            let change = FileChange {
                before: before.map(version),
                after: after.map(version),
            };
            (path.parse().expect("a valid path"), change)
        };
        of(&files.iter().map(change).collect())
    }

    #[test]
    fn one_line_says_what_happens_to_what() {
        let (old, new) = (Some("old"), Some("new"));
        insta::assert_snapshot!(summary(&[("src/pages/index.astro", old, new)]), @"Edit src/pages/index.astro");
        insta::assert_snapshot!(summary(&[("public/a.jpg", None, new)]), @"Add public/a.jpg");
        insta::assert_snapshot!(summary(&[("public/a.jpg", old, None)]), @"Delete public/a.jpg");
        insta::assert_snapshot!(summary(&[("a.md", old, None), ("b.md", None, old)]), @"Rename a.md to b.md");
        insta::assert_snapshot!(summary(&[("a.md", old, None), ("b.md", None, new)]), @"Edit 2 files");
        insta::assert_snapshot!(
            summary(&[("src/content/stamps/a.md", None, new), ("src/content/stamps/b.md", None, new)]),
            @"Add 2 files in src/content/stamps"
        );
        insta::assert_snapshot!(
            summary(&[("src/content/a.md", old, new), ("src/content/b/c.md", None, new), ("src/contents.md", old, None)]),
            @"Edit 3 files in src"
        );
    }

    #[test]
    fn a_long_line_is_shortened_to_what_matters() {
        let deep = format!(
            "src/{}/penny-black.md",
            "very-long-folder/".repeat(5).trim_end_matches('/')
        );
        insta::assert_snapshot!(summary(&[(&deep, Some("a"), Some("b"))]), @"Edit …/penny-black.md");
        let sibling = deep.replace("penny-black", "penny-red");
        insta::assert_snapshot!(
            summary(&[(&deep, Some("a"), None), (&sibling, Some("b"), None)]),
            @"Delete 2 files in …/very-long-folder"
        );
        insta::assert_snapshot!(
            summary(&[(&deep, Some("a"), None), (&sibling, None, Some("a"))]),
            @"Rename penny-black.md to penny-red.md"
        );
        let name = "ä".repeat(100);
        let cut = summary(&[(&name, Some("a"), Some("b"))]);
        assert_eq!(cut.chars().count(), MAX_CHARS);
    }
}
