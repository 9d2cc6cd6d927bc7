//! What the front matter says and where in the text it says it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::plain;

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) place: Place,
    /// `&name` in front of it.
    pub(super) anchor: Option<String>,
    /// `!tag` in front of it.
    pub(super) tag: Option<String>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Scalar {
        style: Style,
        text: String,
    },
    Sequence {
        /// Columns between the key and the dash; 0 for `[…]` and for the style that has none.
        indent: usize,
        items: Vec<Node>,
    },
    Mapping {
        entries: Vec<Entry>,
    },
    Alias(String),
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Single,
    Double,
    /// `|`
    Literal,
    /// `>`; its text is kept as it is written.
    Folded,
}

/// Where a value is. All ranges are in bytes of the front matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is written: null.
    Empty,
    /// From its first byte (or that of its anchor and tag) to after its last.
    Inline(Range<usize>),
    /// `|` or `>` (with anchor and tag), and the lines below.
    BlockScalar {
        header: Range<usize>,
        body: Range<usize>,
    },
    /// A mapping or sequence in lines below the key, and its anchor and tag beside the key.
    Lines {
        properties: Option<Range<usize>>,
        lines: Range<usize>,
    },
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// In a block mapping the start of the line, in a flow mapping that of the key.
    pub(super) start: usize,
    /// Columns in front of the key.
    pub(super) indent: usize,
    /// After the colon; `None` for a key without one in a flow mapping.
    pub(super) colon_end: Option<usize>,
    pub(super) value: Node,
    /// After the value; in a block mapping after the line in which it ends.
    pub(super) end: usize,
}

impl Node {
    /// A value without anchor and tag.
    pub(super) fn new(kind: Kind, place: Place) -> Self {
        Self {
            kind,
            place,
            anchor: None,
            tag: None,
        }
    }

    /// Nothing.
    pub(super) fn null() -> Self {
        Self::new(Kind::Null, Place::Empty)
    }

    /// What it says.
    pub(super) fn value(&self) -> Value {
        let value = match &self.kind {
            Kind::Null => Value::Null,
            Kind::Alias(name) => Value::Alias(name.clone()),
            Kind::Scalar {
                style: Style::Plain,
                text,
            } => plain::resolve(text),
            Kind::Scalar {
                style: Style::Folded,
                text,
            } => Value::Unresolved(text.clone()),
            Kind::Scalar {
                style: Style::Literal,
                text,
            } if text.trim_matches('\n').is_empty() => Value::Unresolved(text.clone()),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::Sequence { items, .. } => {
                Value::Sequence(items.iter().map(Self::value).collect())
            }
            Kind::Mapping { entries } => Value::Mapping(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.value()))
                    .collect(),
            ),
        };
        match &self.tag {
            Some(tag) => Value::Tagged(tag.clone(), Box::new(value)),
            None => value,
        }
    }
}

/// What a value says, without regard to how it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    String(String),
    /// Readers of YAML do not agree what it is (`yes`, `0777`, `12:30`, an empty `|`), or nobody needs to
    /// know (folded text).
    Unresolved(String),
    Sequence(Vec<Value>),
    Mapping(BTreeMap<String, Value>),
    Alias(String),
    Tagged(String, Box<Value>),
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(bool) => Self::Bool(*bool),
            serde_json::Value::Number(number) => Self::Number(number.clone()),
            serde_json::Value::String(text) => Self::String(text.clone()),
            serde_json::Value::Array(items) => {
                Self::Sequence(items.iter().map(Self::from).collect())
            }
            serde_json::Value::Object(members) => Self::Mapping(
                members
                    .iter()
                    .map(|(key, value)| (key.clone(), Self::from(value)))
                    .collect(),
            ),
        }
    }
}

/// Levels of mappings and sequences in each other, in a file or in a value to set.
pub(super) const DEPTH_MAX: usize = 40;

impl Value {
    /// Whether it is nested no deeper than [`DEPTH_MAX`].
    pub(super) fn is_shallow(&self) -> bool {
        fn within(value: &Value, levels: usize) -> bool {
            match value {
                Value::Sequence(items) => {
                    levels > 0 && items.iter().all(|item| within(item, levels - 1))
                }
                Value::Mapping(members) => {
                    levels > 0 && members.values().all(|member| within(member, levels - 1))
                }
                _ => true,
            }
        }
        within(self, DEPTH_MAX - 8)
    }
}
