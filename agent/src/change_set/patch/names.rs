//! Names of files in a patch: git's quoting, and the `a/` and `b/` in front of them.

/// The names in `---` and `+++` lines; `None` where it is `/dev/null`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
}

impl Names {
    /// Whether the old name is `path`, with or without a prefix.
    pub(super) fn old_is(&self, path: &str) -> bool {
        self.old
            .as_deref()
            .is_some_and(|name| is_prefixed(name, path))
    }

    /// Whether the new name is `path`, with or without a prefix.
    pub(super) fn new_is(&self, path: &str) -> bool {
        self.new
            .as_deref()
            .is_some_and(|name| is_prefixed(name, path))
    }

    /// The one file that both name.
    pub(super) fn common(&self) -> Option<String> {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => common(old, new),
            (Some(name), None) => Some(name.strip_prefix("a/").unwrap_or(name).to_owned()),
            (None, Some(name)) => Some(name.strip_prefix("b/").unwrap_or(name).to_owned()),
            (None, None) => None,
        }
    }
}

fn is_prefixed(name: &str, path: &str) -> bool {
    name == path
        || name
            .split_once('/')
            .is_some_and(|(prefix, rest)| is_prefix(prefix) && rest == path)
}

/// What git puts in front of names: `a`, `b`, and with `diff.mnemonicPrefix` `c`, `i`, `o` and `w`.
fn is_prefix(text: &str) -> bool {
    matches!(text, "a" | "b" | "c" | "i" | "o" | "w")
}

/// The one path behind an old and a new name: `a/x` and `b/x`, or twice `x` where prefixes are off.
pub(super) fn common(old: &str, new: &str) -> Option<String> {
    if old == new {
        return Some(old.to_owned());
    }
    let (old_prefix, old_rest) = old.split_once('/')?;
    let (new_prefix, new_rest) = new.split_once('/')?;
    (is_prefix(old_prefix) && is_prefix(new_prefix) && old_rest == new_rest)
        .then(|| old_rest.to_owned())
}

/// The two names of `diff --git <old> <new>`. Without quotes they are told apart by being equally long, which holds
/// unless the file is renamed or copied; then other lines name it.
pub(super) fn of_git_line(text: &str) -> Option<(String, String)> {
    if text.starts_with('"') {
        let end = closing_quote(text)?;
        let rest = text.get(end + 1..)?.strip_prefix(' ')?;
        return Some((unquoted(&text[..=end])?, unquoted(rest)?));
    }
    if let Some(place) = text.find(" \"") {
        return Some((text[..place].to_owned(), unquoted(&text[place + 1..])?));
    }
    let middle = text.len() / 2;
    (text.as_bytes().get(middle) == Some(&b' '))
        .then(|| (text[..middle].to_owned(), text[middle + 1..].to_owned()))
}

/// The name in a `---` or `+++` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LineName {
    File(String),
    DevNull,
    Unreadable,
}

/// The name in a `---` or `+++` line, without a time stamp.
pub(super) fn of_name_line(text: &str) -> LineName {
    if text.starts_with('"') {
        let name = closing_quote(text).and_then(|end| unquoted(&text[..=end]));
        return name.map_or(LineName::Unreadable, LineName::File);
    }
    match text.split('\t').next().unwrap_or(text) {
        "/dev/null" => LineName::DevNull,
        name => LineName::File(name.to_owned()),
    }
}

/// A name without git's quotes and escapes; as it is if it has none. `None` if they are broken or it is no UTF-8.
pub(super) fn unquoted(text: &str) -> Option<String> {
    if !text.starts_with('"') {
        return Some(text.to_owned());
    }
    let end = closing_quote(text)?;
    if end + 1 != text.len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(end);
    let mut rest = text.as_bytes()[1..end].iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            same @ (b'"' | b'\\') => same,
            first @ b'0'..=b'3' => {
                let digit = |byte: Option<u8>| {
                    byte.filter(|byte| (b'0'..=b'7').contains(byte))
                        .map(|byte| byte - b'0')
                };
                let (second, third) = (digit(rest.next())?, digit(rest.next())?);
                (first - b'0') << 6 | second << 3 | third
            }
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The place of the quote that closes the one at the start.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().enumerate().skip(1).find_map(|(place, byte)| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes.then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_names_of_a_header_are_told_apart() {
        let cases = [
            ("a/x b/x", Some(("a/x", "b/x"))),
            ("a/x y b/x y", Some(("a/x y", "b/x y"))),
            ("a/b/a b/b/a", Some(("a/b/a", "b/b/a"))),
            ("src/x src/x", Some(("src/x", "src/x"))),
            (
                r#""a/caf\303\251" "b/caf\303\251""#,
                Some(("a/café", "b/café")),
            ),
            (r#"a/x "b/\"q\"""#, Some(("a/x", "b/\"q\""))),
            ("a/old b/newer", None),
            (r#""a/x b/x"#, None),
            ("", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(old, new)| (old.to_owned(), new.to_owned()));
            assert_eq!(of_git_line(line), expected, "{line}");
        }
    }

    #[test]
    fn prefixes_are_taken_off_only_where_they_are_prefixes() {
        assert_eq!(common("a/src/x", "b/src/x").as_deref(), Some("src/x"));
        assert_eq!(common("i/x", "w/x").as_deref(), Some("x"));
        assert_eq!(common("src/x", "src/x").as_deref(), Some("src/x"));
        assert_eq!(common("a/x", "b/y"), None);
        assert_eq!(common("src/x", "lib/x"), None);
    }

    #[test]
    fn a_name_line_can_have_a_time_stamp_or_be_nothing() {
        let file = |name: &str| LineName::File(name.to_owned());
        assert_eq!(of_name_line("a/x y\t2026-01-01"), file("a/x y"));
        assert_eq!(of_name_line("/dev/null"), LineName::DevNull);
        assert_eq!(of_name_line("\"a/tab\\tx\"\tstamp"), file("a/tab\tx"));
        assert_eq!(of_name_line("\"open"), LineName::Unreadable);
    }

    #[test]
    fn broken_quoting_is_no_name() {
        for text in [r#""\q""#, r#""\40""#, r#""\377""#, "\"x\"y", "\"\\", "\""] {
            assert_eq!(unquoted(text), None, "{text}");
        }
    }
}
