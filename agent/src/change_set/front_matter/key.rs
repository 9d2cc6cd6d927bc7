//! One key set or removed, and the proof that nothing else became of it.

use std::collections::BTreeMap;

use contract::SitePath;
use contract::limits::KEY_MAX_BYTES;

use super::super::fault::{Fault, quote};
use super::edits::{self, Document, Found};
use super::fences::File;
use super::node::{Entry, Kind, Node, Place, Value};
use super::reader;
use super::writer::Writer;

/// Dots of a key: following it takes time for each of them.
const KEY_MAX_DOTS: usize = 16;

/// What is asked of one key.
#[derive(Debug)]
pub(super) enum Asked<'c> {
    Set(&'c serde_json::Value),
    Unset,
}

impl File<'_> {
    /// What the front matter says.
    pub(super) fn meaning(
        &self,
        path: &SitePath,
        yaml: &str,
    ) -> Result<BTreeMap<String, Value>, Fault> {
        let entries = reader::read(yaml).map_err(|why| self.unreadable(path, &why))?;
        Ok(meaning_of(&entries))
    }

    /// `yaml` with one key set or removed, and `meaning` brought along. Fails without changing anything.
    pub(super) fn with_key(
        &self,
        yaml: &str,
        meaning: &mut BTreeMap<String, Value>,
        key: &str,
        asked: &Asked<'_>,
    ) -> Result<String, String> {
        if key.len() > KEY_MAX_BYTES {
            return Err(format!("a key has at most {KEY_MAX_BYTES} bytes"));
        }
        if key.matches('.').count() > KEY_MAX_DOTS {
            return Err(format!("a key has at most {KEY_MAX_DOTS} dots"));
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

/// What these keys say.
pub(super) fn meaning_of(entries: &[Entry]) -> BTreeMap<String, Value> {
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
