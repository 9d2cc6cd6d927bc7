//! What is wrong with one change, and how user text is quoted in it.

use std::fmt::Display;

use contract::{ErrorCode, SitePath};

use super::TreeError;

/// Characters of user text that a message quotes, the ellipsis included: enough to recognise it, a bound on its length.
const QUOTE_MAX_CHARS: usize = 80;

/// One thing that is wrong with one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its code.
    pub(super) code: ErrorCode,
    /// The member of the change that is at fault, as the end of a JSON path: `.find`, `.set["title"]`.
    pub(super) at: String,
    /// What happened to which file.
    pub(super) message: String,
}

impl Fault {
    /// A fault that concerns one file: `<path>: <what>`.
    pub(super) fn of(
        path: &SitePath,
        at: impl Into<String>,
        code: ErrorCode,
        what: impl Display,
    ) -> Self {
        Self {
            code,
            at: at.into(),
            message: format!("{path}: {what}"),
        }
    }
}

/// Why a change was not carried out.
#[derive(Debug)]
pub(super) enum Stop {
    /// What is wrong with it; never empty.
    Faults(Vec<Fault>),
    /// The tree could not be read: planning ends.
    Tree(TreeError),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Faults(vec![fault])
    }
}

impl From<TreeError> for Stop {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

/// User text in double quotes on one line: control and direction characters escaped, at most [`QUOTE_MAX_CHARS`].
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut chars = 0;
    for c in text.chars() {
        let shown = match c {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c if c.is_control()
                || ('\u{2028}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                c.escape_unicode().to_string()
            }
            c => c.to_string(),
        };
        chars += shown.chars().count();
        if chars > QUOTE_MAX_CHARS - 1 {
            quoted.push('…');
            break;
        }
        quoted.push_str(&shown);
    }
    quoted.push('"');
    quoted
}

/// [`quote`] of bytes that need not be text.
pub(super) fn quote_bytes(bytes: &[u8]) -> String {
    // Four bytes a character at most: what `quote` drops is not even decoded.
    let head = &bytes[..bytes.len().min(QUOTE_MAX_CHARS * 4)];
    quote(&String::from_utf8_lossy(head))
}

/// Numbers of lines or files as people write them: `lines 3, 8 and 12`, at most five of them.
pub(super) fn line_list(lines: &[usize], more: bool) -> String {
    let numbers: Vec<String> = lines.iter().map(ToString::to_string).collect();
    match numbers.split_last() {
        None => "no line".to_owned(),
        Some(_) if more => format!("lines {}, …", numbers.join(", ")),
        Some((only, [])) => format!("line {only}"),
        Some((last, rest)) => format!("lines {} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_one_short_line_that_cannot_turn_the_text_around() {
        assert_eq!(quote("Rare stampz"), "\"Rare stampz\"");
        assert_eq!(quote("a\nb\u{202e}c\0"), r#""a\nb\u{202e}c\u{0}""#);
        let long = quote(&"ä".repeat(5000));
        assert_eq!(long.chars().count(), QUOTE_MAX_CHARS + 2);
        assert!(long.ends_with("…\""));
    }

    #[test]
    fn bytes_that_are_no_text_can_be_quoted() {
        assert_eq!(quote_bytes(b"a\xffb"), "\"a\u{fffd}b\"");
    }

    #[test]
    fn lines_are_listed_as_people_write_them() {
        assert_eq!(line_list(&[4], false), "line 4");
        assert_eq!(line_list(&[4, 9, 12], false), "lines 4, 9 and 12");
        assert_eq!(line_list(&[4, 9], true), "lines 4, 9, …");
    }
}
