//! Carrying out the files of a patch on the overlay, and what each of them sees of the others.

use std::collections::BTreeMap;
use std::rc::Rc;

use contract::{ErrorCode, SitePath};

use super::super::fault::{Fault, Stop};
use super::super::overlay::{Held, Overlay, Place, not_a_file, refuse_lfs};
use super::binary::{Block, Undecodable};
use super::{AT, Body, FilePatch, Target, hunks};

/// A part of a patch in which every file is described as it was before.
#[derive(Debug, Default)]
pub(super) struct Stage {
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
    pub(super) fn enter(&mut self, message: usize, target: &Target<SitePath>) {
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
    /// Carries out what the patch says about one file. `moves_later`: whether a later file of the stage moves this path
    /// away.
    pub(super) fn carry_out(
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
        overlay: &mut Overlay<'_>,
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
    fn changed(
        &self,
        path: &SitePath,
        held: &Held,
        overlay: &mut Overlay<'_>,
    ) -> Result<Held, Fault> {
        let mut changed = held.clone();
        if let Some(mode) = self.mode.as_ref().and_then(|modes| modes.new.as_deref()) {
            changed.executable = mode == "100755";
        }
        let content = match &self.body {
            Body::None => return Ok(changed),
            Body::Hunks(hunks) => {
                refuse_lfs(path, AT, held)?;
                // Every line is looked at, and in the worst case hashed.
                overlay.spend(path, AT, held.content.len() * 4)?;
                hunks::apply(path, &held.content, hunks)?
            }
            Body::Binary { forward, reverse } => {
                refuse_lfs(path, AT, held)?;
                let max_bytes = overlay.limits().file_bytes;
                let content = changed_bytes(path, &held.content, forward, reverse, max_bytes)?;
                overlay.spend(path, AT, held.content.len() + content.len())?;
                content
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
    let fault = |why: Undecodable| {
        let (code, what) = match why {
            Undecodable::TooLarge(_) => (
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
        Err(fault(Undecodable::OtherVersion))
    }
}
