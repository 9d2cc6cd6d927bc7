//! Reads the YAML of a front matter into nodes that know their place.
//!
//! This is the part of YAML that front matter is written in: block and flow mappings and sequences, all five styles of
//! scalars, comments, anchors, aliases and tags. What it does not know it refuses with a line number (`? ` keys,
//! several documents, directives, tabs for indentation, keys with anchors), because a wrong guess here would damage a
//! file. Reading takes time linear in the text, times the depth, which is bounded.

use std::collections::{BTreeMap, BTreeSet};

use super::fences::after_line;
use super::node::{DEPTH_MAX, Entry, Kind, Node, Place, Style};

mod block_scalar;
mod flow;
mod scalar;

/// Why a front matter cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// The place in the front matter, in bytes.
    pub(super) at: usize,
    /// What is wrong there: a sentence without a full stop.
    pub(super) what: String,
}

type Read<T> = Result<T, Unreadable>;

/// The top-level mapping; without entries if the front matter is empty.
pub(super) fn read(yaml: &str) -> Read<Vec<Entry>> {
    let mut reader = Reader {
        text: yaml,
        bytes: yaml.as_bytes(),
        at: 0,
        depth: 0,
        anchors: BTreeMap::new(),
    };
    reader.check_characters()?;
    let Some(line) = reader.next_line()? else {
        return Ok(Vec::new());
    };
    if reader.is_dash(line.content) {
        return Err(reader.error(
            line.content,
            "the front matter is a list, not keys with values",
        ));
    }
    if reader.bytes[line.content] == b'{' {
        return Err(reader.error(line.content, "the front matter is written in braces"));
    }
    let node = reader.mapping(line.indent, line.start, line.content)?;
    if let Some(rest) = reader.next_line()? {
        return Err(reader.error(
            rest.content,
            "the indentation does not match the lines above",
        ));
    }
    match node.kind {
        Kind::Mapping { entries } => Ok(entries),
        _ => Err(reader.error(0, "the front matter is not a mapping")),
    }
}

pub(super) struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    /// The start of the next line to look at.
    at: usize,
    depth: usize,
    /// Anchors so far.
    anchors: BTreeMap<String, usize>,
}

/// A line that is neither empty nor a comment.
#[derive(Debug, Clone, Copy)]
struct Line {
    start: usize,
    indent: usize,
    /// The place of its first character that is no space.
    content: usize,
}

