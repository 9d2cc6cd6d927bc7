//! Scalars that can run over several lines: unquoted, in single and in double quotes.

use super::super::node::Style;
use super::{Read, Reader};

impl Reader<'_> {
    /// An unquoted scalar: its text, and where it ends.
    pub(super) fn plain_lines(&self, at: usize, parent: usize) -> Read<(String, usize)> {
        let next_is_blank = self.is_blank(at + 1);
        match self.byte(at) {
            Some(b'-' | b'?' | b':') if !next_is_blank => {}
            Some(
                b'-' | b'?' | b':' | b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!'
                | b'|' | b'>' | b'\'' | b'"' | b'%' | b'@' | b'`',
            ) => return Err(self.error(at, "an unquoted value cannot begin with this character")),
            _ => {}
        }
        let (mut end, mut has_comment) = self.plain_part(at)?;
        let mut text = self.text[at..end].to_owned();
        let mut line = self.after_line(end);
        let mut breaks = 1;
        while !has_comment && line < self.bytes.len() {
            let indent = self.bytes[line..]
                .iter()
                .take_while(|byte| **byte == b' ')
                .count();
            let content = self.skip_spaces(line);
            if self.is_line_end(content) {
                breaks += 1;
                line = self.after_line(content);
                continue;
            }
            if indent <= parent || self.byte(content) == Some(b'#') {
                break;
            }
            if content > line + indent {
                return Err(self.error(line + indent, "a tab cannot indent"));
            }
            (end, has_comment) = self.plain_part(content)?;
            push_breaks(&mut text, breaks);
            text.push_str(&self.text[content..end]);
            line = self.after_line(end);
            breaks = 1;
        }
        Ok((text, end))
    }

    /// The part of an unquoted scalar on this line: its end, and whether a comment follows.
    fn plain_part(&self, at: usize) -> Read<(usize, bool)> {
        let line = &self.bytes[at..self.line_end(at)];
        let comment = line
            .windows(2)
            .position(|pair| matches!(pair, b" #" | b"\t#"));
        let part = &line[..comment.unwrap_or(line.len())];
        if let Some(colon) =
            (0..part.len()).find(|place| part[*place] == b':' && self.is_blank(at + place + 1))
        {
            return Err(self.error(at + colon, "a value with a colon and a space needs quotes"));
        }
        let blanks = part
            .iter()
            .rev()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        Ok((at + part.len() - blanks, comment.is_some()))
    }

    /// A quoted scalar: its style, its text, and where it ends. `parent` is the indentation that further lines must
    /// exceed; `usize::MAX` if there may be none.
    pub(super) fn quoted(&self, at: usize, parent: usize) -> Read<(Style, String, usize)> {
        let quote = self.bytes[at];
        let style = if quote == b'"' {
            Style::Double
        } else {
            Style::Single
        };
        let mut text = String::new();
        // The length of the text that a line break does not take spaces off.
        let mut kept = 0;
        let mut here = at + 1;
        while let Some(c) = self.text[here..].chars().next() {
            match c {
                '\n' | '\r' => {
                    text.truncate(kept.max(text.trim_end_matches([' ', '\t']).len()));
                    here = self.quoted_break(here, parent, &mut text)?;
                    kept = text.len();
                    continue;
                }
                '\'' if style == Style::Single && self.byte(here + 1) == Some(b'\'') => {
                    text.push('\'');
                    here += 1;
                }
                '"' if style == Style::Double => return Ok((style, text, here + 1)),
                '\'' if style == Style::Single => return Ok((style, text, here + 1)),
                '\\' if style == Style::Double && self.is_line_end(here + 1) => {
                    kept = text.len();
                    let before = text.len();
                    here = self.quoted_break(here + 1, parent, &mut text)?;
                    // An escaped line break is nothing; the empty lines after it are breaks.
                    if text[before..] == *" " {
                        text.truncate(before);
                    }
                    kept = kept.max(text.len());
                    continue;
                }
                '\\' if style == Style::Double => {
                    let (escaped, length) = self.escape(here + 1)?;
                    text.push(escaped);
                    here += 1 + length;
                    kept = text.len();
                    continue;
                }
                c => text.push(c),
            }
            here += c.len_utf8();
        }
        Err(self.error(at, "the closing quote is missing"))
    }

    /// Folds the line breaks that begin here: one is a space, more are one less. The place of what follows.
    fn quoted_break(&self, at: usize, parent: usize, text: &mut String) -> Read<usize> {
        if parent == usize::MAX {
            return Err(self.error(at, "a key cannot run over several lines"));
        }
        let mut breaks = 0;
        let mut line = self.after_line(at);
        loop {
            breaks += 1;
            let content = self.skip_spaces(line);
            if content >= self.bytes.len() {
                return Err(self.error(at, "the closing quote is missing"));
            }
            if self.is_line_end(content) {
                line = self.after_line(content);
                continue;
            }
            let indent = self.bytes[line..]
                .iter()
                .take_while(|byte| **byte == b' ')
                .count();
            if indent <= parent {
                return Err(self.error(content, "a line of a quoted value is not indented enough"));
            }
            push_breaks(text, breaks);
            return Ok(content);
        }
    }

    /// The character after a backslash, and the length of its escape.
    fn escape(&self, at: usize) -> Read<(char, usize)> {
        let hexadecimal = |digits: usize| {
            let code = self
                .text
                .get(at + 1..at + 1 + digits)
                .filter(|code| code.bytes().all(|c| c.is_ascii_hexdigit()));
            let number = code.and_then(|code| u32::from_str_radix(code, 16).ok());
            number.and_then(char::from_u32).map(|c| (c, 1 + digits))
        };
        let plain = |c: char| Some((c, 1));
        let found = match self.byte(at) {
            Some(b'0') => plain('\0'),
            Some(b'a') => plain('\u{7}'),
            Some(b'b') => plain('\u{8}'),
            Some(b't' | b'\t') => plain('\t'),
            Some(b'n') => plain('\n'),
            Some(b'v') => plain('\u{b}'),
            Some(b'f') => plain('\u{c}'),
            Some(b'r') => plain('\r'),
            Some(b'e') => plain('\u{1b}'),
            Some(b' ') => plain(' '),
            Some(b'"') => plain('"'),
            Some(b'/') => plain('/'),
            Some(b'\\') => plain('\\'),
            Some(b'N') => plain('\u{85}'),
            Some(b'_') => plain('\u{a0}'),
            Some(b'L') => plain('\u{2028}'),
            Some(b'P') => plain('\u{2029}'),
            Some(b'x') => hexadecimal(2),
            Some(b'u') => hexadecimal(4),
            Some(b'U') => hexadecimal(8),
            _ => None,
        };
        found.ok_or_else(|| self.error(at, "this escape is not known"))
    }
}

/// Line breaks in a scalar that folds them.
fn push_breaks(text: &mut String, breaks: usize) {
    match breaks {
        1 => text.push(' '),
        more => text.extend(std::iter::repeat_n('\n', more - 1)),
    }
}
