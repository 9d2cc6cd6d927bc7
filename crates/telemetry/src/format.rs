//! One line of the log, from what was said. Pure.
//!
//! A line is flat, because whoever searches a log names a field and not a path: the fields of the spans around an event stand
//! beside its own. What is said nearer to the event wins.

use std::borrow::Cow;

use contract::{SessionId, Timestamp};
use serde_json::Value;

/// Bytes of one line. Fargate's log driver cuts at 16 KB and makes two events of it, neither of which is JSON.
pub(crate) const LINE_MAX_BYTES: usize = 8 * 1024;
/// Bytes to which texts are cut until a line is short enough.
const TEXT_MAX_BYTES: [usize; 5] = [8 * 1024, 2048, 512, 128, 32];
/// Words in the name of a field whose text is never logged: what clients write, and what opens a door.
const UNSAID: [&str; 17] = [
    "text",
    "body",
    "content",
    "diff",
    "find",
    "prompt",
    "token",
    "secret",
    "key",
    "password",
    "passphrase",
    "credential",
    "credentials",
    "cookie",
    "authorization",
    "proof",
    "signature",
];
/// What stands in its place, and where something was cut.
const LEFT_OUT: &str = "…";

/// An event, and what is known around it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) at: Timestamp,
    pub(crate) level: &'a str,
    pub(crate) target: &'a str,
    /// The outermost first, the event's own last, `message` among them.
    pub(crate) fields: Vec<(&'a str, Value)>,
}

impl Line<'_> {
    /// As one JSON object.
    pub(crate) fn json(&self) -> String {
        self.fitting(|fields, cut| {
            let mut line = String::from("{");
            let at = self.at.to_string();
            let head = [
                ("timestamp", at.as_str()),
                ("level", self.level),
                ("target", self.target),
            ];
            for (name, value) in head {
                push_entry(&mut line, name, &Value::from(value));
            }
            for (name, value) in fields {
                push_entry(&mut line, name, value);
            }
            if cut {
                push_entry(&mut line, "cut", &Value::from(true));
            }
            line.push('}');
            line
        })
    }

    /// As a sentence with what belongs to it.
    pub(crate) fn text(&self) -> String {
        self.fitting(|fields, _| {
            let mut line = format!("{} {:>5} {}:", self.at, self.level, self.target);
            for (name, value) in fields {
                match value {
                    // Whatever a value says, it is one line.
                    Value::String(text) if name == "message" => {
                        let escaped: String = text.chars().flat_map(one_line).collect();
                        line.push_str(&format!(" {escaped}"));
                    }
                    Value::String(text) if is_plain(text) => {
                        line.push_str(&format!(" {name}={text}"));
                    }
                    value => line.push_str(&format!(" {name}={value}")),
                }
            }
            line
        })
    }

    /// Renders with texts as long as the line can take.
    fn fitting(&self, render: impl Fn(&[(String, Value)], bool) -> String) -> String {
        let fields = self.said();
        for text_max_bytes in TEXT_MAX_BYTES {
            let mut cut = false;
            let fields: Vec<(String, Value)> = fields
                .iter()
                .map(|(name, value)| {
                    let value = match value {
                        Value::String(text) if text.len() > text_max_bytes => {
                            cut = true;
                            Value::from(shortened(text, text_max_bytes))
                        }
                        value => value.clone(),
                    };
                    (name.clone(), value)
                })
                .collect();
            let line = render(&fields, cut);
            if line.len() < LINE_MAX_BYTES {
                return line;
            }
        }
        // So many fields that not even their names fit. The message is the first.
        let message: Vec<(String, Value)> = fields
            .into_iter()
            .take(1)
            .map(|(name, value)| match value {
                Value::String(text) => (name, Value::from(shortened(&text, 128))),
                value => (name, value),
            })
            .collect();
        render(&message, true)
    }

    /// The fields as they may be said, each name once, the message first.
    fn said(&self) -> Vec<(String, Value)> {
        let mut said: Vec<(String, Value)> = Vec::new();
        for (name, value) in &self.fields {
            let name = camel_case(name);
            let value = sayable(&name, value);
            match said.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => said.push((name, value)),
            }
        }
        // What the line says itself is not said by anybody else.
        said.retain(|(name, _)| !matches!(name.as_str(), "timestamp" | "level" | "target" | "cut"));
        said.sort_by_key(|(name, _)| name != "message");
        said
    }
}

fn push_entry(line: &mut String, name: &str, value: &Value) {
    if line.len() > 1 {
        line.push(',');
    }
    line.push_str(&format!("{}:{value}", Value::from(name)));
}

/// A value that may stand in a log.
fn sayable(name: &str, value: &Value) -> Value {
    let Value::String(text) = value else {
        // Numbers, and whether something is so: how long a text is, not what it says.
        return value.clone();
    };
    if name == "sessionId" {
        return Value::from(redacted(text));
    }
    if words(name)
        .iter()
        .any(|word| UNSAID.contains(&word.as_str()))
    {
        return Value::from(LEFT_OUT);
    }
    Value::from(without_userinfo(text))
}

/// The id of a session is what lets somebody in.
fn redacted(text: &str) -> String {
    match text.parse::<SessionId>() {
        Ok(session) => session.redacted().to_owned(),
        Err(_) => LEFT_OUT.to_owned(),
    }
}

