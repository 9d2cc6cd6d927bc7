//! Reads the text of a patch, strictly: what does not belong to it is an error with its line number, never skipped.
//!
//! Told apart from diffy's `PatchSet`, which stops in silence at what it does not know: a patch that was cut or mended
//! by hand would apply in part. Here the counts in a hunk's header must be right, and after a hunk only another hunk,
//! another file, an empty line or the frame of a mail may follow.

use super::binary::{self, Block};
use super::names::{self, LineName, Names};
use super::{Body, FilePatch, Hunk, HunkLine, Side, Target};

/// A place where the patch cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the patch: {what}")]
pub(super) struct Broken {
    /// The line of the patch, from 1.
    pub(super) line: usize,
    /// What is wrong with it: one sentence without a full stop.
    pub(super) what: String,
}

/// All files of a patch, in order; at least one.
pub(super) fn read(diff: &str) -> Result<Vec<FilePatch<'_>>, Broken> {
    let mut reader = Reader::new(diff);
    let mut files = Vec::new();
    while reader.find_file()? {
        files.push(reader.file()?);
    }
    if files.is_empty() {
        return Err(Broken {
            line: 1,
            what: "no file is named: neither `diff --git` nor `---` and `+++` lines were found"
                .to_owned(),
        });
    }
    Ok(files)
}

/// What the lines between `diff --git` and the first hunk say.
#[derive(Debug, Default)]
struct Header<'d> {
    names: Option<(String, String)>,
    old_mode: Option<&'d str>,
    new_mode: Option<&'d str>,
    index_mode: Option<&'d str>,
    new_file_mode: Option<&'d str>,
    deleted_file_mode: Option<&'d str>,
    rename: [Option<String>; 2],
    copy: [Option<String>; 2],
    /// `GIT binary patch` or `Binary files … differ` follows.
    binary: bool,
}

struct Reader<'d> {
    lines: Vec<&'d str>,
    /// The index of the next line.
    at: usize,
    /// Whether a hunk has just ended, after which not everything may follow.
    after_hunk: bool,
    /// How many commit messages or mails began so far.
    messages: usize,
}

impl<'d> Reader<'d> {
    fn new(diff: &'d str) -> Self {
        let mut lines: Vec<&str> = diff.split('\n').collect();
        if lines.last() == Some(&"") {
            lines.pop();
        }
        Self {
            lines,
            at: 0,
            after_hunk: false,
            messages: 0,
        }
    }

    fn broken(&self, what: impl Into<String>) -> Broken {
        Broken {
            line: self.at + 1,
            what: what.into(),
        }
    }

