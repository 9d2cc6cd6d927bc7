//! Two changes of one front matter brought together by key: what lines cannot, because keys stand close to each other.
//!
//! What each of the three versions says is merged as values, and the present version is then edited to say that. As with
//! every edit, the result is read again and must say exactly that. What cannot be said in an edit (an alias, a tag, a
//! folded text, a date that is not there now, comments alone) is not merged: it is for a person.

use std::collections::{BTreeMap, BTreeSet};

use contract::SitePath;
use serde_json::Map;

use super::super::{merge, text::as_text};
use super::Edit;
use super::fences::File;
use super::key::meaning_of;
use super::node::Value;
use super::plain;
use super::reader;

type Meaning = BTreeMap<String, Value>;

/// A file with the place of its front matter and what that says.
struct Page<'t> {
    file: File<'t>,
    yaml: (usize, usize),
    meaning: Meaning,
}

impl<'t> Page<'t> {
    fn read(path: &SitePath, content: &'t [u8]) -> Option<Self> {
        let text = as_text(path, ".path", content).ok()?;
        let file = File::locate(path, text).ok()?;
        let entries = reader::read(file.yaml()).ok()?;
        Some(Self {
            yaml: file.yaml?,
            file,
            meaning: meaning_of(&entries),
        })
    }

    /// What stands in front of the front matter: a byte order mark, perhaps, and the fence.
    fn head(&self) -> &'t str {
        &self.file.text[..self.yaml.0]
    }

    /// The closing fence and what follows.
    fn body(&self) -> &'t str {
        &self.file.text[self.yaml.1..]
    }
}

/// Whether `content` has a front matter that can be read.
pub(in super::super) fn is_readable(path: &SitePath, content: &[u8]) -> bool {
    Page::read(path, content).is_some()
}

/// What `present` and `asked` each changed since `base`, together: the front matter by key, the rest by line. Nothing if
/// both changed the same key or the same lines in different ways.
pub(in super::super) fn three_way(
    path: &SitePath,
    base: &[u8],
    present: &[u8],
    asked: &[u8],
) -> Option<Vec<u8>> {
    let page = |content| Page::read(path, content);
    let (base, present, asked) = (page(base)?, page(present)?, page(asked)?);
    if base.head() != present.head() || base.head() != asked.head() {
        return None;
    }
    let says_the_same = base.meaning == asked.meaning;
    if says_the_same && base.file.yaml() != asked.file.yaml() {
        return None;
    }
    let body = merge::three_way(
        base.body().as_bytes(),
        present.body().as_bytes(),
        asked.body().as_bytes(),
    );
    let body = String::from_utf8(body.ok()?).ok()?;
    let expected = merged(&base.meaning, &present.meaning, &asked.meaning)?;
    let mut edits = Edits::default();
    edits.collect("", &present.meaning, &expected)?;
    let text = [&present.file.text[..present.yaml.1], &body].concat();
    let edit = Edit {
        set: &edits.set,
        unset: &edits.unset,
    };
    let result = edit.apply(path, text.as_bytes()).ok()?;
    (page(&result)?.meaning == expected).then_some(result)
}

/// The keys that both sides agree on or only one changed; nothing if they do not go together.
fn merged(base: &Meaning, present: &Meaning, asked: &Meaning) -> Option<Meaning> {
    let keys: BTreeSet<&String> = [base, present, asked]
        .into_iter()
        .flat_map(BTreeMap::keys)
        .collect();
    let nothing = Meaning::new();
    // What is not there yet has no keys.
    let within = |value: Option<&'_ Value>| match value {
        None => Some(nothing.clone()),
        Some(Value::Mapping(members)) => Some(members.clone()),
        Some(_) => None,
    };
    let mut together = Meaning::new();
    for key in keys {
        let (before, now, wanted) = (base.get(key), present.get(key), asked.get(key));
        let value = if now == before {
            wanted.cloned()
        } else if before == wanted || now == wanted {
            now.cloned()
        } else if let Some(Value::Mapping(now)) = now {
            Some(Value::Mapping(merged(
                &within(before)?,
                now,
                &within(wanted)?,
            )?))
        } else {
            return None;
        };
        together.extend(value.map(|value| (key.clone(), value)));
    }
    Some(together)
}

/// The edits that make one front matter say what another does.
#[derive(Default)]
struct Edits {
    set: Map<String, serde_json::Value>,
    unset: Vec<String>,
}

