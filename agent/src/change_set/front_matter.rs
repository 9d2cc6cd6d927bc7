//! `frontmatter`: setting and removing keys of a Markdown file's YAML front matter, every other byte untouched.
//!
//! ```text
//! file ──▶ fences ──▶ reader ──▶ nodes with places ──▶ edits of bytes ──▶ reader again ──▶ is it what was asked?
//! ```
//!
//! - **Spans, not a printer.** The front matter is never parsed and written back. A [reader](self::reader) says where
//!   each key and value is, and [edits](self::edits) replace exactly those bytes, so comments, order, quotes,
//!   indentation, anchors and line endings of everything else stay. The reader is our own and knows the part of YAML
//!   that front matter is written in; what it does not know it refuses. `yaml-edit` was considered: it is lossless too,
//!   but far larger than the task and too young to trust without all of the checks below.
//! - **Fail closed.** After every key the result is read again, and must say what it said before plus what was asked,
//!   nothing else. If not, the change is `frontmatter_invalid` and nothing happens.
//! - **Every reader.** What is written means the same in YAML 1.2 and 1.1: `yes`, `12:30`, `1e3` and dates get quotes.
//!   One exception: where an unquoted date is replaced by a date, it stays unquoted, because sites declare such a field
//!   as a date and would break on a text.
//! - **Keys.** `seo.title` reaches into a mapping. A key that itself contains the dot wins. What is missing on the way
//!   is made. Removing the last key of a mapping leaves `{}`.
//!
//! TOML (`+++`), JSON and the code of `.astro` files are not YAML and are refused.

use std::collections::BTreeMap;

use contract::{ErrorCode, SitePath};
use serde_json::Map;

use super::fault::{Fault, quote};
use super::text::{LineEndings, as_text};

mod edits;
mod node;
mod plain;
#[cfg(test)]
mod properties;
mod reader;
mod writer;

use edits::{Document, Found};
use node::{Entry, Kind, Node, Place, Value};
use writer::Writer;

/// Bytes of a front matter: far more than any page has, and a bound on what each key costs.
const FRONT_MATTER_MAX_BYTES: usize = 256 * 1024;

/// Bytes of a key: YAML takes no longer ones on one line.
const KEY_MAX_BYTES: usize = 512;

/// Endings of the files whose front matter Astro reads as YAML.
const MARKDOWN_ENDINGS: [&str; 8] = [
    "md", "mdx", "markdown", "mdoc", "mdown", "mdwn", "mkd", "mkdn",
];

/// What a `frontmatter` change asks for: first all of `set`, then all of `unset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit<'c> {
    pub(super) set: &'c Map<String, serde_json::Value>,
    pub(super) unset: &'c [String],
}

impl Edit<'_> {
    /// `content` with these keys set and removed.
    pub(super) fn apply(&self, path: &SitePath, content: &[u8]) -> Result<Vec<u8>, Vec<Fault>> {
        let text = as_text(path, ".path", content).map_err(|fault| vec![fault])?;
        let file = File::locate(path, text).map_err(|fault| vec![fault])?;
        let mut yaml = file.yaml().to_owned();
        let mut meaning = file.meaning(path, &yaml).map_err(|fault| vec![fault])?;
        let mut faults = Vec::new();
        for (key, value) in self.set {
            let asked = Asked::Set(value);
            match file.with_key(&yaml, &mut meaning, key, &asked) {
                Ok(changed) => yaml = changed,
                Err(why) => faults.push(invalid(
                    path,
                    format!(".set[{}]", quote(key)),
                    format!("{}: {why}.", quote(key)),
                )),
            }
        }
        for (index, key) in self.unset.iter().enumerate() {
            match file.with_key(&yaml, &mut meaning, key, &Asked::Unset) {
                Ok(changed) => yaml = changed,
                Err(why) => faults.push(invalid(
                    path,
                    format!(".unset[{index}]"),
                    format!("{}: {why}.", quote(key)),
                )),
            }
        }
        if faults.is_empty() {
            Ok(file.with_yaml(&yaml).into_bytes())
        } else {
            Err(faults)
        }
    }

    /// The first key that `present` and `base` do not agree on, quoted, unless `present` already says what is asked.
    pub(super) fn collision(
        &self,
        path: &SitePath,
        base: &[u8],
        present: &[u8],
    ) -> Result<Option<String>, Vec<Fault>> {
        let entries = |content| -> Result<Vec<Entry>, Fault> {
            let text = as_text(path, ".path", content)?;
            let file = File::locate(path, text)?;
            reader::read(file.yaml()).map_err(|why| file.unreadable(path, &why))
        };
        let now = entries(present).map_err(|fault| vec![fault])?;
        // What cannot be read cannot be known to be the same.
        let before = entries(base).ok();
        let differs = |key: &str, asked: Option<Value>| {
            let now = value_of(&now, key);
            before
                .as_ref()
                .is_none_or(|before| value_of(before, key) != now)
                && now != asked
        };
        let set = self
            .set
            .iter()
            .find(|(key, value)| differs(key, Some(Value::from(*value))))
            .map(|(key, _)| key);
        Ok(set
            .or_else(|| self.unset.iter().find(|key| differs(key, None)))
            .map(|key| quote(key)))
    }

    /// What applying it costs, in bytes that are read.
    pub(super) fn cost(&self, content: &[u8]) -> usize {
        let keys = self.set.len() + self.unset.len();
        content.len() + content.len().min(FRONT_MATTER_MAX_BYTES) * keys * 2
    }
}