    fn peek(&self) -> Option<&'d str> {
        self.lines.get(self.at).copied()
    }

    /// The next line as part of a header: without the CR of a patch that has CR LF throughout.
    fn peek_header(&self) -> Option<&'d str> {
        self.peek()
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
    }

    /// Goes to where the next file begins; false at the end.
    fn find_file(&mut self) -> Result<bool, Broken> {
        // In a commit message or a mail's head anything may stand.
        let mut in_message = self.at == 0;
        while let Some(line) = self.peek_header() {
            if line.starts_with("diff --git ") {
                return Ok(true);
            }
            let next = self.lines.get(self.at + 1).copied().unwrap_or_default();
            if line.starts_with("--- ") && next.starts_with("+++ ") {
                return Ok(true);
            }
            if line.starts_with("diff --cc ")
                || line.starts_with("diff --combined ")
                || line.starts_with("@@@ ")
            {
                return Err(self.broken("a merge's combined diff cannot be applied"));
            }
            if is_message_start(line) {
                in_message = true;
                self.messages += 1;
            }
            let stray = line.starts_with(['+', '\\'])
                || (line.starts_with('-') && line.trim_end() != "--" && line != "---")
                || line.starts_with("@@ ")
                || (line.starts_with(' ') && self.after_hunk);
            if stray && !in_message {
                return Err(
                    self.broken("belongs to no hunk; the counts in the hunk's header may be wrong")
                );
            }
            self.after_hunk = false;
            self.at += 1;
        }
        Ok(false)
    }

    fn file(&mut self) -> Result<FilePatch<'d>, Broken> {
        let line = self.at + 1;
        let header = match self.peek_header() {
            Some(first) if first.starts_with("diff --git ") => Some(self.header()?),
            _ => None,
        };
        let names = self.name_lines()?;
        let body = self.body(header.as_ref())?;
        let Some(header) = header else {
            let names = names.ok_or_else(|| self.broken("no file is named"))?;
            let target = plain_target(&names).map_err(|what| Broken { line, what })?;
            return Ok(FilePatch {
                line,
                message: self.messages,
                target,
                mode: None,
                body,
            });
        };
        let at_file = |what: String| Broken { line, what };
        let target = git_target(&header, names.as_ref()).map_err(at_file)?;
        let modes = [
            header.index_mode,
            header.old_mode,
            header.deleted_file_mode,
            header.new_mode,
            header.new_file_mode,
        ];
        let mode = modes.into_iter().flatten().map(str::to_owned).collect();
        let changed = header.new_mode.or(header.new_file_mode);
        if matches!(body, Body::None) && matches!(target, Target::Modify(_)) && changed.is_none() {
            return Err(at_file(
                "the file has no changes; the patch may have been cut".to_owned(),
            ));
        }
        Ok(FilePatch {
            line,
            message: self.messages,
            target,
            mode: Some(super::Modes {
                all: mode,
                new: changed.map(str::to_owned),
            }),
            body,
        })
    }

    /// `diff --git` and what follows it, up to `---`, a hunk or the next file.
    fn header(&mut self) -> Result<Header<'d>, Broken> {
        let mut header = Header::default();
        let first = self
            .peek_header()
            .and_then(|line| line.strip_prefix("diff --git "));
        header.names = first.and_then(names::of_git_line);
        self.at += 1;
        while let Some(line) = self.peek_header() {
            let rest = |start: &str| line.strip_prefix(start);
            if let Some(mode) = rest("old mode ") {
                header.old_mode = Some(mode);
            } else if let Some(mode) = rest("new mode ") {
                header.new_mode = Some(mode);
            } else if let Some(mode) = rest("new file mode ") {
                header.new_file_mode = Some(mode);
            } else if let Some(mode) = rest("deleted file mode ") {
                header.deleted_file_mode = Some(mode);
            } else if let Some(name) = rest("rename from ") {
                header.rename[0] = Some(self.name(name)?);
            } else if let Some(name) = rest("rename to ") {
                header.rename[1] = Some(self.name(name)?);
            } else if let Some(name) = rest("copy from ") {
                header.copy[0] = Some(self.name(name)?);
            } else if let Some(name) = rest("copy to ") {
                header.copy[1] = Some(self.name(name)?);
            } else if let Some(ids) = rest("index ") {
                header.index_mode = ids.split_once(' ').map(|(_, mode)| mode);
            } else if line == "GIT binary patch" {
                header.binary = true;
                self.at += 1;
                break;
            } else if line.starts_with("Binary files ") && line.ends_with(" differ") {
                return Err(self.broken("the bytes of a binary file are missing; make the patch with `git diff --binary`"));
            } else if rest("similarity index ")
                .or(rest("dissimilarity index "))
                .is_none()
            {
                break;
            }
            self.at += 1;
        }
        Ok(header)
    }

    fn name(&self, text: &str) -> Result<String, Broken> {
        names::unquoted(text).ok_or_else(|| self.broken("the file's name cannot be read"))
    }

    /// `--- <old>` and `+++ <new>`, where they follow.
    fn name_lines(&mut self) -> Result<Option<Names>, Broken> {
        let Some(old) = self
            .peek_header()
            .and_then(|line| line.strip_prefix("--- "))
        else {
            return Ok(None);
        };
        let old = self.line_name(old)?;
        self.at += 1;
        let Some(new) = self
            .peek_header()
            .and_then(|line| line.strip_prefix("+++ "))
        else {
            return Err(self.broken("`+++` with the file's new name is missing"));
        };
        let new = self.line_name(new)?;
        self.at += 1;
        Ok(Some(Names { old, new }))
    }

    /// The name in a `---` or `+++` line; `None` if it is `/dev/null`.
    fn line_name(&self, text: &str) -> Result<Option<String>, Broken> {
        match names::of_name_line(text) {
            LineName::File(name) => Ok(Some(name)),
            LineName::DevNull => Ok(None),
            LineName::Unreadable => Err(self.broken("the file's name cannot be read")),
        }
    }

    fn body(&mut self, header: Option<&Header<'d>>) -> Result<Body<'d>, Broken> {
        if header.is_some_and(|header| header.binary) {
            let forward = self.block()?;
            let reverse = self.block()?;
            return Ok(Body::Binary { forward, reverse });
        }
        let mut hunks = Vec::new();
        while self.peek().is_some_and(|line| line.starts_with("@@ ")) {
            hunks.push(self.hunk()?);
            self.after_hunk = true;
        }
        if hunks.is_empty() {
            return Ok(Body::None);
        }
        Ok(Body::Hunks(hunks))
    }

    fn hunk(&mut self) -> Result<Hunk<'d>, Broken> {
        let line = self.at + 1;
        let header = self.peek_header().unwrap_or_default();
        let (start, mut old_left, mut new_left) = hunk_header(header)
            .ok_or_else(|| self.broken("the hunk's header is not of the form `@@ -1,2 +1,2 @@`"))?;
        self.at += 1;
        let mut lines: Vec<HunkLine<'d>> = Vec::new();
        loop {
            let Some(text) = self.peek() else {
                if old_left == 0 && new_left == 0 {
                    break;
                }
                return Err(self.broken("the patch ends in the middle of a hunk"));
            };
            if text.starts_with('\\') {
                let Some(last) = lines.last_mut() else {
                    return Err(
                        self.broken("no line comes before the remark about a missing newline")
                    );
                };
                last.terminated = false;
                self.at += 1;
                continue;
            }
            if old_left == 0 && new_left == 0 {
                break;
            }
            let (side, rest) = match text.as_bytes().first() {
                Some(b' ') => (Side::Both, &text[1..]),
                Some(b'-') => (Side::Old, &text[1..]),
                Some(b'+') => (Side::New, &text[1..]),
                // Many tools strip the one space of an empty line.
                None | Some(b'\r') => (Side::Both, text),
                Some(_) => {
                    return Err(
                        self.broken("a line of a hunk begins with a space, `-`, `+` or `\\`")
                    );
                }
            };
            let enough = match side {
                Side::Both => old_left > 0 && new_left > 0,
                Side::Old => old_left > 0,
                Side::New => new_left > 0,
            };
            if !enough {
                return Err(self.broken("the hunk has more lines than its header says"));
            }
            old_left -= usize::from(side != Side::New);
            new_left -= usize::from(side != Side::Old);
            lines.push(HunkLine {
                side,
                text: rest,
                terminated: true,
            });
            self.at += 1;
        }
        let hunk = Hunk { line, start, lines };
        if !hunk.ends_once() {
            return Err(Broken {
                line,
                what: "only the last line of a file can lack its newline".to_owned(),
            });
        }
        Ok(hunk)
    }

    /// One direction of a binary patch, with the empty line that ends it.
    fn block(&mut self) -> Result<Block, Broken> {
        let first = self
            .peek_header()
            .ok_or_else(|| self.broken("the patch ends in the middle of a binary file"))?;
        let mut block = binary::block_header(first)
            .ok_or_else(|| self.broken("`literal` or `delta` with a size is expected"))?;
        self.at += 1;
        while let Some(line) = self.peek_header() {
            if line.is_empty() {
                self.at += 1;
                break;
            }
            if !binary::decode_line(line, &mut block.deflated) {
                return Err(self.broken("is not a line of a binary file in base 85"));
            }
            self.at += 1;
        }
        Ok(block)
    }
}

