//! Reads JSON field by field and finds everything that is wrong at once.
//!
//! serde stops at the first thing it does not like and knows no path to it; a producer would mend a message one
//! mistake at a time. Here every value is a [`Node`] that knows its path and the [`Report`] of the message: a reading
//! method returns `None` after it has said why. A value is therefore whole exactly if the report is empty, and a
//! function that reads an object reads *all* of its fields before it looks at any of them with `?`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::limits::PROBLEMS_MAX;
use crate::problem::{Problem, Problems};

mod strict;

pub(crate) use strict::from_json;

/// Everything that is wrong with one message or record, at most [`PROBLEMS_MAX`] of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    listed: RefCell<Vec<Problem>>,
    left_out: Cell<usize>,
}

impl Report {
    /// Adds a problem. The path is written only here: a message without problems costs no text.
    pub(crate) fn add(&self, at: &Path<'_>, message: impl Into<String>) {
        let mut listed = self.listed.borrow_mut();
        if listed.len() == PROBLEMS_MAX {
            self.left_out.set(self.left_out.get() + 1);
        } else {
            listed.push(Problem {
                path: at.to_string(),
                message: message.into(),
            });
        }
    }

    /// What was read, or all problems.
    pub(crate) fn judge<T>(self, read: Option<T>) -> Result<T, Problems> {
        match self.finish() {
            Some(problems) => Err(problems),
            None => Ok(read.expect("what cannot be read is reported")),
        }
    }

    /// All problems; `None` if there are none. Where some are left out, the last one says how many.
    pub(crate) fn finish(self) -> Option<Problems> {
        let mut listed = self.listed.into_inner();
        let left_out = self.left_out.get();
        if left_out > 0
            && let Some(last) = listed.last_mut()
        {
            let more = left_out + 1;
            *last = Problem {
                path: "$".to_owned(),
                message: format!("has {more} more problems; mend these first"),
            };
        }
        if listed.is_empty() {
            None
        } else {
            Some(Problems(listed))
        }
    }
}

/// Where a value stands in its message: a chain on the stack, written as a JSON path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path<'p> {
    /// The message itself, `$`.
    Root,
    /// A field of an object.
    Field(&'p Path<'p>, &'p str),
    /// An item of a list.
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("$"),
            Self::Field(parent, name) if is_plain(name) => write!(f, "{parent}.{name}"),
            Self::Field(parent, name) => write!(f, "{parent}[{}]", quoted(name)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Whether a field's name can stand in a path as it is.
fn is_plain(name: &str) -> bool {
    (1..=ECHO_MAX_CHARACTERS).contains(&name.len())
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// How much of a sender's text a problem repeats: enough to recognise it, too little to leak a secret or fill a log.
const ECHO_MAX_CHARACTERS: usize = 40;

/// A sender's text for people: in quotes, on one line, cut.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(ECHO_MAX_CHARACTERS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
    }
}

/// `a, b and c`.
pub(crate) fn listed<'w>(words: impl IntoIterator<Item = &'w str>, last: &str) -> String {
    let mut words: Vec<_> = words.into_iter().collect();
    match words.pop() {
        Some(word) if words.is_empty() => word.to_owned(),
        Some(word) => format!("{} {last} {word}", words.join(", ")),
        None => String::new(),
    }
}

/// One value of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'n> {
    value: &'n Value,
    at: Path<'n>,
    report: &'n Report,
}

impl<'n> Node<'n> {
    /// The message itself.
    pub(crate) fn root(value: &'n Value, report: &'n Report) -> Self {
        Self {
            value,
            at: Path::Root,
            report,
        }
    }