impl Edits {
    fn collect(&mut self, prefix: &str, now: &Meaning, wanted: &Meaning) -> Option<()> {
        let keys: BTreeSet<&String> = now.keys().chain(wanted.keys()).collect();
        for key in keys {
            let name = format!("{prefix}{key}");
            match (now.get(key), wanted.get(key)) {
                (now, wanted) if now == wanted => {}
                (Some(Value::Mapping(now)), Some(Value::Mapping(wanted))) => {
                    self.collect(&format!("{name}."), now, wanted)?;
                }
                (now, Some(wanted)) => {
                    let value = match (now, wanted) {
                        // Where a date stands it stays one; elsewhere it would become a text.
                        (Some(Value::String(now)), Value::String(wanted))
                            if plain::is_timestamp(now) =>
                        {
                            wanted.as_str().into()
                        }
                        _ => json_of(wanted)?,
                    };
                    self.set.insert(name, value);
                }
                (_, None) => self.unset.push(name),
            }
        }
        Some(())
    }
}

/// A value as an edit can set it so that every reader takes it for what it was.
fn json_of(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(bool) => (*bool).into(),
        Value::Number(number) => number.clone().into(),
        Value::String(text) if plain::is_timestamp(text) => return None,
        Value::String(text) => text.as_str().into(),
        Value::Sequence(items) => items
            .iter()
            .map(json_of)
            .collect::<Option<Vec<_>>>()?
            .into(),
        Value::Mapping(members) => members
            .iter()
            .map(|(key, value)| Some((key.clone(), json_of(value)?)))
            .collect::<Option<Map<_, _>>>()?
            .into(),
        Value::Unresolved(_) | Value::Alias(_) | Value::Tagged(..) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(base: &str, present: &str, asked: &str) -> Option<String> {
        let page = |yaml: &str| format!("---\n{yaml}\n---\nBody\n").into_bytes();
        let path = "src/a.md".parse().expect("a path");
        let merged = three_way(&path, &page(base), &page(present), &page(asked))?;
        let text = String::from_utf8(merged).expect("text");
        let yaml = text.strip_prefix("---\n")?.strip_suffix("\n---\nBody\n")?;
        Some(yaml.to_owned())
    }

    #[test]
    fn neighbouring_keys_come_together_and_the_same_key_does_not() {
        let cases = [
            ("a: 1\nb: 1", "a: 2\nb: 1", "a: 1\nb: 2", Some("a: 2\nb: 2")),
            ("a: 1", "a: 1\nb: 1", "c: 1", Some("b: 1\nc: 1")),
            ("a: 1", "a: 2", "a: 3", None),
            ("a: 1", "a: 2 # why", "a: 2\nb: x", Some("a: 2 # why\nb: x")),
            (
                "a: 1",
                "a: 1\ns: {x: 1, y: 2}",
                "a: 1\ns: {z: 3}",
                Some("a: 1\ns: {x: 1, y: 2, z: 3}"),
            ),
            (
                "s: {x: 1}",
                "s: {x: 1, y: 2}",
                "a: 1",
                Some("s: {y: 2}\na: 1"),
            ),
            ("s: {x: 1}", "s: 5", "a: 1", None),
            (
                "d: 2026-10-01\na: 1",
                "d: 2026-10-01\na: 2",
                "d: 2026-11-01\na: 1",
                Some("d: 2026-11-01\na: 2"),
            ),
            // As a text it would not be a date any more.
            ("a: 1", "a: 2", "a: 1\nd: 2026-11-01", None),
            ("a: 1", "a: 2", "a: 1\nd: yes", None),
            ("a: 1", "a: 2", "a: 1 # comments alone", None),
        ];
        for (base, present, asked, expected) in cases {
            assert_eq!(
                together(base, present, asked).as_deref(),
                expected,
                "{base} | {present} | {asked}"
            );
        }
    }

    #[test]
    fn the_body_comes_together_by_line() {
        let path = "a.mdx".parse().expect("a path");
        let merged = three_way(
            &path,
            b"---\na: 1\nb: 1\n---\nOne\n\nTwo\n",
            b"---\na: 2\nb: 1\n---\nOne\n\nTwo!\n",
            b"---\na: 1\nb: 2\n---\nOne!\n\nTwo\n",
        );
        assert_eq!(
            merged.as_deref(),
            Some(&b"---\na: 2\nb: 2\n---\nOne!\n\nTwo!\n"[..])
        );
    }
}
