//! Scalars without quotes: what they mean, and which texts may be written as one.
//!
//! The two sides are not each other's mirror. Reading follows the core schema of YAML 1.2, and where readers of YAML
//! 1.1 see something else, the value is left unresolved: it then equals nothing that can be asked for. Writing is
//! careful: what any reader could take for something other than a text gets quotes.

use super::node::Value;

/// What an unquoted scalar means.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        "=" | "<<" => return Value::Unresolved(text.to_owned()),
        _ => {}
    }
    // JSON has no dates: a date is the text that it is.
    if is_timestamp(text) {
        return Value::String(text.to_owned());
    }
    if let Some(number) = number(text) {
        return Value::Number(number);
    }
    if is_word_of_yaml(text) || is_numeric_looking(text) {
        return Value::Unresolved(text.to_owned());
    }
    Value::String(text.to_owned())
}

/// Decimal numbers on which all readers agree.
fn number(text: &str) -> Option<serde_json::Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits.split_at(digits.bytes().take_while(u8::is_ascii_digit).count());
    if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    if rest.is_empty() {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let signed = unsigned.parse::<i64>().ok().map(serde_json::Number::from);
        return signed.or_else(|| unsigned.parse::<u64>().ok().map(serde_json::Number::from));
    }
    let fraction = rest.strip_prefix('.')?;
    let (decimals, exponent) =
        fraction.split_at(fraction.bytes().take_while(u8::is_ascii_digit).count());
    let exponent_is_plain = exponent.is_empty()
        || exponent
            .strip_prefix(['e', 'E'])
            .and_then(|exponent| exponent.strip_prefix(['-', '+']))
            .is_some_and(|digits| {
                !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
            });
    if decimals.is_empty() || !exponent_is_plain {
        return None;
    }
    text.parse().ok().and_then(serde_json::Number::from_f64)
}

/// Words that some reader takes for a boolean or null.
fn is_word_of_yaml(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nil",
    ];
    text.len() <= 5 && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a text consists of what numbers of any base, times and dates consist of.
fn is_numeric_looking(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let rest = lower.trim_start_matches(['-', '+']);
    // Some readers take `e1` for a number without digits.
    let is_bare_exponent = rest.strip_prefix('e').is_some_and(|exponent| {
        let digits = exponent.trim_start_matches(['-', '+']);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    matches!(rest, ".inf" | ".nan")
        || is_bare_exponent
        || (rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && rest
                .chars()
                .all(|c| c.is_ascii_hexdigit() || "xo_:.+- tz".contains(c)))
}

/// `2026-10-01`, also with a time: YAML 1.1 and Astro's reader make a date of it.
pub(super) fn is_timestamp(text: &str) -> bool {
    let (date, time) = text.split_at(text.find(['T', 't', ' ', '\t']).unwrap_or(text.len()));
    let mut parts = date.split('-');
    let mut digits = |lengths: std::ops::RangeInclusive<usize>| {
        parts.next().is_some_and(|part| {
            lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(4..=4)
        && digits(1..=2)
        && digits(1..=2)
        && parts.next().is_none()
        && (time.is_empty()
            || (time.len() > 1
                && time[1..]
                    .chars()
                    .all(|c| c.is_ascii_digit() || ":.+-Zz \t".contains(c))))
}

/// Whether a text can stand without quotes and every reader takes it for that text. `in_flow`: between brackets.
pub(super) fn can_be_plain(text: &str, in_flow: bool) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let starts_well = first.is_alphabetic()
        || first.is_ascii_digit()
        || "/_(".contains(first)
        || text.starts_with("./")
        || text.starts_with("../");
    let mut before = ' ';
    let mut has_trap = false;
    for c in text.chars() {
        has_trap |= is_special(c)
            || (c == '#' && before.is_whitespace())
            || (before == ':' && c.is_whitespace())
            || (in_flow && ",[]{}:?".contains(c));
        before = c;
    }
    let ends_well = before != ':' && !before.is_whitespace();
    starts_well && !has_trap && ends_well && !is_numeric_looking(text) && !is_word_of_yaml(text)
}

/// Characters that cannot stand in a text without an escape, or that some reader takes for a line break.
pub(super) fn is_special(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_readers_agree_on_is_resolved() {
        let number = |n: f64| Value::Number(serde_json::Number::from_f64(n).expect("finite"));
        let cases = [
            ("", Value::Null),
            ("~", Value::Null),
            ("true", Value::Bool(true)),
            ("12", Value::Number(12.into())),
            ("-7", Value::Number((-7).into())),
            ("18446744073709551615", Value::Number(u64::MAX.into())),
            ("1.5", number(1.5)),
            ("1.0e+21", number(1e21)),
            ("2026-10-01", Value::String("2026-10-01".to_owned())),
            (
                "2026-10-01T12:00:00Z",
                Value::String("2026-10-01T12:00:00Z".to_owned()),
            ),
            ("Penny Black", Value::String("Penny Black".to_owned())),
            (
                "1840 was the year",
                Value::String("1840 was the year".to_owned()),
            ),
        ];
        for (text, value) in cases {
            assert_eq!(resolve(text), value, "{text}");
        }
    }

    #[test]
    fn what_readers_disagree_on_is_unresolved_and_written_with_quotes() {
        for text in [
            "yes",
            "No",
            "ON",
            "off",
            "y",
            "0777",
            "0o7",
            "0x1F",
            "0b1",
            "1_000",
            "12:30",
            "1e3",
            "1.5e3",
            ".5",
            "1.",
            ".inf",
            "-.INF",
            ".nan",
            "=",
            "<<",
            "+12:30:00",
            "190:20:30",
            "tRUE",
        ] {
            assert_eq!(resolve(text), Value::Unresolved(text.to_owned()), "{text}");
            assert!(!can_be_plain(text, false), "{text}");
        }
    }

    #[test]
    fn what_could_be_misread_gets_quotes() {
        for text in [
            "",
            " ",
            " a",
            "a ",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "- a",
            "-",
            "?",
            "? a",
            "!a",
            "&a",
            "*a",
            "%a",
            "@a",
            "`a`",
            "'a",
            "\"a\"",
            "[a",
            "{a",
            "|",
            ">",
            "a\nb",
            "a\tb",
            "a\u{85}b",
            "a\u{2028}b",
            "\u{feff}a",
            "a\0",
            "~",
            "null",
            "12",
            "1.5",
            "2026-10-01",
            "2026-10-01 10:00:00",
            "😀 smile",
            "a:\tb",
            "=",
        ] {
            assert!(!can_be_plain(text, false), "{text:?}");
        }
        for text in ["a, b", "a[0]", "{x}", "a:b", "a?b"] {
            assert!(!can_be_plain(text, true), "{text:?}");
        }
    }

    #[test]
    fn ordinary_texts_need_no_quotes() {
        for text in [
            "Penny Black",
            "Café 😀",
            "/images/a.jpg",
            "../a.jpg",
            "it's",
            "a#b",
            "http://example.org",
            "C# and F#",
            "1840s stamps",
            "(new)",
            "naïve",
            "日本",
        ] {
            assert!(can_be_plain(text, false), "{text:?}");
        }
    }
}