    /// The value as it is.
    pub(crate) fn value(&self) -> &'n Value {
        self.value
    }

    /// Says that something is wrong with this value.
    pub(crate) fn wrong<T>(&self, message: impl Into<String>) -> Option<T> {
        self.report.add(&self.at, message);
        None
    }

    /// Says that the value is of another kind than the one that is `expected`.
    fn wrong_kind<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            Value::Null => "null; a field that is not needed is left out",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.wrong(format!("must be {expected}, not {found}"))
    }

    /// Text.
    pub(crate) fn text(&self) -> Option<&'n str> {
        self.value.as_str().or_else(|| self.wrong_kind("text"))
    }

    /// Text that says itself whether it is valid: an id, a path, a time.
    pub(crate) fn parse<T: FromStr<Err: ToString>>(&self) -> Option<T> {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(error) => self.wrong(T::Err::to_string(&error)),
        }
    }

    /// Text that passes `check`, which says what would be valid.
    pub(crate) fn checked(&self, check: impl FnOnce(&str) -> Result<(), String>) -> Option<String> {
        let text = self.text()?;
        match check(text) {
            Ok(()) => Some(text.to_owned()),
            Err(message) => self.wrong(message),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        self.value
            .as_bool()
            .or_else(|| self.wrong_kind("true or false"))
    }

    /// Any number.
    pub(crate) fn number(&self) -> Option<f64> {
        self.value.as_f64().or_else(|| self.wrong_kind("a number"))
    }

    /// A whole number within `range`. `2.0` is one too, as JSON Schema has it: some languages know no other numbers.
    pub(crate) fn whole_number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (range.start(), range.end());
        let expected = if low == high {
            format!("the number {low}")
        } else {
            format!("a whole number from {low} to {high}")
        };
        if !self.value.is_number() {
            return self.wrong_kind(&expected);
        }
        match whole(self.value) {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.wrong(format!("must be {expected}")),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, what: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let known = listed(words.iter().copied(), "and");
        let message = format!("{} is no known {what}; known are {known}", quoted(text));
        match nearest(text, &words) {
            Some(near) => self.wrong(format!("{message}; did you mean {near:?}?")),
            None => self.wrong(message),
        }
    }

    /// The items of a list of at most `max`. A longer list is one problem, and only its first `max` items are read.
    pub(crate) fn items(&self, max: usize) -> Option<impl Iterator<Item = Node<'_>>> {
        let Some(items) = self.value.as_array() else {
            return self.wrong_kind("a list");
        };
        if items.len() > max {
            self.report.add(
                &self.at,
                format!("must have at most {max} items, not {}", items.len()),
            );
        }
        let nodes = items.iter().take(max).enumerate();
        Some(nodes.map(|(index, value)| Node {
            value,
            at: Path::Item(&self.at, index),
            report: self.report,
        }))
    }

    /// The entries of an object whose keys are the sender's own.
    pub(crate) fn entries<'s>(&'s self) -> Option<impl Iterator<Item = (&'n str, Node<'s>)>> {
        let Some(map) = self.value.as_object() else {
            return self.wrong_kind("an object");
        };
        Some(map.iter().map(|(name, value)| {
            (
                name.as_str(),
                Node {
                    value,
                    at: Path::Field(&self.at, name),
                    report: self.report,
                },
            )
        }))
    }

    /// The fields of an object that has no others than the `known` ones.
    pub(crate) fn exact_fields<'s>(&'s self, known: &'static [&'static str]) -> Option<Fields<'s>> {
        let fields = self.fields(known, false)?;
        for name in fields
            .map
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
        {
            let message = match nearest(name, known) {
                Some(near) => format!("is not known here; did you mean {near:?}?"),
                None => format!(
                    "is not known here; known are {}",
                    listed(known.iter().copied(), "and")
                ),
            };
            self.report.add(&Path::Field(&self.at, name), message);
        }
        Some(fields)
    }

    /// The fields of an object that may have others than the `known` ones, and in which `null` means absent.
    pub(crate) fn open_fields<'s>(&'s self, known: &'static [&'static str]) -> Option<Fields<'s>> {
        self.fields(known, true)
    }

    fn fields<'s>(&'s self, known: &'static [&'static str], open: bool) -> Option<Fields<'s>> {
        let Some(map) = self.value.as_object() else {
            return self.wrong_kind("an object");
        };
        Some(Fields {
            node: *self,
            map,
            known,
            open,
        })
    }

    /// What the field `name` of this object chooses: by it the reader knows which other fields there are.
    pub(crate) fn tag<T: Copy>(
        &self,
        name: &'static str,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let Some(map) = self.value.as_object() else {
            return self.wrong_kind("an object");
        };
        let at = Path::Field(&self.at, name);
        let Some(value) = map.get(name) else {
            let words = listed(choices.iter().map(|(word, _)| *word), "or");
            self.report.add(&at, format!("is required: {words}"));
            return None;
        };
        let report = self.report;
        Node { value, at, report }.choice(what, choices)
    }
}

/// The fields of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'n> {
    node: Node<'n>,
    map: &'n Map<String, Value>,
    known: &'static [&'static str],
    open: bool,
}

impl<'n> Fields<'n> {
    /// The object itself, for problems that no field alone has.
    pub(crate) fn node(&self) -> Node<'n> {
        self.node
    }

    /// Whether the object has the field.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map
            .get(name)
            .is_some_and(|value| !(self.open && value.is_null()))
    }

    /// A field that need not be there.
    pub(crate) fn optional<'s>(&'s self, name: &'static str) -> Option<Node<'s>> {
        debug_assert!(
            self.known.contains(&name),
            "{name} is not among the known fields"
        );
        let value = self
            .map
            .get(name)
            .filter(|value| !(self.open && value.is_null()))?;
        Some(Node {
            value,
            at: Path::Field(&self.node.at, name),
            report: self.node.report,
        })
    }

    /// A field that must be there; `what` says what it is.
    pub(crate) fn required<'s>(&'s self, name: &'static str, what: &str) -> Option<Node<'s>> {
        if !self.has(name) {
            // Where unknown fields are refused they get a problem of their own, which says this.
            let unknown = |key: &&String| self.open && !self.known.contains(&key.as_str());
            let message = match self.map.keys().filter(unknown).find(|key| near(key, name)) {
                Some(meant) => format!(
                    "is required: {what}; the unknown field {} is near",
                    quoted(meant)
                ),
                None => format!("is required: {what}"),
            };
            self.report(name, message);
            return None;
        }
        self.optional(name)
    }

    /// Says that something is wrong with a field, whether it is there or not.
    pub(crate) fn report(&self, name: &str, message: impl Into<String>) {
        self.node
            .report
            .add(&Path::Field(&self.node.at, name), message);
    }

    /// The fields that are not known, as they are.
    pub(crate) fn unknown(&self) -> Map<String, Value> {
        let unknown = self
            .map
            .iter()
            .filter(|(name, _)| !self.known.contains(&name.as_str()));
        unknown
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// A number as a whole one, if it is.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        // Above 2^53 neighbouring whole numbers cannot be told apart.
        let exact = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, positive and small"
        )]
        exact.then_some(number as u64)
    })
}

