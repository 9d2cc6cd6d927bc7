//! Collections between brackets and braces.

use std::collections::BTreeSet;

use super::super::node::{Entry, Kind, Node, Place, Style};
use super::{Read, Reader};

impl Reader<'_> {
    /// `[…]` or `{…}`, and where it ends.
    pub(super) fn flow_collection(&mut self, at: usize, parent: usize) -> Read<(Node, usize)> {
        self.deeper(at, |reader| {
            if reader.bytes[at] == b'[' {
                reader.flow_sequence(at, parent)
            } else {
                reader.flow_mapping(at, parent)
            }
        })
    }

    fn flow_sequence(&mut self, at: usize, parent: usize) -> Read<(Node, usize)> {
        let mut items = Vec::new();
        let mut here = self.flow_space(at + 1, parent)?;
        while self.byte(here) != Some(b']') {
            let (item, end) = self.flow_node(here, parent)?;
            items.push(item);
            here = self.after_comma(end, b']', parent)?;
        }
        let end = here + 1;
        Ok((
            Node::new(Kind::Sequence { indent: 0, items }, Place::Inline(at..end)),
            end,
        ))
    }

    fn flow_mapping(&mut self, at: usize, parent: usize) -> Read<(Node, usize)> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = BTreeSet::new();
        let mut here = self.flow_space(at + 1, parent)?;
        while self.byte(here) != Some(b'}') {
            let entry = self.flow_entry(here, parent)?;
            if !keys.insert(entry.key.clone()) {
                return Err(self.error(here, "this key was there before"));
            }
            here = self.after_comma(entry.end, b'}', parent)?;
            entries.push(entry);
        }
        let end = here + 1;
        Ok((
            Node::new(Kind::Mapping { entries }, Place::Inline(at..end)),
            end,
        ))
    }

    fn flow_entry(&mut self, start: usize, parent: usize) -> Read<Entry> {
        let is_quoted = matches!(self.byte(start), Some(b'"' | b'\''));
        if !is_quoted
            && matches!(
                self.byte(start),
                Some(b'[' | b'{' | b'&' | b'*' | b'!' | b'?')
            )
        {
            return Err(self.error(start, "this kind of key is not supported"));
        }
        let (key, key_end) = self.flow_node(start, parent)?;
        let Kind::Scalar { text: key, .. } = key.kind else {
            return Err(self.error(start, "this kind of key is not supported"));
        };
        let colon = self.flow_space(key_end, parent)?;
        let mut entry = Entry {
            key,
            start,
            indent: 0,
            colon_end: None,
            value: Node::null(),
            end: key_end,
        };
        if self.byte(colon) != Some(b':') {
            return Ok(entry);
        }
        if !is_quoted
            && !self.is_blank(colon + 1)
            && !matches!(self.byte(colon + 1), Some(b',' | b'}'))
        {
            return Err(self.error(colon, "a space is missing after the colon"));
        }
        entry.colon_end = Some(colon + 1);
        entry.end = colon + 1;
        let value = self.flow_space(colon + 1, parent)?;
        if !matches!(self.byte(value), Some(b',' | b'}')) {
            (entry.value, entry.end) = self.flow_node(value, parent)?;
        }
        Ok(entry)
    }

    /// A value between brackets, and where it ends.
    fn flow_node(&mut self, at: usize, parent: usize) -> Read<(Node, usize)> {
        let properties = self.properties(at)?;
        let first = self.flow_space(properties.end, parent)?;
        let (mut node, end) = match self.byte(first) {
            Some(b'[' | b'{') => self.flow_collection(first, parent)?,
            Some(b'"' | b'\'') => {
                let (style, text, end) = self.quoted(first, parent)?;
                (
                    Node::new(Kind::Scalar { style, text }, Place::Inline(first..end)),
                    end,
                )
            }
            Some(b'*') => {
                let (name, end) = self.alias(first)?;
                (Node::new(Kind::Alias(name), Place::Inline(first..end)), end)
            }
            Some(b',' | b']' | b'}') if properties.end > properties.start => {
                (Node::null(), properties.end)
            }
            _ => {
                let end = self.flow_plain(first)?;
                let text = self.text[first..end].to_owned();
                (
                    Node::new(
                        Kind::Scalar {
                            style: Style::Plain,
                            text,
                        },
                        Place::Inline(first..end),
                    ),
                    end,
                )
            }
        };
        self.attach(&mut node, properties)?;
        Ok((node, end))
    }

    /// The end of an unquoted scalar between brackets; it cannot run over several lines here.
    fn flow_plain(&self, at: usize) -> Read<usize> {
        let is_flow = |at: usize| matches!(self.byte(at), Some(b',' | b'[' | b']' | b'{' | b'}'));
        let ends_early = self.is_blank(at + 1) || is_flow(at + 1);
        match self.byte(at) {
            None => return Err(self.error(at, "the closing bracket is missing")),
            Some(b'-' | b'?' | b':') if !ends_early => {}
            Some(
                b'-' | b'?' | b':' | b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!'
                | b'|' | b'>' | b'\'' | b'"' | b'%' | b'@' | b'`',
            ) => {
                return Err(self.error(
                    at,
                    "a value between brackets cannot begin with this character",
                ));
            }
            Some(_) => {}
        }
        let mut end = at;
        let mut here = at;
        while !self.is_line_end(here) && !is_flow(here) {
            let is_colon =
                self.bytes[here] == b':' && (self.is_blank(here + 1) || is_flow(here + 1));
            let is_comment = self.bytes[here] == b'#' && here > at && self.is_blank(here - 1);
            if is_colon || is_comment {
                break;
            }
            if !matches!(self.bytes[here], b' ' | b'\t') {
                end = here + 1;
            }
            here += 1;
        }
        Ok(end)
    }

    /// The place after a comma, or of the closing bracket.
    fn after_comma(&self, at: usize, closing: u8, parent: usize) -> Read<usize> {
        let here = self.flow_space(at, parent)?;
        match self.byte(here) {
            Some(b',') => self.flow_space(here + 1, parent),
            Some(byte) if byte == closing => Ok(here),
            Some(_) => Err(self.error(here, "a comma or the closing bracket is expected")),
            None => Err(self.error(here, "the closing bracket is missing")),
        }
    }

    /// Goes over spaces, line breaks and comments. Further lines are indented more than `parent`, but for those that
    /// close a bracket.
    fn flow_space(&self, at: usize, parent: usize) -> Read<usize> {
        let mut here = self.skip_spaces(at);
        let mut separated = here > at;
        loop {
            if self.byte(here) == Some(b'#') && separated {
                here = self.line_end(here);
            }
            if here >= self.bytes.len() || !self.is_line_end(here) {
                return Ok(here);
            }
            let line = self.after_line(here);
            here = self.skip_spaces(line);
            separated = true;
            let indent = self.bytes[line..here]
                .iter()
                .take_while(|byte| **byte == b' ')
                .count();
            let says_something = !self.is_line_end(here) && self.byte(here) != Some(b'#');
            if says_something && indent <= parent && !matches!(self.byte(here), Some(b']' | b'}')) {
                return Err(self.error(here, "a line between brackets is not indented enough"));
            }
        }
    }
}