impl Reader<'_> {
    fn error(&self, at: usize, what: impl Into<String>) -> Unreadable {
        Unreadable {
            at: at.min(self.bytes.len()),
            what: what.into(),
        }
    }

    fn check_characters(&self) -> Read<()> {
        let mut before = '\n';
        for (at, c) in self.text.char_indices() {
            let lone_return = before == '\r' && c != '\n';
            if lone_return || c == '\u{feff}' || (c.is_control() && !"\n\r\t\u{85}".contains(c)) {
                return Err(self.error(at, "there is a control character"));
            }
            let ends_document = before == '\n'
                && (self.text[at..].starts_with("...") || self.text[at..].starts_with("---"));
            if ends_document {
                return Err(self.error(
                    at,
                    "a document ends here, which readers of front matter do not agree on",
                ));
            }
            before = c;
        }
        if before == '\r' {
            Err(self.error(self.text.len(), "there is a control character"))
        } else {
            Ok(())
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// Whether there is a space, a tab or the end of a line.
    fn is_blank(&self, at: usize) -> bool {
        matches!(self.byte(at), None | Some(b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn is_line_end(&self, at: usize) -> bool {
        matches!(self.byte(at), None | Some(b'\n' | b'\r'))
    }

    /// Whether a dash that makes an item of a sequence is here.
    fn is_dash(&self, at: usize) -> bool {
        self.byte(at) == Some(b'-') && self.is_blank(at + 1)
    }

    /// The end of the line, without its line ending.
    fn line_end(&self, at: usize) -> usize {
        let end = self.bytes[at..]
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        end.map_or(self.bytes.len(), |length| at + length)
    }

    /// The start of the next line.
    fn after_line(&self, at: usize) -> usize {
        after_line(self.text, at)
    }

    fn skip_spaces(&self, at: usize) -> usize {
        at + self.bytes[at..]
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count()
    }

    /// Sees that nothing but a comment follows on this line, and goes to the next.
    fn finish_line(&mut self, at: usize) -> Read<()> {
        let rest = self.skip_spaces(at);
        let is_comment = self.byte(rest) == Some(b'#') && rest > at;
        if !is_comment && !self.is_line_end(rest) {
            return Err(self.error(rest, "something follows that does not belong to the value"));
        }
        self.at = self.after_line(rest);
        Ok(())
    }

    /// Goes to the next line that says something.
    fn next_line(&mut self) -> Read<Option<Line>> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let indent = self.bytes[start..]
                .iter()
                .take_while(|byte| **byte == b' ')
                .count();
            let content = self.skip_spaces(start);
            if !self.is_line_end(content) && self.byte(content) != Some(b'#') {
                if content > start + indent {
                    return Err(self.error(start + indent, "a tab cannot indent"));
                }
                return Ok(Some(Line {
                    start,
                    indent,
                    content,
                }));
            }
            self.at = self.after_line(content);
        }
        Ok(None)
    }

    fn deeper<T>(&mut self, at: usize, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEPTH_MAX {
            return Err(self.error(at, "the values are nested too deeply"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// A block mapping whose first key is at `content`.
    fn mapping(&mut self, indent: usize, start: usize, content: usize) -> Read<Node> {
        self.deeper(content, |reader| {
            let mut entries = Vec::new();
            let mut keys = BTreeSet::new();
            let mut line = Line {
                start,
                indent,
                content,
            };
            loop {
                let entry = reader.entry(line)?;
                if !keys.insert(entry.key.clone()) {
                    return Err(reader.error(line.content, "this key was there before"));
                }
                let end = entry.end;
                entries.push(entry);
                match reader.next_line()? {
                    Some(next) if next.indent > indent => {
                        return Err(reader.error(
                            next.content,
                            "the indentation does not match the lines above",
                        ));
                    }
                    Some(next) if next.indent == indent => line = next,
                    _ => {
                        reader.at = end;
                        let place = Place::Lines {
                            properties: None,
                            lines: start..end,
                        };
                        return Ok(Node::new(Kind::Mapping { entries }, place));
                    }
                }
            }
        })
    }

    fn entry(&mut self, line: Line) -> Read<Entry> {
        let Some((key, colon)) = self.key(line.content)? else {
            return Err(self.error(line.content, "a key with a colon is expected"));
        };
        let value = self.value(line.indent, colon + 1, true)?;
        Ok(Entry {
            key,
            start: line.start,
            indent: line.indent,
            colon_end: Some(colon + 1),
            value,
            end: self.at,
        })
    }

    /// The key at `at` and the place of its colon, if a key is there.
    fn key(&self, at: usize) -> Read<Option<(String, usize)>> {
        match self.byte(at) {
            Some(b'"' | b'\'') => {
                let line_end = self.line_end(at);
                // What is no key may still be a value in several lines.
                let Ok((_, text, end)) = self.quoted(at, usize::MAX) else {
                    return Ok(None);
                };
                let colon = self.skip_spaces(end);
                let is_key =
                    colon < line_end && self.byte(colon) == Some(b':') && self.is_blank(colon + 1);
                Ok(is_key.then_some((text, colon)))
            }
            Some(b'?' | b'-' | b':') if self.is_blank(at + 1) => {
                Err(self.error(at, "this kind of key is not supported"))
            }
            Some(b'[' | b'{' | b'|' | b'>' | b'#' | b',' | b']' | b'}' | b'%' | b'@' | b'`') => {
                Ok(None)
            }
            _ => {
                let line = &self.bytes[at..self.line_end(at)];
                let comment = line
                    .windows(2)
                    .position(|pair| matches!(pair, b" #" | b"\t#"))
                    .unwrap_or(line.len());
                let colon = (0..comment)
                    .find(|place| line[*place] == b':' && self.is_blank(at + place + 1));
                let Some(colon) = colon else { return Ok(None) };
                if matches!(line[0], b'&' | b'*' | b'!') {
                    return Err(self.error(
                        at,
                        "a key with an anchor, an alias or a tag is not supported",
                    ));
                }
                let key = self.text[at..at + colon].trim_end_matches([' ', '\t']);
                Ok(Some((key.to_owned(), at + colon)))
            }
        }
    }

    /// The value after a colon or a dash. `parent` is the indentation that it must exceed, unless it is a sequence
    /// below a key.
    fn value(&mut self, parent: usize, at: usize, in_mapping: bool) -> Read<Node> {
        let start = self.skip_spaces(at);
        if self.is_line_end(start) || (self.byte(start) == Some(b'#') && start > at) {
            self.at = self.after_line(start);
            return self.below(parent, in_mapping);
        }
        let properties = self.properties(start)?;
        let first = self.skip_spaces(properties.end);
        let mut node = if self.is_line_end(first)
            || (self.byte(first) == Some(b'#') && first > properties.end)
        {
            self.at = self.after_line(first);
            self.below(parent, in_mapping)?
        } else if matches!(self.byte(first), Some(b'|' | b'>')) {
            self.block_scalar(first, parent)?
        } else {
            self.inline(first, parent)?
        };
        self.attach(&mut node, properties)?;
        Ok(node)
    }

    /// The value in the lines below a key or a dash.
    fn below(&mut self, parent: usize, in_mapping: bool) -> Read<Node> {
        let before = self.at;
        match self.next_line()? {
            Some(line) if line.indent > parent => self.node_in_lines(line, parent),
            Some(line) if line.indent == parent && in_mapping && self.is_dash(line.content) => {
                self.sequence(line.indent, line.start, line.content, parent)
            }
            _ => {
                self.at = before;
                Ok(Node::null())
            }
        }
    }

    fn node_in_lines(&mut self, line: Line, parent: usize) -> Read<Node> {
        if self.is_dash(line.content) {
            return self.sequence(line.indent, line.start, line.content, parent);
        }
        if self.key(line.content)?.is_some() {
            return self.mapping(line.indent, line.start, line.content);
        }
        if matches!(self.byte(line.content), Some(b'&' | b'!' | b'|' | b'>')) {
            return Err(self.error(
                line.content,
                "a value that begins like this below its key is not supported",
            ));
        }
        self.inline(line.content, parent)
    }

    /// A block sequence whose first dash is at `content`.
    fn sequence(
        &mut self,
        indent: usize,
        start: usize,
        content: usize,
        parent: usize,
    ) -> Read<Node> {
        self.deeper(content, |reader| {
            let mut items = Vec::new();
            let mut dash = content;
            loop {
                items.push(reader.item(indent, dash)?);
                let end = reader.at;
                match reader.next_line()? {
                    Some(next) if next.indent > indent => {
                        return Err(reader.error(
                            next.content,
                            "the indentation does not match the lines above",
                        ));
                    }
                    Some(next) if next.indent == indent && reader.is_dash(next.content) => {
                        dash = next.content;
                    }
                    _ => {
                        reader.at = end;
                        let kind = Kind::Sequence {
                            indent: indent.saturating_sub(parent),
                            items,
                        };
                        return Ok(Node::new(
                            kind,
                            Place::Lines {
                                properties: None,
                                lines: start..end,
                            },
                        ));
                    }
                }
            }
        })
    }

    fn item(&mut self, indent: usize, dash: usize) -> Read<Node> {
        let spaces = self.bytes[dash + 1..]
            .iter()
            .take_while(|byte| **byte == b' ')
            .count();
        let first = dash + 1 + spaces;
        let column = indent + 1 + spaces;
        if self.byte(first) == Some(b'\t') && !self.is_line_end(self.skip_spaces(first)) {
            return Err(self.error(first, "a tab cannot indent"));
        }
        if !self.is_blank(first) && self.byte(first) != Some(b'#') {
            if self.is_dash(first) {
                return self.sequence(column, first, first, indent);
            }
            if self.key(first)?.is_some() {
                return self.mapping(column, first, first);
            }
        }
        self.value(indent, dash + 1, false)
    }

    /// A scalar, alias or flow collection that begins here, to the end of its line.
    fn inline(&mut self, at: usize, parent: usize) -> Read<Node> {
        let (kind, end) = match self.byte(at) {
            Some(b'"' | b'\'') => {
                let (style, text, end) = self.quoted(at, parent)?;
                (Kind::Scalar { style, text }, end)
            }
            Some(b'[' | b'{') => {
                let (node, end) = self.flow_collection(at, parent)?;
                (node.kind, end)
            }
            Some(b'*') => {
                let (name, end) = self.alias(at)?;
                (Kind::Alias(name), end)
            }
            _ => {
                let (text, end) = self.plain_lines(at, parent)?;
                (
                    Kind::Scalar {
                        style: Style::Plain,
                        text,
                    },
                    end,
                )
            }
        };
        self.finish_line(end)?;
        Ok(Node::new(kind, Place::Inline(at..end)))
    }

    /// Gives a node what stands in front of it.
    fn attach(&mut self, node: &mut Node, properties: Properties) -> Read<()> {
        if properties.start == properties.end {
            return Ok(());
        }
        let alone = properties.start..properties.end;
        match &mut node.place {
            Place::Empty => node.place = Place::Inline(alone),
            Place::Inline(range) | Place::BlockScalar { header: range, .. } => {
                range.start = alone.start;
            }
            Place::Lines { properties, .. } => *properties = Some(alone),
        }
        if matches!(node.kind, Kind::Alias(_)) {
            return Err(self.error(properties.start, "an alias has no anchor or tag of its own"));
        }
        node.anchor = properties.anchor;
        node.tag = properties.tag;
        Ok(())
    }

    /// `&anchor` and `!tag`, each at most once.
    fn properties(&mut self, at: usize) -> Read<Properties> {
        let mut found = Properties {
            start: at,
            end: at,
            anchor: None,
            tag: None,
        };
        let mut next = at;
        loop {
            let sort = self.byte(next);
            if !matches!(sort, Some(b'&' | b'!')) {
                return Ok(found);
            }
            let end = next + self.name_length(next);
            let name = self.text[next + 1..end].to_owned();
            if !self.is_blank(end) && !matches!(self.byte(end), Some(b',' | b']' | b'}')) {
                return Err(self.error(next, "this anchor or tag is not supported"));
            }
            if sort == Some(b'!') && found.tag.is_none() {
                found.tag = Some(name);
            } else if sort == Some(b'&') && found.anchor.is_none() && !name.is_empty() {
                if self.anchors.insert(name.clone(), next).is_some() {
                    return Err(self.error(next, format!("the anchor &{name} was there before")));
                }
                found.anchor = Some(name);
            } else {
                return Err(self.error(next, "there are two anchors or two tags"));
            }
            found.end = end;
            next = self.skip_spaces(end);
        }
    }

    /// `*name`, which must have been anchored before.
    fn alias(&self, at: usize) -> Read<(String, usize)> {
        let end = at + self.name_length(at);
        let name = &self.text[at + 1..end];
        if !self.anchors.contains_key(name) {
            return Err(self.error(at, format!("nothing before is anchored as &{name}")));
        }
        Ok((name.to_owned(), end))
    }

    fn name_length(&self, at: usize) -> usize {
        let ends = |byte: &u8| {
            matches!(
                byte,
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b'[' | b']' | b'{' | b'}'
            )
        };
        self.bytes[at..]
            .iter()
            .position(ends)
            .unwrap_or(self.bytes.len() - at)
    }
}

/// What can stand in front of a value.
#[derive(Debug)]
struct Properties {
    start: usize,
    end: usize,
    anchor: Option<String>,
    tag: Option<String>,
}
