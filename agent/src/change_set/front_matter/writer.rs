//! Writes values as YAML that every reader takes for exactly these values.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::node::Style;
use super::plain;

/// How a value is to be written at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rendering {
    /// Beside its key.
    Inline(String),
    /// A literal block scalar: what stands beside the key, and the lines below.
    Literal(String, String),
    /// In lines below its key.
    Lines(String),
}

/// The manners of the file that is written into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'f> {
    /// The line ending.
    pub(super) line_ending: &'f str,
    /// Columns of one level.
    pub(super) step: usize,
    /// Columns between a key and the dashes below it.
    pub(super) dash_indent: usize,
}

/// The manners of the value that is replaced.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manners {
    /// How it was quoted, if it was a scalar.
    pub(super) style: Option<Style>,
    /// Whether it was an unquoted date.
    pub(super) was_plain_date: bool,
    /// Whether it was between brackets or braces, or has to be now.
    pub(super) flow: bool,
    /// Columns between the key and a dash, if it was a sequence.
    pub(super) dash_indent: Option<usize>,
    /// Whether a block scalar cannot stand there.
    pub(super) no_block_scalar: bool,
}

impl Writer<'_> {
    /// A value below a key with this indentation.
    pub(super) fn render(&self, value: &Value, indent: usize, manners: Manners) -> Rendering {
        match value {
            Value::String(text) => self.text(text, indent, manners),
            Value::Array(items) if !items.is_empty() && !manners.flow => {
                let dash_indent = manners.dash_indent.unwrap_or(self.dash_indent);
                Rendering::Lines(self.lines(value, indent + dash_indent))
            }
            Value::Object(members) if !members.is_empty() && !manners.flow => {
                Rendering::Lines(self.lines(value, indent + self.step))
            }
            other => Rendering::Inline(flow(other)),
        }
    }

    /// A key with its value, as the lines of a block mapping.
    pub(super) fn entry(&self, key: &str, value: &Value, indent: usize) -> String {
        let head = format!("{:indent$}{}:", "", scalar(key, None, false));
        let ending = self.line_ending;
        match self.render(value, indent, Manners::default()) {
            Rendering::Inline(text) => format!("{head} {text}{ending}"),
            Rendering::Literal(header, body) => format!("{head} {header}{ending}{body}"),
            Rendering::Lines(lines) => format!("{head}{ending}{lines}"),
        }
    }

    fn text(&self, text: &str, indent: usize, manners: Manners) -> Rendering {
        let was_quoted = matches!(manners.style, Some(Style::Single | Style::Double));
        if text.contains('\n')
            && !was_quoted
            && !manners.flow
            && !manners.no_block_scalar
            && is_literal(text)
        {
            let columns = indent + self.step;
            let ending = self.line_ending;
            let header = if text.ends_with('\n') { "|" } else { "|-" };
            let line = |line: &str| {
                if line.is_empty() {
                    ending.to_owned()
                } else {
                    format!("{:columns$}{line}{ending}", "")
                }
            };
            return Rendering::Literal(header.to_owned(), text.lines().map(line).collect());
        }
        if manners.was_plain_date && plain::is_timestamp(text) {
            return Rendering::Inline(text.to_owned());
        }
        Rendering::Inline(scalar(text, manners.style, manners.flow))
    }

    /// A collection that is not empty, in lines with this indentation.
    fn lines(&self, value: &Value, indent: usize) -> String {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| self.entry_in_lines(key, value, indent))
                .collect(),
            Value::Array(items) => items.iter().map(|item| self.item(item, indent)).collect(),
            other => format!("{:indent$}{}{}", "", flow(other), self.line_ending),
        }
    }

    /// Like [`Self::entry`], but with every text on one line.
    fn entry_in_lines(&self, key: &str, value: &Value, indent: usize) -> String {
        let head = format!("{:indent$}{}:", "", scalar(key, None, false));
        let ending = self.line_ending;
        if is_block(value) {
            let columns = if value.is_array() {
                self.dash_indent
            } else {
                self.step
            };
            return format!("{head}{ending}{}", self.lines(value, indent + columns));
        }
        format!("{head} {}{ending}", one_line(value))
    }

    fn item(&self, item: &Value, indent: usize) -> String {
        let ending = self.line_ending;
        match item {
            Value::Object(members) if !members.is_empty() => {
                // The first key stands beside the dash, the others below it.
                let lines = self.lines(item, indent + 2);
                format!("{:indent$}- {}", "", lines.trim_start_matches(' '))
            }
            other => format!("{:indent$}- {}{ending}", "", one_line(other)),
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => false,
    }
}

