//! What `set` and `unset` do to the text of a front matter: which bytes go, and which come.
//!
//! Every function here reads nodes and returns edits; nothing is changed in place. An edit replaces a range of bytes,
//! and the edits of one key never overlap.

use std::ops::Range;

use serde_json::Value;

use super::fences::after_line;
use super::node::{Entry, Kind, Node, Place, Style};
use super::plain;
use super::writer::{self, Manners, Rendering, Writer};

/// Bytes of the front matter that are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}

impl Edit {
    fn replace(range: Range<usize>, text: impl Into<String>) -> Self {
        Self {
            range,
            text: text.into(),
        }
    }

    fn insert(at: usize, text: impl Into<String>) -> Self {
        Self::replace(at..at, text)
    }
}

/// `text` with edits, which are in order and do not overlap.
pub(super) fn apply(text: &str, edits: &[Edit]) -> String {
    let mut changed = String::with_capacity(text.len());
    let mut copied = 0;
    for edit in edits {
        changed.push_str(&text[copied..edit.range.start]);
        changed.push_str(&edit.text);
        copied = edit.range.end;
    }
    changed.push_str(&text[copied..]);
    changed
}

/// A front matter with the manners of its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'f> {
    pub(super) text: &'f str,
    pub(super) entries: &'f [Entry],
    pub(super) writer: Writer<'f>,
}

/// Where a dotted key leads.
#[derive(Debug)]
pub(super) enum Found<'f> {
    /// It is there: its entry, and the entries in which that is from the top down.
    Entry(&'f Entry, Vec<&'f Entry>),
    /// It is not; these are the entries in which it would be, and the rest of the key.
    Missing(Vec<&'f Entry>, Vec<String>),
    /// This part of it has a value that is not a mapping.
    NoMapping(&'f Entry),
    /// The key has an empty part.
    EmptyPart,
}

/// Follows a key: an existing key that contains dots wins over one that is reached through them, the longest first.
pub(super) fn find<'f>(entries: &'f [Entry], key: &str) -> Found<'f> {
    let mut parents = Vec::new();
    let mut entries = entries;
    let mut rest = key;
    loop {
        let named = |name: &str| entries.iter().find(|entry| entry.key == name);
        if let Some(entry) = named(rest) {
            return Found::Entry(entry, parents);
        }
        let mut dots = rest.rmatch_indices('.').map(|(dot, _)| dot);
        let Some((entry, dot)) = dots.find_map(|dot| Some((named(&rest[..dot])?, dot))) else {
            let parts: Vec<String> = rest.split('.').map(str::to_owned).collect();
            if parts.iter().any(String::is_empty) {
                return Found::EmptyPart;
            }
            return Found::Missing(parents, parts);
        };
        rest = &rest[dot + 1..];
        entries = match &entry.value.kind {
            Kind::Mapping { entries } => entries,
            Kind::Null => &[],
            _ => return Found::NoMapping(entry),
        };
        parents.push(entry);
    }
}

/// `value` below further keys.
fn nested(keys: &[String], value: &Value) -> Value {
    keys.iter().rev().fold(value.clone(), |inner, key| {
        Value::Object([(key.clone(), inner)].into_iter().collect())
    })
}

/// Edits that give an entry another value. `parents` are the entries in which it is, from the top down.
pub(super) fn set(
    document: Document<'_>,
    entry: &Entry,
    parents: &[&Entry],
    value: &Value,
) -> Result<Vec<Edit>, String> {
    if in_flow(parents) {
        let Some(colon_end) = entry.colon_end else {
            return Err("a key without a colon between braces cannot get a value".to_owned());
        };
        let manners = Manners {
            flow: true,
            ..manners_of(&entry.value)
        };
        let text = match document.writer.render(value, 0, manners) {
            Rendering::Inline(text) => text,
            Rendering::Literal(..) | Rendering::Lines(_) => writer::flow(value),
        };
        return Ok(vec![match &entry.value.place {
            Place::Inline(range) => Edit::replace(range.clone(), text),
            _ => Edit::insert(colon_end, format!(" {text}")),
        }]);
    }
    let colon_end = entry.colon_end.ok_or("the key has no colon")?;
    Ok(set_in_lines(document, entry, colon_end, value))
}

fn set_in_lines(
    document: Document<'_>,
    entry: &Entry,
    colon_end: usize,
    value: &Value,
) -> Vec<Edit> {
    let key_line_end = after_line(document.text, colon_end);
    let place = &entry.value.place;
    let begins_below = matches!(place, Place::Inline(range) if range.start >= key_line_end);
    let mut manners = manners_of(&entry.value);
    manners.flow |= begins_below;
    // The line after which new lines go.
    let last_line_end = match place {
        Place::Inline(range) => after_line(document.text, range.end),
        _ => key_line_end,
    };
    let old_lines = match place {
        Place::BlockScalar { body, .. } => body.clone(),
        Place::Lines { lines, .. } => key_line_end..lines.end,
        Place::Empty | Place::Inline(_) => last_line_end..last_line_end,
    };
    manners.no_block_scalar |= begins_below
        || is_comment_that_deep(
            document.text,
            old_lines.end,
            entry.indent + document.writer.step,
        );
    let rendering = document.writer.render(value, entry.indent, manners);
    let (beside, below) = match rendering {
        Rendering::Inline(text) => (Some(text), String::new()),
        Rendering::Literal(header, body) => (Some(header), body),
        Rendering::Lines(lines) => (None, lines),
    };
    let first = match (place, beside) {
        (Place::Inline(range) | Place::BlockScalar { header: range, .. }, Some(text)) => {
            Edit::replace(range.clone(), text)
        }
        (Place::Inline(range) | Place::BlockScalar { header: range, .. }, None) => {
            Edit::replace(colon_end..range.end, "")
        }
        (Place::Empty, text) => Edit::insert(
            colon_end,
            text.map_or(String::new(), |text| format!(" {text}")),
        ),
        (Place::Lines { properties, .. }, text) => {
            let old = properties
                .as_ref()
                .map_or(colon_end..colon_end, |range| colon_end..range.end);
            Edit::replace(old, text.map_or(String::new(), |text| format!(" {text}")))
        }
    };
    vec![first, Edit::replace(old_lines, below)]
}

