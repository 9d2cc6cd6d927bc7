//! A git patch as one change: reading it, and carrying it out strictly.
//!
//! What `git diff` and `git format-patch` write is taken: text and binary files, new, deleted, renamed and copied files,
//! the executable bit, quoted names, missing final newlines; also a plain unified diff without git's header. Symbolic
//! links, submodules and combined diffs are refused.
//!
//! **Order.** In one `git diff` every file is described as it was before all of it: a copy comes from what its source
//! was, and two files can swap names. A series of mails, or a file that is changed a second time, begins a new *stage*,
//! which sees what the one before did.
//!
//! **Strict** means:
//! - Every old line of every hunk matches exactly, white space and line endings included.
//! - Either all hunks of a file stand where they say, or the old lines of each occur exactly once in the file, in
//!   order. Never a guess, never fuzz. A hunk without any old line applies to an empty file only.
//! - A deleted file has exactly the content the patch deletes, a new one does not exist yet, and the second half of a
//!   binary patch, which leads back, leads back to what is there.
//! - Every path passes through [`SitePath`] and policy, that of a copy's source too: otherwise `.env` could be copied
//!   to where everybody can read it.
//!
//! diffy's patch parser is not used: it gives no line numbers, passes over what it does not know, puts a hunk at the
//! nearest of several places, and decodes binary files without a bound. The tests hold this one against it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use contract::{ErrorCode, SitePath};

use super::fault::{Fault, Stop, quote};
use super::overlay::{Held, Overlay, Place, not_a_file, refuse_lfs};

mod binary;
mod hunks;
mod names;
mod read;

use binary::Block;

/// The member of the change that all faults of a patch are about.
const AT: &str = ".diff";

/// A patch that was read, with the paths it names.
#[derive(Debug)]
pub(super) struct Patch<'d> {
    files: Vec<(FilePatch<'d>, Target<SitePath>)>,
}

/// One file of a patch.
#[derive(Debug)]
struct FilePatch<'d> {
    /// The line of the patch at which it begins.
    line: usize,
    /// The number of the mail or commit that it is in.
    message: usize,
    target: Target<String>,
    /// With git's header: the modes it names.
    mode: Option<Modes>,
    body: Body<'d>,
}

/// Modes as the patch spells them.
#[derive(Debug)]
struct Modes {
    all: Vec<String>,
    /// The one the file gets, if the patch says so.
    new: Option<String>,
}

/// What happens to which file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target<P> {
    Modify(P),
    Create(P),
    Delete(P),
    Rename { from: P, to: P },
    Copy { from: P, to: P },
}

/// How its content changes.
#[derive(Debug)]
enum Body<'d> {
    None,
    Hunks(Vec<Hunk<'d>>),
    Binary { forward: Block, reverse: Block },
}

/// Lines that change, and lines around them.
#[derive(Debug)]
struct Hunk<'d> {
    /// The line of the patch at which it begins.
    line: usize,
    /// Its first line in the old file, from 1; the line before it if it has no old lines.
    start: usize,
    lines: Vec<HunkLine<'d>>,
}

#[derive(Debug, Clone, Copy)]
struct HunkLine<'d> {
    side: Side,
    /// Without its newline.
    text: &'d str,
    /// Whether it has a newline.
    terminated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
    Both,
}