/// A scalar, or a collection between brackets.
fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text, None, false),
        other => flow(other),
    }
}

/// A value as it can stand between brackets.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(value) => number(value),
        Value::String(text) => scalar(text, None, true),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            if members.is_empty() {
                return "{}".to_owned();
            }
            format!("{{ {} }}", flow_members(members))
        }
    }
}

fn flow_members(members: &Map<String, Value>) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(key, value)| flow_entry(key, value))
        .collect();
    members.join(", ")
}

/// A key with its value, as it can stand between braces.
pub(super) fn flow_entry(key: &str, value: &Value) -> String {
    format!("{}: {}", scalar(key, None, true), flow(value))
}

/// A number that no reader takes for a text: with a point and a sign wherever there is an exponent.
fn number(value: &Number) -> String {
    let text = value.to_string();
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return text;
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) {
        ""
    } else {
        "+"
    };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// A text on one line: in the old quotes if it can be, else without any if that is safe.
pub(super) fn scalar(text: &str, style: Option<Style>, in_flow: bool) -> String {
    let needs_escapes = text.chars().any(plain::is_special);
    match style {
        Some(Style::Single) if !needs_escapes => single_quoted(text),
        Some(Style::Single | Style::Double) => double_quoted(text),
        _ if plain::can_be_plain(text, in_flow) => text.to_owned(),
        _ if !needs_escapes && text.contains(['"', '\\']) && !text.contains('\'') => {
            single_quoted(text)
        }
        _ => double_quoted(text),
    }
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if plain::is_special(c) => {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("writing to a String never fails");
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a text of several lines can be a literal block scalar without indentation or chomping indicators that
/// people get wrong, and survives an editor that strips spaces at the ends of lines.
fn is_literal(text: &str) -> bool {
    let lines_are_plain = text.split('\n').all(|line| {
        !line.starts_with('\t')
            && !line.ends_with([' ', '\t'])
            && !line.chars().any(|c| c != '\t' && plain::is_special(c))
    });
    lines_are_plain && !text.starts_with([' ', '\n']) && !text.ends_with("\n\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WRITER: Writer<'static> = Writer {
        line_ending: "\n",
        step: 2,
        dash_indent: 2,
    };

    #[test]
    fn values_are_written_as_people_write_them() {
        let value = json!({
            "text": "Penny Black", "number": 1.5, "large": 1e21, "nothing": null, "yes": "yes", "date": "2026-10-01",
            "lines": "one\ntwo", "empty": [], "none": {}, "list": ["a", "b: c", {"k": 1, "l": ["x"]}, [1, "a, b"]],
            "deep": {"a": {"b": "12:30"}},
        });
        let entries: String = value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| WRITER.entry(key, value, 0))
            .collect();
        insta::assert_snapshot!(entries, @r#"
        date: "2026-10-01"
        deep:
          a:
            b: "12:30"
        empty: []
        large: 1.0e+21
        lines: |-
          one
          two
        list:
          - a
          - "b: c"
          - k: 1
            l:
              - x
          - [1, "a, b"]
        none: {}
        nothing: null
        number: 1.5
        text: Penny Black
        "yes": "yes"
        "#);
    }

    #[test]
    fn quotes_stay_where_the_new_text_allows() {
        assert_eq!(scalar("it's", Some(Style::Single), false), "'it''s'");
        assert_eq!(scalar("a\u{1}", Some(Style::Single), false), r#""a\u0001""#);
        assert_eq!(scalar("plain", Some(Style::Double), false), "\"plain\"");
        assert_eq!(scalar("say \"x\": y", None, false), "'say \"x\": y'");
        assert_eq!(
            scalar("a\tb\r\n\u{85}\u{2028}", None, false),
            r#""a\tb\r\n\u0085\u2028""#
        );
    }

    #[test]
    fn a_text_that_a_literal_would_not_keep_is_quoted() {
        for text in [
            "\na",
            " a\nb",
            "a\n\n",
            "a \nb",
            "\ta\nb",
            "a\n\tb",
            "a\r\nb",
            "a\u{85}\nb",
            "a\n ",
        ] {
            assert!(!is_literal(text), "{text:?}");
        }
        for text in ["a\nb", "a\n\nb\n", "a\n  b\n# no comment\n--- x"] {
            assert!(is_literal(text), "{text:?}");
        }
    }
}