/// Addresses without who is to be let in: `https://user:password@host` is how credentials stand in them.
fn without_userinfo(text: &str) -> Cow<'_, str> {
    const SCHEME_END: &str = "://";
    if !text.contains(SCHEME_END) || !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME_END) {
        let (before, after) = rest.split_at(at + SCHEME_END.len());
        safe.push_str(before);
        let end = after
            .find(|c: char| {
                matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>') || c.is_whitespace()
            })
            .unwrap_or(after.len());
        let (authority, after) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                safe.push_str(LEFT_OUT);
                safe.push('@');
                safe.push_str(host);
            }
            None => safe.push_str(authority),
        }
        rest = after;
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// At most so many bytes, and a sign that there was more.
fn shortened(text: &str, max_bytes: usize) -> String {
    let end = text.floor_char_boundary(max_bytes.saturating_sub(LEFT_OUT.len()));
    format!("{}{LEFT_OUT}", &text[..end])
}

/// As names are on the wire.
fn camel_case(name: &str) -> String {
    let mut parts = name.split(['_', '.', '-']);
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut characters = part.chars();
        camel.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(characters.as_str());
    }
    camel
}

/// The words of which a name is made.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(character.to_ascii_lowercase());
        }
    }
    words
}

fn one_line(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control() && character != '\t';
    let plain = (!escaped).then_some(character);
    let escaped = escaped.then(|| character.escape_default());
    escaped.into_iter().flatten().chain(plain)
}

/// Whether a text can stand in a line of text without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn line<'a>(fields: &[(&'a str, Value)]) -> Line<'a> {
        Line {
            at: Timestamp::from_unix_ms(1_700_000_000_000),
            level: "INFO",
            target: "edit_agent::pipeline",
            fields: fields.to_vec(),
        }
    }

    #[test]
    fn a_line_is_flat_and_what_is_nearer_wins() {
        let line = line(&[
            ("client_id", json!("amelia")),
            ("session_id", json!("amelia_h7777777777777777777777777")),
            ("generation", json!(3)),
            ("phase", json!("serve")),
            ("instructionId", json!("m-1")),
            ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
            ("phase", json!("consume")),
            ("message", json!("a \"line\"\nof two")),
            ("files", json!(2)),
        ]);
        insta::assert_snapshot!(line.json(), @r#"{"timestamp":"2023-11-14T22:13:20.000Z","level":"INFO","target":"edit_agent::pipeline","message":"a \"line\"\nof two","clientId":"amelia","sessionId":"h7777777","generation":3,"phase":"consume","instructionId":"m-1","traceId":"4bf92f3577b34da6a3ce929d0e0e4736","files":2}"#);
        insta::assert_snapshot!(line.text(), @r#"2023-11-14T22:13:20.000Z  INFO edit_agent::pipeline: a "line"\nof two clientId=amelia sessionId=h7777777 generation=3 phase=consume instructionId=m-1 traceId=4bf92f3577b34da6a3ce929d0e0e4736 files=2"#);
    }

    #[test]
    fn what_clients_write_and_what_opens_doors_is_not_said() {
        let secret = "hunter2";
        for name in [
            "text",
            "body",
            "content",
            "content_base64",
            "contentBase64",
            "token",
            "session_token",
            "secret",
            "aws_secret_access_key",
            "deploy_key",
            "deployKey",
            "proofKey",
            "authorization",
            "http.authorization",
            "set-cookie",
            "prompt",
            "Token",
        ] {
            for said in [
                line(&[(name, json!(secret))]).json(),
                line(&[(name, json!(secret))]).text(),
            ] {
                assert!(!said.contains(secret) && said.contains('…'), "{said}");
            }
        }
        for (name, value) in [
            ("body_bytes", json!(12)),
            ("context", json!("context")),
            ("keyboard", json!("qwertz")),
        ] {
            let said = line(&[(name, value.clone())]).json();
            assert!(said.contains(&value.to_string()), "{said}");
        }
    }

    #[test]
    fn an_address_lets_nobody_in() {
        for (text, expected) in [
            (
                "https://user:pa@ss@github.com/a/b.git",
                "https://…@github.com/a/b.git",
            ),
            ("https://github.com/a@b", "https://github.com/a@b"),
            (
                "cannot reach https://x-access-token:ghs_1@github.com: no, ssh://git@host/x",
                "cannot reach https://…@github.com: no, ssh://…@host/x",
            ),
            ("a@b.example", "a@b.example"),
            ("'https://u@h' 'https://h'", "'https://…@h' 'https://h'"),
        ] {
            assert_eq!(without_userinfo(text), expected);
        }
        let session = line(&[("session_id", json!("no id at all, but secret"))]);
        assert!(!session.json().contains("secret"));
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let long = "ä\n\u{1}".repeat(20_000);
        let fields = [
            ("error", json!(long)),
            ("message", json!(long)),
            ("n", json!(1)),
        ];
        let cut = line(&fields).json();
        let read: Value = serde_json::from_str(&cut).expect("JSON");
        assert!(cut.len() < LINE_MAX_BYTES, "{}", cut.len());
        assert_eq!((&read["cut"], &read["n"]), (&json!(true), &json!(1)));
        assert!(read["message"].as_str().expect("text").starts_with("ä\n"));
        assert!(line(&fields).text().len() < LINE_MAX_BYTES);
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,40}".prop_map(Value::from),
            (".{1,4}", 0usize..9000).prop_map(|(piece, times)| Value::from(piece.repeat(times))),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_line_of_json(
            names in prop::collection::vec("[a-zA-Z_.]{0,200}", 0..60),
            values in prop::collection::vec(value(), 60),
        ) {
            let fields: Vec<(&str, Value)> = names.iter().map(String::as_str).zip(values).collect();
            let said = line(&fields).json();
            prop_assert!(said.len() < LINE_MAX_BYTES);
            prop_assert!(!said.contains('\n'));
            let read: Value = serde_json::from_str(&said).expect("JSON");
            prop_assert_eq!(&read["level"], "INFO");
            let text = line(&fields).text();
            prop_assert!(text.len() < LINE_MAX_BYTES && !text.contains('\n'));
        }
    }
}
