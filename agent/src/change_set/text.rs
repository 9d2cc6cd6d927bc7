//! Text of a file: what counts as text, its line endings, and finding and replacing a part of it.

use contract::{ErrorCode, SitePath};

use super::fault::{Fault, line_list, quote};
use super::overlay::Limits;

/// Line numbers that a message lists.
const LINES_LISTED_MAX: usize = 5;

/// Bytes of a file in which a near match is looked for: it takes a copy of the file, and larger ones are no prose.
const HINT_MAX_BYTES: usize = 1 << 20;

/// How a text ends its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEndings {
    /// It has one line, or both kinds.
    Unknown,
    /// All lines end in LF.
    Lf,
    /// All lines end in CR LF.
    CrLf,
}

impl LineEndings {
    /// Those of `text`.
    pub(super) fn of(text: &str) -> Self {
        let all = text.matches('\n').count();
        let with_return = text.matches("\r\n").count();
        match (all, with_return) {
            (0, _) => Self::Unknown,
            (_, 0) => Self::Lf,
            (all, with_return) if all == with_return => Self::CrLf,
            _ => Self::Unknown,
        }
    }

    /// `text` with these line endings; as it is if they are unknown.
    pub(super) fn applied_to(self, text: &str) -> String {
        match self {
            Self::Unknown => text.to_owned(),
            Self::Lf => text.replace("\r\n", "\n"),
            Self::CrLf => text.replace("\r\n", "\n").replace('\n', "\r\n"),
        }
    }
}

/// `content` as text; not if it is no UTF-8 or has a NUL, which is how git tells binary files.
pub(super) fn as_text<'c>(path: &SitePath, at: &str, content: &'c [u8]) -> Result<&'c str, Fault> {
    let what = match str::from_utf8(content) {
        Ok(text) if !text.contains('\0') => return Ok(text),
        Ok(_) => "is not text: it has NUL bytes.",
        Err(_) => "is not text in UTF-8.",
    };
    Err(Fault::of(path, at, ErrorCode::NotText, what))
}

/// Whether `content` is something other than text, for which line by line makes no sense.
pub(super) fn is_binary(content: &[u8]) -> bool {
    content.contains(&0) || str::from_utf8(content).is_err()
}

/// What a `replace` asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replacement<'c> {
    pub(super) find: &'c str,
    pub(super) replace: &'c str,
    pub(super) expect: u32,
}

impl Replacement<'_> {
    /// `content` with every occurrence of `find` replaced, if there are exactly as many as expected.
    ///
    /// Where the file ends all its lines alike, `find` and `replace` are taken with the file's endings: a producer
    /// writes `\n`, whatever the file has. Occurrences do not overlap and are counted from the start.
    pub(super) fn apply(
        &self,
        path: &SitePath,
        content: &[u8],
        limits: Limits,
    ) -> Result<Vec<u8>, Fault> {
        let text = as_text(path, ".path", content)?;
        let endings = LineEndings::of(text);
        let find = endings.applied_to(self.find);
        let replace = endings.applied_to(self.replace);
        if find.is_empty() {
            return Err(Fault::of(
                path,
                ".find",
                ErrorCode::FindNotFound,
                "the text to find is empty.",
            ));
        }
        let expected = usize::try_from(self.expect).unwrap_or(usize::MAX);
        let found = text.matches(find.as_str()).count();
        if found != expected {
            return Err(self.wrong_count(path, text, &find, found));
        }
        let bytes =
            (text.len() - found * find.len()).saturating_add(found.saturating_mul(replace.len()));
        limits.check_file(path, ".replace", bytes)?;
        Ok(text.replace(find.as_str(), &replace).into_bytes())
    }

    fn wrong_count(&self, path: &SitePath, text: &str, find: &str, found: usize) -> Fault {
        let quoted = quote(self.find);
        if found == 0 {
            let hint = near_match(text, find).unwrap_or_default();
            let what = format!("{quoted} does not occur.{hint}");
            return Fault::of(path, ".find", ErrorCode::FindNotFound, what);
        }
        let places = text
            .match_indices(find)
            .take(LINES_LISTED_MAX)
            .map(|(place, _)| place);
        let lines = line_list(&lines_at(text, places), found > LINES_LISTED_MAX);
        let expected = times(self.expect as usize);
        let what = format!(
            "{quoted} occurs {} ({lines}), not {expected}.",
            times(found)
        );
        Fault::of(path, ".find", ErrorCode::FindCount, what)
    }
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}

