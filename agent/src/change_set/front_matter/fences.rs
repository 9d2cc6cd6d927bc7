//! Where the front matter of a file is: between `---` and `---`.

use contract::SitePath;

use super::super::fault::Fault;
use super::super::text::LineEndings;
use super::{invalid, reader};

/// Bytes of a front matter: far more than any page has, and a bound on what each key costs.
pub(super) const FRONT_MATTER_MAX_BYTES: usize = 256 * 1024;

/// Endings of the files whose front matter Astro reads as YAML.
const MARKDOWN_ENDINGS: [&str; 8] = [
    "md", "mdx", "markdown", "mdoc", "mdown", "mdwn", "mkd", "mkdn",
];

/// A file with the place of its front matter.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'f> {
    pub(super) text: &'f str,
    /// The lines between the fences; `None` if the file has no front matter.
    pub(super) yaml: Option<(usize, usize)>,
    pub(super) line_ending: &'f str,
}

impl<'f> File<'f> {
    /// Finds it; what Astro and others do not agree on, or is no YAML, is refused.
    pub(super) fn locate(path: &SitePath, text: &'f str) -> Result<Self, Fault> {
        let refuse = |what: &str| Err(invalid(path, ".path", what));
        let extension = path.extension();
        if extension == "astro" {
            return refuse("the front matter of an .astro file is code; use `replace`.");
        }
        if !MARKDOWN_ENDINGS.contains(&extension.as_str()) {
            return refuse("only Markdown files have YAML front matter.");
        }
        let start = if text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        let body = &text[start..];
        let first = body.lines().next().unwrap_or_default();
        let none = Self {
            text,
            yaml: None,
            line_ending: Self::line_ending_of(text),
        };
        if first.starts_with("+++") {
            return refuse("the front matter is TOML, not YAML.");
        }
        if !first.starts_with("---") {
            let later = body
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            if first.trim().is_empty() && (later.starts_with("---") || later.starts_with("+++")) {
                return refuse(
                    "empty lines stand before the front matter, which not every reader takes.",
                );
            }
            return Ok(none);
        }
        // Some readers take `----` or `---json` for a fence too.
        if !first[3..].trim().is_empty() {
            return refuse("the front matter does not begin with `---` alone on its line.");
        }
        let yaml_start = after_line(text, start);
        let line_ending = if text[..yaml_start].ends_with("\r\n") {
            "\r\n"
        } else {
            "\n"
        };
        let mut line = yaml_start;
        while line < text.len() {
            let next = after_line(text, line);
            if text[line..next]
                .strip_prefix("---")
                .is_some_and(|rest| rest.trim().is_empty())
            {
                if line - yaml_start > FRONT_MATTER_MAX_BYTES {
                    return refuse("the front matter is larger than 256 KB.");
                }
                return Ok(Self {
                    text,
                    yaml: Some((yaml_start, line)),
                    line_ending,
                });
            }
            line = next;
        }
        refuse("the front matter is not closed by a line `---`.")
    }

    fn line_ending_of(text: &str) -> &'static str {
        let first_is_crlf = text.find('\n').is_some_and(|at| text[..at].ends_with('\r'));
        if LineEndings::of(text) == LineEndings::CrLf || first_is_crlf {
            "\r\n"
        } else {
            "\n"
        }
    }

    /// The front matter; empty if there is none.
    pub(super) fn yaml(&self) -> &'f str {
        self.yaml.map_or("", |(start, end)| &self.text[start..end])
    }

    /// The file with another front matter; one that had none and gets none stays as it is.
    pub(super) fn with_yaml(&self, yaml: &str) -> String {
        if let Some((start, end)) = self.yaml {
            return [&self.text[..start], yaml, &self.text[end..]].concat();
        }
        if yaml.is_empty() {
            return self.text.to_owned();
        }
        let mark = if self.text.starts_with('\u{feff}') {
            "\u{feff}"
        } else {
            ""
        };
        let body = &self.text[mark.len()..];
        let ending = self.line_ending;
        let gap = if body.is_empty() || body.starts_with(['\n', '\r']) {
            ""
        } else {
            ending
        };
        [mark, "---", ending, yaml, "---", ending, gap, body].concat()
    }

    /// The fault of a front matter that cannot be read, with the line of the file.
    pub(super) fn unreadable(&self, path: &SitePath, why: &reader::Unreadable) -> Fault {
        let at = self.yaml.map_or(0, |(start, _)| start) + why.at;
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        invalid(
            path,
            ".path",
            format!(
                "the front matter cannot be read at line {line}: {}.",
                why.what
            ),
        )
    }
}

/// The start of the line after the one at `at`: after its LF, or the end of the text.
pub(super) fn after_line(text: &str, at: usize) -> usize {
    text.as_bytes()[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(text.len(), |length| at + length + 1)
}