/// The one of the `known` words that somebody who wrote `word` may have meant.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .copied()
        .filter(|known| near(word, known))
        .min_by_key(|known| distance(word, known))
}

/// Whether somebody who wrote `word` may have meant `known`: the case, `_` and `-` apart, one slip, or two in a word
/// of more than five letters.
fn near(word: &str, known: &str) -> bool {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    // A long name is not near to anything, and must not cost time.
    word.len() <= 2 * known.len()
        && distance(&plain(word), &plain(known)) <= if known.len() > 5 { 2 } else { 1 }
}

/// How many letters must be put in, taken out or replaced to make one word the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for column in 1..=to.len() {
            let replaced = diagonal + usize::from(to[column - 1] != letter);
            diagonal = row[column];
            row[column] = replaced.min(diagonal + 1).min(row[column - 1] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_one_that_a_json_path_tool_understands() {
        let (action, changes) = (Path::Field(&Path::Root, "action"), "changes");
        let changes = Path::Field(&action, changes);
        let change = Path::Item(&changes, 3);
        let set = Path::Field(&change, "set");
        assert_eq!(
            Path::Field(&set, "title").to_string(),
            "$.action.changes[3].set.title"
        );
        assert_eq!(
            Path::Field(&set, "seo.title").to_string(),
            r#"$.action.changes[3].set["seo.title"]"#
        );
        assert_eq!(
            Path::Field(&set, "a\n\"").to_string(),
            r#"$.action.changes[3].set["a\n\""]"#
        );
    }

    #[test]
    fn a_long_name_is_cut_between_two_characters() {
        let long = "é".repeat(500);
        let path = Path::Field(&Path::Root, &long).to_string();
        assert_eq!(path, format!("$[\"{}…\"]", "é".repeat(40)));
    }

    #[test]
    fn no_more_problems_are_listed_than_the_limit_and_the_last_one_counts_the_rest() {
        let report = Report::default();
        for index in 0..PROBLEMS_MAX + 5 {
            report.add(&Path::Item(&Path::Root, index), "is wrong");
        }
        let problems = report.finish().expect("problems").0;
        assert_eq!(problems.len(), PROBLEMS_MAX);
        assert_eq!(problems[PROBLEMS_MAX - 2].path, "$[98]");
        assert_eq!(
            problems[PROBLEMS_MAX - 1].message,
            "has 6 more problems; mend these first"
        );
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_different_word_is_not() {
        let known = ["instructionId", "path", "content", "contentUrl"];
        let meant = |word: &str| nearest(word, &known);
        assert_eq!(meant("instruction_id"), Some("instructionId"));
        assert_eq!(meant("instructionID"), Some("instructionId"));
        assert_eq!(meant("pth"), Some("path"));
        assert_eq!(meant("contentURL"), Some("contentUrl"));
        assert_eq!(meant("contnet"), Some("content"));
        assert_eq!(meant("from"), None);
        assert_eq!(meant(""), None);
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        assert_eq!(whole(&json!(3)), Some(3));
        assert_eq!(whole(&json!(3.0)), Some(3));
        assert_eq!(whole(&json!(3.5)), None);
        assert_eq!(whole(&json!(-1)), None);
        assert_eq!(whole(&json!(-1.0)), None);
        assert_eq!(whole(&json!(1e300)), None);
        assert_eq!(whole(&json!("3")), None);
    }

    #[test]
    fn null_is_absent_in_a_record_and_wrong_in_a_message() {
        let value = json!({"name": null});
        let report = Report::default();
        let root = Node::root(&value, &report);
        assert!(
            root.open_fields(&["name"])
                .expect("an object")
                .optional("name")
                .is_none()
        );
        let exact = root.exact_fields(&["name"]).expect("an object");
        assert_eq!(exact.optional("name").expect("is there").text(), None);
        assert_eq!(
            report.finish().expect("a problem").to_string(),
            "$.name: must be text, not null; a field that is not needed is left out"
        );
    }
}