/// The numbers of the lines in which these ascending places are, each once.
fn lines_at(text: &str, places: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut lines: Vec<usize> = Vec::new();
    let (mut line, mut counted) = (1, 0);
    for place in places {
        line += text[counted..place].matches('\n').count();
        counted = place;
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

/// What would have matched, as a sentence with a space before it.
fn near_match(text: &str, find: &str) -> Option<String> {
    if text.len() > HINT_MAX_BYTES {
        return None;
    }
    let attempts = [
        (true, false, "white space"),
        (false, true, "case"),
        (true, true, "case and white space"),
    ];
    attempts.into_iter().find_map(|(spaces, case, ignored)| {
        let line = line_of_match(text, find, spaces, case)?;
        Some(format!(
            " It would match on line {line} if {ignored} did not matter."
        ))
    })
}

fn line_of_match(text: &str, find: &str, ignore_spaces: bool, ignore_case: bool) -> Option<usize> {
    let fold = |c: char| {
        let kept = !(ignore_spaces && c.is_whitespace());
        let lower = ignore_case.then(|| c.to_lowercase());
        let same = (!ignore_case).then_some(c);
        lower
            .into_iter()
            .flatten()
            .chain(same)
            .filter(move |_| kept)
    };
    let needle: String = find.chars().flat_map(fold).collect();
    if needle.is_empty() {
        return None;
    }
    let folded: String = text.chars().flat_map(fold).collect();
    let place = folded.find(&needle)?;
    let mut line = 1;
    let mut length = 0;
    for c in text.chars() {
        length += fold(c).map(char::len_utf8).sum::<usize>();
        if length > place {
            break;
        }
        line += usize::from(c == '\n');
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use contract::client_config::Policy;

    use super::*;

    fn replaced(
        content: &[u8],
        find: &str,
        replace: &str,
        expect: u32,
    ) -> Result<Vec<u8>, (ErrorCode, String)> {
        let path = "src/a.md".parse().expect("valid");
        let limits = Limits::of(&Policy {
            max_file_bytes: Some(1000),
            ..Policy::default()
        });
        let asked = Replacement {
            find,
            replace,
            expect,
        };
        asked
            .apply(&path, content, limits)
            .map_err(|fault| (fault.code, fault.message))
    }

    #[test]
    fn a_text_that_occurs_as_often_as_expected_is_replaced_everywhere() {
        assert_eq!(
            replaced(b"one two", "two", "2", 1).as_deref(),
            Ok(b"one 2".as_slice())
        );
        assert_eq!(
            replaced(b"a-a-a", "a", "bb", 3).as_deref(),
            Ok(b"bb-bb-bb".as_slice())
        );
    }

    #[test]
    fn byte_order_mark_and_missing_final_newline_stay() {
        assert_eq!(
            replaced("\u{feff}old".as_bytes(), "old", "new", 1).as_deref(),
            Ok("\u{feff}new".as_bytes())
        );
    }

    #[test]
    fn line_endings_of_the_file_are_kept() {
        let cases: [(&[u8], &str, &str, &[u8]); 5] = [
            (
                b"a\r\nb\r\nc\r\n",
                "a\nb",
                "x\ny\nz",
                b"x\r\ny\r\nz\r\nc\r\n",
            ),
            (b"a\r\nb\r\n", "a\r\nb", "x\r\ny", b"x\r\ny\r\n"),
            (b"a\nb\n", "a\r\nb", "x\r\ny", b"x\ny\n"),
            (b"a\r\nb\nc", "b\nc", "x\ny", b"a\r\nx\ny"),
            (b"a\r\nb\r\n", "\n", "|", b""),
        ];
        for (content, find, replace, expected) in cases {
            match replaced(content, find, replace, 1) {
                Ok(bytes) => assert_eq!(bytes, expected),
                Err((code, message)) => {
                    assert_eq!(
                        (code, expected.is_empty()),
                        (ErrorCode::FindCount, true),
                        "{message}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_count_that_differs_says_where_the_text_is() {
        let (code, message) = replaced(b"x\nx x\ny\nx", "x", "y", 1).expect_err("four");
        assert_eq!(code, ErrorCode::FindCount);
        insta::assert_snapshot!(message, @r#"src/a.md: "x" occurs 4 times (lines 1, 2 and 4), not once."#);
        let (_, message) = replaced(&b"x\n".repeat(9), "x", "y", 2).expect_err("nine");
        insta::assert_snapshot!(message, @r#"src/a.md: "x" occurs 9 times (lines 1, 2, 3, 4, 5, …), not twice."#);
    }

    #[test]
    fn a_text_that_nearly_occurs_says_where() {
        let message = |find| {
            replaced("Rare\n stamps\nŒuvre".as_bytes(), find, "", 1)
                .expect_err("nothing")
                .1
        };
        insta::assert_snapshot!(message("Rare stampz"), @r#"src/a.md: "Rare stampz" does not occur."#);
        insta::assert_snapshot!(message("Rare stamps"), @r#"src/a.md: "Rare stamps" does not occur. It would match on line 1 if white space did not matter."#);
        insta::assert_snapshot!(message("œuvre"), @r#"src/a.md: "œuvre" does not occur. It would match on line 3 if case did not matter."#);
        insta::assert_snapshot!(message("RARE STAMPS"), @r#"src/a.md: "RARE STAMPS" does not occur. It would match on line 1 if case and white space did not matter."#);
        insta::assert_snapshot!(message(""), @"src/a.md: the text to find is empty.");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for content in [b"a\0b".as_slice(), b"caf\xe9"] {
            assert_eq!(
                replaced(content, "a", "b", 1).map_err(|(code, _)| code),
                Err(ErrorCode::NotText)
            );
        }
    }

    #[test]
    fn a_result_that_is_too_large_is_refused_before_it_is_made() {
        let (code, message) =
            replaced(&[b'a'; 500], "a", &"b".repeat(1 << 20), 500).expect_err("too large");
        assert_eq!(code, ErrorCode::LimitExceeded);
        insta::assert_snapshot!(message, @"src/a.md: would have 524288000 bytes; one file may have at most 1000 (maxFileBytes).");
    }
}