/// Whether a commit message begins here, as `git format-patch` and `git log -p` write it.
fn is_message_start(line: &str) -> bool {
    let id = line
        .strip_prefix("From ")
        .or_else(|| line.strip_prefix("commit "));
    id.and_then(|rest| rest.get(..40))
        .is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `@@ -<start>[,<count>] +<start>[,<count>] @@…`: the old start and both counts.
fn hunk_header(line: &str) -> Option<(usize, usize, usize)> {
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let number = |digits: &str| {
            // No sign, and small enough to add to.
            let plain = !digits.is_empty()
                && digits.len() <= 9
                && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        Some((number(start)?, number(count)?))
    };
    let (old_start, old_count) = range(old)?;
    let (_, new_count) = range(new)?;
    Some((old_start, old_count, new_count))
}

/// What a file of a patch with git's header is about.
fn git_target(header: &Header<'_>, lines: Option<&Names>) -> Result<Target<String>, String> {
    let pair = |names: &[Option<String>; 2], what: &str| match names {
        [None, None] => Ok(None),
        [Some(from), Some(to)] => Ok(Some((from.clone(), to.clone()))),
        _ => Err(format!("`{what} from` and `{what} to` belong together")),
    };
    let rename = pair(&header.rename, "rename")?;
    let copy = pair(&header.copy, "copy")?;
    if rename.is_some() && copy.is_some() {
        return Err("a file is renamed or copied, not both".to_owned());
    }
    let is_rename = rename.is_some();
    if let Some((from, to)) = rename.or(copy) {
        if let Some(lines) = lines
            && !(lines.old_is(&from) && lines.new_is(&to))
        {
            return Err("`---` and `+++` name other files than the header".to_owned());
        }
        return Ok(if is_rename {
            Target::Rename { from, to }
        } else {
            Target::Copy { from, to }
        });
    }
    let path = match &header.names {
        Some((old, new)) => names::common(old, new),
        None => lines.and_then(Names::common),
    };
    let path = path.ok_or("the file's name cannot be read from `diff --git`")?;
    if let Some(lines) = lines
        && !(lines.old.as_ref().is_none_or(|_| lines.old_is(&path))
            && lines.new.as_ref().is_none_or(|_| lines.new_is(&path)))
    {
        return Err("`---` and `+++` name another file than the header".to_owned());
    }
    let created = header.new_file_mode.is_some() || lines.is_some_and(|lines| lines.old.is_none());
    let deleted =
        header.deleted_file_mode.is_some() || lines.is_some_and(|lines| lines.new.is_none());
    match (created, deleted) {
        (true, true) => Err("a file is created or deleted, not both".to_owned()),
        (true, false) => Ok(Target::Create(path)),
        (false, true) => Ok(Target::Delete(path)),
        (false, false) => Ok(Target::Modify(path)),
    }
}

/// What a file of a patch without git's header is about. `--- x.orig` and `+++ x` is what people make by hand.
fn plain_target(names: &Names) -> Result<Target<String>, String> {
    match (&names.old, &names.new) {
        (None, None) => Err("both names are /dev/null".to_owned()),
        (None, Some(new)) => Ok(Target::Create(
            new.strip_prefix("b/").unwrap_or(new).to_owned(),
        )),
        (Some(old), None) => Ok(Target::Delete(
            old.strip_prefix("a/").unwrap_or(old).to_owned(),
        )),
        (Some(_), Some(new)) => Ok(Target::Modify(
            names.common().unwrap_or_else(|| new.clone()),
        )),
    }
}