impl Target<SitePath> {
    /// The paths it names.
    fn paths(&self) -> impl Iterator<Item = &SitePath> {
        let (first, second) = match self {
            Self::Modify(path) | Self::Create(path) | Self::Delete(path) => (path, None),
            Self::Rename { from, to } | Self::Copy { from, to } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

impl<'d> Patch<'d> {
    /// Reads a patch; all names and modes that are not allowed are reported at once.
    pub(super) fn read(diff: &'d str) -> Result<Self, Vec<Fault>> {
        let fault = |code, message: String| Fault {
            code,
            at: AT.to_owned(),
            message,
        };
        let files = read::read(diff)
            .map_err(|broken| vec![fault(ErrorCode::PatchFailed, format!("{broken}."))])?;
        let mut faults = Vec::new();
        let mut read = Vec::with_capacity(files.len());
        for file in files {
            let line = file.line;
            match file
                .target
                .clone()
                .try_map(|name| name.parse::<SitePath>().map_err(|why| (name, why)))
            {
                Ok(target) => read.push((file, target)),
                Err((name, why)) => {
                    let message = format!(
                        "line {line} of the patch: {} is not allowed: {why}.",
                        quote(&name)
                    );
                    faults.push(fault(ErrorCode::PathNotAllowed, message));
                }
            }
        }
        for (file, target) in &read {
            let Some(path) = target.paths().last() else {
                continue;
            };
            for mode in file.mode.iter().flat_map(|modes| &modes.all) {
                faults.extend(refused_mode(path, mode));
            }
        }
        if faults.is_empty() {
            Ok(Self { files: read })
        } else {
            Err(faults)
        }
    }

    /// All paths that it names, each once.
    pub(super) fn paths(&self) -> BTreeSet<&SitePath> {
        self.files
            .iter()
            .flat_map(|(_, target)| target.paths())
            .collect()
    }

    /// Carries it out; all files that do not work are reported at once.
    pub(super) fn carry_out(&self, overlay: &mut Overlay<'_>) -> Result<(), Stop> {
        let mut faults = Vec::new();
        let mut stage = Stage::default();
        for (index, (file, target)) in self.files.iter().enumerate() {
            stage.enter(file.message, target);
            let moves_later = |path: &SitePath| {
                let mut later = self.files[index + 1..]
                    .iter()
                    .take_while(|(later, _)| later.message == file.message);
                later.any(|(_, later)| matches!(later, Target::Rename { from, .. } if from == path))
            };
            match file.carry_out(target, overlay, &mut stage, moves_later) {
                Ok(()) => {}
                Err(Stop::Faults(found)) => faults.extend(found),
                Err(stop) => return Err(stop),
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Stop::Faults(faults))
        }
    }
}

/// A part of a patch in which every file is described as it was before.
#[derive(Debug, Default)]
struct Stage {
    message: usize,
    /// Paths that it changed so far.
    before: BTreeMap<SitePath, Before>,
}

/// What was at a path before the stage changed it.
#[derive(Debug)]
enum Before {
    /// Nothing; a file is there now.
    Nothing,
    /// This file, which now has other content.
    Changed(Held),
    /// This file, which is gone.
    Gone(Held),
    /// This file, in whose place another was put; it is moved later.
    Displaced(Held),
}

impl Stage {
    /// Begins a new stage if this file cannot belong to the present one.
    fn enter(&mut self, message: usize, target: &Target<SitePath>) {
        let before = |path| self.before.get(path);
        let taken = |path| before(path).is_some_and(|before| !matches!(before, Before::Gone(_)));
        let again = match target {
            Target::Modify(path) | Target::Delete(path) => before(path).is_some(),
            Target::Create(path) => taken(path),
            Target::Copy { from, to } => matches!(before(from), Some(Before::Nothing)) || taken(to),
            Target::Rename { from, to } => {
                !matches!(before(from), None | Some(Before::Displaced(_))) || taken(to)
            }
        };
        if again || message != self.message {
            *self = Self {
                message,
                before: BTreeMap::new(),
            };
        }
    }

    fn remember(&mut self, path: &SitePath, before: Before) {
        self.before.entry(path.clone()).or_insert(before);
    }

    /// The file that was at `path` before this stage changed it.
    fn file_before(&self, path: &SitePath) -> Option<Held> {
        match self.before.get(path)? {
            Before::Nothing => None,
            Before::Changed(held) | Before::Gone(held) | Before::Displaced(held) => {
                Some(held.clone())
            }
        }
    }
}

impl FilePatch<'_> {
    fn carry_out(
        &self,
        target: &Target<SitePath>,
        overlay: &mut Overlay<'_>,
        stage: &mut Stage,
        moves_later: impl Fn(&SitePath) -> bool,
    ) -> Result<(), Stop> {
        match target {
            Target::Modify(path) => {
                let held = overlay.file(path, AT)?;
                let changed = self.changed(path, &held, overlay)?;
                stage.remember(path, Before::Changed(held));
                Ok(overlay.put(path, AT, changed)?)
            }
            Target::Create(path) => {
                self.make_room(path, overlay, stage, moves_later)?;
                let new = Held {
                    content: Rc::default(),
                    executable: false,
                    origin: None,
                    pristine: false,
                };
                let made = self.changed(path, &new, overlay)?;
                Ok(overlay.put(path, AT, made)?)
            }
            Target::Delete(path) => {
                let held = overlay.file(path, AT)?;
                self.check_deletes_all(path, &held, overlay)?;
                stage.remember(path, Before::Gone(held));
                overlay.remove(path);
                Ok(())
            }
            Target::Rename { from, to } => {
                let displaced = stage.file_before(from);
                let in_place = displaced.is_none();
                let held = displaced.map_or_else(|| overlay.file(from, AT), Ok)?;
                let moved = self.changed(from, &held, overlay)?;
                if in_place {
                    stage.remember(from, Before::Gone(held));
                    overlay.remove(from);
                }
                self.make_room(to, overlay, stage, moves_later)?;
                Ok(overlay.put(to, AT, moved)?)
            }
            Target::Copy { from, to } => {
                let held = stage
                    .file_before(from)
                    .map_or_else(|| overlay.file(from, AT), Ok)?;
                let copied = Held {
                    origin: None,
                    pristine: false,
                    ..self.changed(from, &held, overlay)?
                };
                self.make_room(to, overlay, stage, moves_later)?;
                Ok(overlay.put(to, AT, copied)?)
            }
        }
    }

    /// Sees that nothing is at `path`, or only what a later file of the same stage moves away.
    fn make_room(
        &self,
        path: &SitePath,
        overlay: &mut Overlay<'_>,
        stage: &mut Stage,
        moves_later: impl Fn(&SitePath) -> bool,
    ) -> Result<(), Stop> {
        match overlay.look(path, AT)? {
            Place::Nothing => {
                stage.remember(path, Before::Nothing);
                Ok(())
            }
            Place::File(held) if moves_later(path) && stage.file_before(path).is_none() => {
                stage.remember(path, Before::Displaced(held));
                Ok(())
            }
            Place::File(_) => {
                let what = format!("exists already (line {} of the patch makes it).", self.line);
                Err(Fault::of(path, AT, ErrorCode::FileExists, what).into())
            }
            other => Err(not_a_file(path, AT, &other).into()),
        }
    }

    /// Sees that the patch deletes exactly what is there.
    fn check_deletes_all(
        &self,
        path: &SitePath,
        held: &Held,
        overlay: &Overlay<'_>,
    ) -> Result<(), Fault> {
        let what = match &self.body {
            Body::None if !held.content.is_empty() => {
                "is not empty, and the patch does not say what it deletes."
            }
            _ if !self.changed(path, held, overlay)?.content.is_empty() => {
                "has more than what the patch deletes."
            }
            _ => return Ok(()),
        };
        Err(Fault::of(path, AT, ErrorCode::PatchFailed, what))
    }

    /// The file with this patch's lines and mode.
    fn changed(&self, path: &SitePath, held: &Held, overlay: &Overlay<'_>) -> Result<Held, Fault> {
        let mut changed = held.clone();
        if let Some(mode) = self.mode.as_ref().and_then(|modes| modes.new.as_deref()) {
            changed.executable = mode == "100755";
        }
        let content = match &self.body {
            Body::None => return Ok(changed),
            Body::Hunks(hunks) => {
                refuse_lfs(path, AT, held)?;
                hunks::apply(path, &held.content, hunks)?
            }
            Body::Binary { forward, reverse } => {
                refuse_lfs(path, AT, held)?;
                changed_bytes(
                    path,
                    &held.content,
                    forward,
                    reverse,
                    overlay.limits().file_bytes,
                )?
            }
        };
        if content != *held.content {
            changed.content = Rc::new(content);
            changed.pristine = false;
        }
        Ok(changed)
    }
}

/// Applies both directions of a binary patch: the second proves that the first was made for these bytes.
fn changed_bytes(
    path: &SitePath,
    content: &[u8],
    forward: &Block,
    reverse: &Block,
    max_bytes: usize,
) -> Result<Vec<u8>, Fault> {
    let fault = |why: binary::Undecodable| {
        let (code, what) = match why {
            binary::Undecodable::TooLarge(_) => (
                ErrorCode::LimitExceeded,
                format!("{why}; one file may have at most {max_bytes} (maxFileBytes)."),
            ),
            _ => (ErrorCode::PatchFailed, format!("{why}.")),
        };
        Fault::of(path, AT, code, what)
    };
    let changed = forward.apply(content, max_bytes).map_err(fault)?;
    // The way back may be larger than what may be written now, but is never larger than what is there.
    let back = reverse
        .apply(&changed, max_bytes.max(content.len()))
        .map_err(fault)?;
    if back == content {
        Ok(changed)
    } else {
        Err(fault(binary::Undecodable::OtherVersion))
    }
}

fn refused_mode(path: &SitePath, mode: &str) -> Option<Fault> {
    let (code, what) = match mode {
        "100644" | "100755" => return None,
        "120000" => (
            ErrorCode::PathNotAllowed,
            "is a symbolic link in the patch.".to_owned(),
        ),
        "160000" => (
            ErrorCode::UnsupportedFile,
            "is a submodule in the patch.".to_owned(),
        ),
        other => (
            ErrorCode::PatchFailed,
            format!(
                "has the mode {}; only 100644 and 100755 are known.",
                quote(other)
            ),
        ),
    };
    Some(Fault::of(path, AT, code, what))
}

impl Hunk<'_> {
    /// Whether on each side only the last line can lack its newline.
    fn ends_once(&self) -> bool {
        [Side::Old, Side::New].iter().all(|other| {
            let mut side = self.lines.iter().filter(|line| line.side != *other);
            side.next_back();
            side.all(|line| line.terminated)
        })
    }
}

impl<P> Target<P> {
    fn try_map<Q, E>(self, mut map: impl FnMut(P) -> Result<Q, E>) -> Result<Target<Q>, E> {
        Ok(match self {
            Self::Modify(path) => Target::Modify(map(path)?),
            Self::Create(path) => Target::Create(map(path)?),
            Self::Delete(path) => Target::Delete(map(path)?),
            Self::Rename { from, to } => Target::Rename {
                from: map(from)?,
                to: map(to)?,
            },
            Self::Copy { from, to } => Target::Copy {
                from: map(from)?,
                to: map(to)?,
            },
        })
    }
}