/// Whether the next line that is not empty is a comment that a block scalar of this indentation would swallow.
fn is_comment_that_deep(text: &str, at: usize, indent: usize) -> bool {
    let rest = text[at..].lines().find(|line| !line.trim().is_empty());
    rest.is_some_and(|line| {
        let content = line.trim_start_matches(' ');
        content.starts_with('#') && line.len() - content.len() >= indent
    })
}

fn manners_of(node: &Node) -> Manners {
    let is_inline = matches!(node.place, Place::Inline(_));
    match &node.kind {
        Kind::Scalar { style, text } => Manners {
            style: Some(*style),
            was_plain_date: *style == Style::Plain && plain::is_timestamp(text),
            ..Manners::default()
        },
        // `[]` and `{}` say nothing about how a fuller one would be written.
        Kind::Sequence { items, .. } if is_inline => Manners {
            flow: !items.is_empty(),
            ..Manners::default()
        },
        Kind::Mapping { entries } if is_inline => Manners {
            flow: !entries.is_empty(),
            ..Manners::default()
        },
        Kind::Sequence { indent, .. } => Manners {
            dash_indent: Some(*indent),
            ..Manners::default()
        },
        Kind::Mapping { .. } | Kind::Null | Kind::Alias(_) => Manners::default(),
    }
}

/// Whether the innermost of these entries has its value between braces.
fn in_flow(parents: &[&Entry]) -> bool {
    parents.last().is_some_and(|parent| {
        matches!(
            (&parent.value.kind, &parent.value.place),
            (Kind::Mapping { .. }, Place::Inline(_))
        )
    })
}

/// Edits that add a key. `parents` are the entries in which it will be, from the top down.
pub(super) fn add(
    document: Document<'_>,
    parents: &[&Entry],
    keys: &[String],
    value: &Value,
) -> Result<Vec<Edit>, String> {
    let (first, rest) = keys.split_first().ok_or("the key is empty")?;
    let value = nested(rest, value);
    let Some((parent, grandparents)) = parents.split_last() else {
        let indent = document.entries.first().map_or(0, |entry| entry.indent);
        let end = document.text.len();
        return Ok(vec![Edit::insert(
            end,
            document.writer.entry(first, &value, indent),
        )]);
    };
    let members = match &parent.value.kind {
        Kind::Mapping { entries } => entries.as_slice(),
        _ => &[],
    };
    let Some(last) = members.last() else {
        // Null or `{}`.
        return set(
            document,
            parent,
            grandparents,
            &nested(std::slice::from_ref(first), &value),
        );
    };
    if in_flow(parents) {
        return Ok(vec![Edit::insert(
            last.end,
            format!(", {}", writer::flow_entry(first, &value)),
        )]);
    }
    Ok(vec![Edit::insert(
        last.end,
        document.writer.entry(first, &value, last.indent),
    )])
}

/// Edits that remove an entry with its value.
pub(super) fn unset(
    document: Document<'_>,
    entry: &Entry,
    parents: &[&Entry],
) -> Result<Vec<Edit>, String> {
    let Some((parent, grandparents)) = parents.split_last() else {
        return Ok(vec![Edit::replace(lines_of(document.text, entry), "")]);
    };
    let Kind::Mapping { entries } = &parent.value.kind else {
        return Err("the key is not in a mapping".to_owned());
    };
    if entries.len() == 1 {
        // A key without lines below it would be null, which is not an empty mapping.
        return set(
            document,
            parent,
            grandparents,
            &Value::Object(serde_json::Map::new()),
        );
    }
    if !in_flow(parents) {
        return Ok(vec![Edit::replace(lines_of(document.text, entry), "")]);
    }
    let index = entries
        .iter()
        .position(|other| other.start == entry.start)
        .ok_or("the key is not in its mapping")?;
    let range = match (
        entries.get(index + 1),
        index.checked_sub(1).and_then(|before| entries.get(before)),
    ) {
        (Some(next), _) => entry.start..next.start,
        (None, Some(before)) => before.end..entry.end,
        (None, None) => entry.start..entry.end,
    };
    if document.text[range.clone()].contains(['#', '\n']) {
        return Err(
            "a key between braces that run over several lines cannot be removed".to_owned(),
        );
    }
    Ok(vec![Edit::replace(range, "")])
}

/// The lines of an entry: from its key to the end of its value, and the comments below that are indented more than the
/// key. What is indented less belongs to what follows.
fn lines_of(text: &str, entry: &Entry) -> Range<usize> {
    let mut end = entry.end;
    let mut line = end;
    while line < text.len() {
        let next = after_line(text, line);
        let content = text[line..next].trim_start_matches(' ');
        let indent = next - line - content.len();
        if content.starts_with('#') && indent > entry.indent {
            end = next;
        } else if !content.trim().is_empty() {
            break;
        }
        line = next;
    }
    entry.start..end
}
