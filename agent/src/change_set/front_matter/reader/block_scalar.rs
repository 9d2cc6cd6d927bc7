//! Scalars in lines of their own: `|` keeps their line breaks, `>` folds them.

use super::super::node::{Kind, Node, Place, Style};
use super::{Read, Reader};

/// What becomes of the line breaks at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chomping {
    /// One stays.
    Clip,
    /// `-`: none stays.
    Strip,
    /// `+`: all stay.
    Keep,
}

impl Reader<'_> {
    /// A block scalar whose `|` or `>` is here.
    pub(super) fn block_scalar(&mut self, at: usize, parent: usize) -> Read<Node> {
        let style = if self.bytes[at] == b'|' {
            Style::Literal
        } else {
            Style::Folded
        };
        let mut chomping = Chomping::Clip;
        let mut explicit = None;
        let mut header_end = at + 1;
        for _ in 0..2 {
            match self.byte(header_end) {
                Some(b'-') if chomping == Chomping::Clip => chomping = Chomping::Strip,
                Some(b'+') if chomping == Chomping::Clip => chomping = Chomping::Keep,
                Some(digit @ b'1'..=b'9') if explicit.is_none() => {
                    explicit = Some(usize::from(digit - b'0'));
                }
                _ => break,
            }
            header_end += 1;
        }
        self.finish_line(header_end)?;
        let start = self.at;
        let indent = match explicit {
            Some(columns) => parent + columns,
            None => self.indent_of_text(start, parent)?,
        };
        let (text, body_end) = self.literal_text(start, indent, chomping);
        let body = start..body_end;
        self.at = body_end;
        let text = if style == Style::Folded {
            self.text[at..body_end].to_owned()
        } else {
            text
        };
        Ok(Node::new(
            Kind::Scalar { style, text },
            Place::BlockScalar {
                header: at..header_end,
                body,
            },
        ))
    }

    /// The indentation of the first line that is not empty; more than `parent`.
    fn indent_of_text(&self, start: usize, parent: usize) -> Read<usize> {
        let mut line = start;
        let mut widest_blank = 0;
        while line < self.bytes.len() {
            let indent = self.bytes[line..]
                .iter()
                .take_while(|byte| **byte == b' ')
                .count();
            if !self.is_line_end(line + indent) {
                if indent > parent && widest_blank > indent {
                    return Err(
                        self.error(line, "an empty line above is indented more than the text")
                    );
                }
                if self.byte(line + indent) == Some(b'\t') {
                    return Err(self.error(line + indent, "a tab cannot indent"));
                }
                if indent <= parent {
                    break;
                }
                return Ok(indent);
            }
            widest_blank = widest_blank.max(indent);
            line = self.after_line(line);
        }
        // Without text the longest empty line counts.
        Ok(widest_blank.max(parent + 1))
    }

    /// The text of the lines that are indented enough, and where the last of them ends.
    fn literal_text(&self, start: usize, indent: usize, chomping: Chomping) -> (String, usize) {
        let mut text = String::new();
        let mut breaks = 0;
        let mut line = start;
        let mut end = start;
        while line < self.bytes.len() {
            let spaces = self.bytes[line..]
                .iter()
                .take(indent)
                .take_while(|byte| **byte == b' ')
                .count();
            let after = self.after_line(line);
            if self.is_line_end(line + spaces) {
                breaks += 1;
                line = after;
                if chomping == Chomping::Keep {
                    end = after;
                }
                continue;
            }
            if spaces < indent {
                break;
            }
            text.extend(std::iter::repeat_n('\n', breaks));
            text.push_str(&self.text[line + spaces..self.line_end(line)]);
            breaks = 1;
            line = after;
            end = after;
        }
        match chomping {
            Chomping::Strip => {}
            Chomping::Clip => text.extend((!text.is_empty()).then_some('\n')),
            Chomping::Keep => text.extend(std::iter::repeat_n('\n', breaks)),
        }
        (text, end)
    }
}