fn value_of(entries: &[Entry], key: &str) -> Option<Value> {
    match edits::find(entries, key) {
        Found::Entry(entry, _) => Some(entry.value.value()),
        Found::NoMapping(entry) => Some(entry.value.value()),
        Found::Missing(..) | Found::EmptyPart => None,
    }
}

/// What is asked of one key.
#[derive(Debug)]
enum Asked<'c> {
    Set(&'c serde_json::Value),
    Unset,
}

/// A file with the place of its front matter.
#[derive(Debug, Clone, Copy)]
struct File<'f> {
    text: &'f str,
    /// The lines between the fences; `None` if the file has no front matter.
    yaml: Option<(usize, usize)>,
    line_ending: &'f str,
}

impl<'f> File<'f> {
    fn locate(path: &SitePath, text: &'f str) -> Result<Self, Fault> {
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

    fn yaml(&self) -> &'f str {
        self.yaml.map_or("", |(start, end)| &self.text[start..end])
    }

    /// The file with another front matter; one that had none and gets none stays as it is.
    fn with_yaml(&self, yaml: &str) -> String {
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

    fn meaning(&self, path: &SitePath, yaml: &str) -> Result<BTreeMap<String, Value>, Fault> {
        let entries = reader::read(yaml).map_err(|why| self.unreadable(path, &why))?;
        Ok(meaning_of(&entries))
    }

    fn unreadable(&self, path: &SitePath, why: &reader::Unreadable) -> Fault {
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

    /// `yaml` with one key set or removed, and `meaning` brought along. Fails without changing anything.
    fn with_key(
        &self,
        yaml: &str,
        meaning: &mut BTreeMap<String, Value>,
        key: &str,
        asked: &Asked<'_>,
    ) -> Result<String, String> {
        if key.len() > KEY_MAX_BYTES {
            return Err(format!("a key has at most {KEY_MAX_BYTES} bytes"));
        }
        let entries = reader::read(yaml).map_err(|why| why.what)?;
        let (step, dash_indent) = indentation_of(&entries);
        let writer = Writer {
            line_ending: self.line_ending,
            step,
            dash_indent,
        };
        let document = Document {
            text: yaml,
            entries: &entries,
            writer,
        };
        let mut expected = meaning.clone();
        let found = edits::find(&entries, key);
        if let Found::Entry(_, parents) | Found::Missing(parents, _) = &found
            && let Some(anchor) = shared_anchor(&entries, parents)
        {
            return Err(format!(
                "it is part of &{anchor}, which is used in another place too"
            ));
        }
        let edits = match (found, asked) {
            (Found::EmptyPart, _) => return Err("a part of the key is empty".to_owned()),
            (Found::NoMapping(entry), Asked::Set(_)) => {
                return Err(format!(
                    "{} is not a mapping, so nothing can be set in it",
                    quote(&entry.key)
                ));
            }
            (Found::Missing(..) | Found::NoMapping(_), Asked::Unset) => return Ok(yaml.to_owned()),
            (Found::Entry(entry, parents), Asked::Set(value)) => {
                let value_asked = shallow(value)?;
                if entry.value.value() == value_asked {
                    return Ok(yaml.to_owned());
                }
                put(
                    &mut expected,
                    parents.iter().map(|parent| parent.key.as_str()),
                    &entry.key,
                    Some(value_asked),
                );
                edits::set(document, entry, &parents, value)?
            }
            (Found::Missing(parents, keys), Asked::Set(value)) => {
                let value_asked = shallow(value)?;
                let (last, on_the_way) = keys.split_last().ok_or("the key is empty")?;
                let path = parents
                    .iter()
                    .map(|parent| parent.key.as_str())
                    .chain(on_the_way.iter().map(String::as_str));
                put(&mut expected, path, last, Some(value_asked));
                edits::add(document, &parents, &keys, value)?
            }
            (Found::Entry(entry, parents), Asked::Unset) => {
                put(
                    &mut expected,
                    parents.iter().map(|parent| parent.key.as_str()),
                    &entry.key,
                    None,
                );
                edits::unset(document, entry, &parents)?
            }
        };
        let changed = edits::apply(yaml, &edits);
        let again = reader::read(&changed)
            .map_err(|why| format!("the result could not be read: {}", why.what))?;
        if meaning_of(&again) != expected {
            return Err("the result would not say exactly what was asked".to_owned());
        }
        *meaning = expected;
        Ok(changed)
    }
}

fn meaning_of(entries: &[Entry]) -> BTreeMap<String, Value> {
    entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.value()))
        .collect()
}

fn shallow(value: &serde_json::Value) -> Result<Value, String> {
    let value = Value::from(value);
    if value.is_shallow() {
        Ok(value)
    } else {
        Err("the value is nested too deeply".to_owned())
    }
}

/// Puts a value where it is expected to be afterwards.
fn put<'k>(
    meaning: &mut BTreeMap<String, Value>,
    path: impl Iterator<Item = &'k str>,
    key: &str,
    value: Option<Value>,
) {
    let mut mapping = meaning;
    for part in path {
        let inner = mapping.entry(part.to_owned()).or_insert(Value::Null);
        if !matches!(inner, Value::Mapping(_)) {
            *inner = Value::Mapping(BTreeMap::new());
        }
        let Value::Mapping(inner) = inner else { return };
        mapping = inner;
    }
    match value {
        Some(value) => drop(mapping.insert(key.to_owned(), value)),
        None => drop(mapping.remove(key)),
    }
}

/// The columns by which the file indents mappings and sequences: those of the first of each, or two.
fn indentation_of(entries: &[Entry]) -> (usize, usize) {
    let steps = entries
        .iter()
        .filter_map(|entry| match (&entry.value.kind, &entry.value.place) {
            (Kind::Mapping { entries }, Place::Lines { .. }) => {
                Some(entries.first()?.indent - entry.indent)
            }
            _ => None,
        });
    let step = steps.into_iter().next().unwrap_or(2);
    let dashes = entries
        .iter()
        .find_map(|entry| match (&entry.value.kind, &entry.value.place) {
            (Kind::Sequence { indent, .. }, Place::Lines { .. }) => Some(*indent),
            _ => None,
        });
    (step, dashes.unwrap_or(step))
}

/// The anchor of one of these entries to which an alias leads: changing what is in it would change two places.
fn shared_anchor<'e>(entries: &[Entry], parents: &[&'e Entry]) -> Option<&'e str> {
    let anchors = parents
        .iter()
        .filter_map(|parent| parent.value.anchor.as_deref());
    anchors
        .into_iter()
        .find(|anchor| entries.iter().any(|entry| has_alias(&entry.value, anchor)))
}

fn has_alias(node: &Node, anchor: &str) -> bool {
    match &node.kind {
        Kind::Alias(name) => name == anchor,
        Kind::Sequence { items, .. } => items.iter().any(|item| has_alias(item, anchor)),
        Kind::Mapping { entries } => entries.iter().any(|entry| has_alias(&entry.value, anchor)),
        Kind::Null | Kind::Scalar { .. } => false,
    }
}

fn invalid(path: &SitePath, at: impl Into<String>, what: impl std::fmt::Display) -> Fault {
    Fault::of(path, at, ErrorCode::FrontmatterInvalid, what)
}

/// The start of the line after the one at `at`: after its LF, or the end of the text.
fn after_line(text: &str, at: usize) -> usize {
    text.as_bytes()[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(text.len(), |length| at + length + 1)
}
