//! One change carried out on the overlay: `write`, `replace`, `delete`, `move`, `patch` or `frontmatter`.
//!
//! | the author saw (`base`) | `write` | `replace` | `frontmatter` | `delete`, `move` |
//! |---|---|---|---|---|
//! | nothing, or what is there | direct | direct | direct | direct |
//! | another version | merged | direct if the count is right, else merged | direct if nobody changed the same keys | `stale` |
//! | a version nobody knows | `stale` | direct if the count is right, else `stale` | `stale` | `stale` |

use std::collections::BTreeMap;
use std::rc::Rc;

use contract::instruction::Content;
use contract::{BlobId, Change, ErrorCode, SitePath};

use super::fault::{Fault, Stop};
use super::front_matter::Edit;
use super::merge;
use super::overlay::{Held, Overlay, Place, not_a_file, refuse_lfs};
use super::patch::Patch;
use super::text::{Replacement, is_binary};

/// A change, ready to be carried out.
#[derive(Debug)]
pub(super) enum Step<'c> {
    /// A patch that was read.
    Patch(Patch<'c>),
    /// Any other change.
    Plain(&'c Change),
}

impl<'c> Step<'c> {
    /// Reads what has to be read before anything is carried out.
    pub(super) fn read(change: &'c Change) -> Result<Self, Vec<Fault>> {
        match change {
            Change::Patch { diff } => Patch::read(diff).map(Self::Patch),
            other => Ok(Self::Plain(other)),
        }
    }

    /// All paths it names, each with the member that names it.
    pub(super) fn paths(&self) -> Vec<(&SitePath, &'static str)> {
        match self {
            Self::Patch(patch) => patch
                .paths()
                .into_iter()
                .map(|path| (path, ".diff"))
                .collect(),
            Self::Plain(
                Change::Write { path, .. }
                | Change::Replace { path, .. }
                | Change::Delete { path, .. }
                | Change::Frontmatter { path, .. },
            ) => vec![(path, ".path")],
            Self::Plain(Change::Move { from, to, .. }) => vec![(from, ".from"), (to, ".to")],
            Self::Plain(Change::Patch { .. }) => Vec::new(),
        }
    }

    /// Carries it out, or says why not and leaves the overlay as it is, but for a patch of several files.
    pub(super) fn carry_out(
        &self,
        overlay: &mut Overlay<'_>,
        fetched: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), Stop> {
        let change = match self {
            Self::Patch(patch) => return patch.carry_out(overlay),
            Self::Plain(change) => change,
        };
        match change {
            Change::Write {
                path,
                content,
                base,
            } => {
                let content = bytes(path, content, fetched)?;
                write(overlay, path, content, base.as_ref())
            }
            Change::Replace {
                path,
                find,
                replace,
                expect,
                base,
            } => {
                let asked = Replacement {
                    find,
                    replace,
                    expect: *expect,
                };
                self::replace(overlay, path, asked, base.as_ref())
            }
            Change::Delete { path, base } => {
                let held = overlay.file(path, ".path")?;
                seen(path, &held, base.as_ref())?;
                overlay.remove(path);
                Ok(())
            }
            Change::Move { from, to, base } => move_file(overlay, from, to, base.as_ref()),
            Change::Frontmatter {
                path,
                set,
                unset,
                base,
            } => edit_front_matter(overlay, path, Edit { set, unset }, base.as_ref()),
            Change::Patch { diff } => Patch::read(diff).map_err(Stop::Faults)?.carry_out(overlay),
        }
    }
}

fn bytes<'c>(
    path: &SitePath,
    content: &'c Content,
    fetched: &'c BTreeMap<String, Vec<u8>>,
) -> Result<&'c [u8], Fault> {
    match content {
        Content::Inline(bytes) => Ok(bytes),
        Content::Url { url, .. } => fetched.get(url).map(Vec::as_slice).ok_or_else(|| {
            let what = "the bytes behind its `contentUrl` are not there.";
            Fault::of(path, ".contentUrl", ErrorCode::ContentUnavailable, what)
        }),
    }
}

fn write(
    overlay: &mut Overlay<'_>,
    path: &SitePath,
    content: &[u8],
    base: Option<&BlobId>,
) -> Result<(), Stop> {
    let held = match overlay.look(path, ".path")? {
        Place::File(held) => held,
        Place::Nothing if base.is_some() => {
            let what = "does not exist any more; the author saw a version of it.";
            return Err(stale(path, what).into());
        }
        Place::Nothing => {
            let new = Held {
                content: Rc::new(content.to_vec()),
                executable: false,
                origin: None,
                pristine: false,
            };
            return Ok(overlay.put(path, ".path", new)?);
        }
        other => return Err(not_a_file(path, ".path", &other).into()),
    };
    refuse_lfs(path, ".path", &held)?;
    if *held.content == content {
        return Ok(());
    }
    if is_what_was_seen(&held, base) {
        return rewrite(overlay, path, held, content.to_vec());
    }
    let base = base_content(overlay, path, base)?;
    if is_binary(content) || is_binary(&held.content) || is_binary(&base) {
        let what = "changed since the author saw it, and what is no text cannot be merged.";
        return Err(stale(path, what).into());
    }
    let merged = merge(overlay, path, &base, &held, content)?;
    rewrite(overlay, path, held, merged)
}

fn replace(
    overlay: &mut Overlay<'_>,
    path: &SitePath,
    asked: Replacement<'_>,
    base: Option<&BlobId>,
) -> Result<(), Stop> {
    let held = overlay.file(path, ".path")?;
    refuse_lfs(path, ".path", &held)?;
    overlay.spend(path, ".path", held.content.len() * 2)?;
    let limits = overlay.limits();
    let direct = asked.apply(path, &held.content, limits);
    let fault = match direct {
        Ok(content) => return rewrite(overlay, path, held, content),
        Err(fault) if is_what_was_seen(&held, base) => return Err(fault.into()),
        Err(fault) => fault,
    };
    if !matches!(fault.code, ErrorCode::FindNotFound | ErrorCode::FindCount) {
        return Err(fault.into());
    }
    let base = base_content(overlay, path, base)?;
    // What does not apply to what the author saw either was never right: the present file says best why.
    let theirs = asked.apply(path, &base, limits).map_err(|_| fault)?;
    let merged = merge(overlay, path, &base, &held, &theirs)?;
    rewrite(overlay, path, held, merged)
}

fn move_file(
    overlay: &mut Overlay<'_>,
    from: &SitePath,
    to: &SitePath,
    base: Option<&BlobId>,
) -> Result<(), Stop> {
    let held = overlay.file(from, ".from")?;
    seen(from, &held, base)?;
    // A pointer under another name may no longer be one for git-lfs.
    refuse_lfs(from, ".from", &held)?;
    if from == to {
        return Err(Fault::of(
            to,
            ".to",
            ErrorCode::FileExists,
            "is where the file already is.",
        )
        .into());
    }
    // The file makes room first: `a` can move to `a/b`.
    overlay.remove(from);
    let put = match overlay.look(to, ".to") {
        Ok(Place::File(_)) => {
            Err(Fault::of(to, ".to", ErrorCode::FileExists, "exists already.").into())
        }
        Ok(Place::Nothing) => overlay.put(to, ".to", held.clone()).map_err(Stop::from),
        Ok(other) => Err(not_a_file(to, ".to", &other).into()),
        Err(stop) => Err(stop),
    };
    if put.is_err() {
        overlay.restore(from, held);
    }
    put
}

fn edit_front_matter(
    overlay: &mut Overlay<'_>,
    path: &SitePath,
    edit: Edit<'_>,
    base: Option<&BlobId>,
) -> Result<(), Stop> {
    let held = overlay.file(path, ".path")?;
    refuse_lfs(path, ".path", &held)?;
    overlay.spend(path, ".path", edit.cost(&held.content))?;
    if !is_what_was_seen(&held, base) {
        let base = base_content(overlay, path, base)?;
        if let Some(key) = edit
            .collision(path, &base, &held.content)
            .map_err(Stop::Faults)?
        {
            let what = format!("{key} of its front matter changed since the author saw it.");
            return Err(stale(path, what).into());
        }
    }
    let content = edit.apply(path, &held.content).map_err(Stop::Faults)?;
    rewrite(overlay, path, held, content)
}

/// Gives a file another content, and keeps everything else of it.
fn rewrite(
    overlay: &mut Overlay<'_>,
    path: &SitePath,
    held: Held,
    content: Vec<u8>,
) -> Result<(), Stop> {
    if content == *held.content {
        return Ok(());
    }
    let changed = Held {
        content: Rc::new(content),
        pristine: false,
        ..held
    };
    Ok(overlay.put(path, ".path", changed)?)
}

/// Whether the file is, or was before this instruction, the version that the author saw.
fn is_what_was_seen(held: &Held, base: Option<&BlobId>) -> bool {
    base.is_none_or(|base| held.origin.as_ref() == Some(base))
}

fn seen(path: &SitePath, held: &Held, base: Option<&BlobId>) -> Result<(), Fault> {
    if is_what_was_seen(held, base) {
        return Ok(());
    }
    Err(stale(path, "changed since the author saw it."))
}

fn stale(path: &SitePath, what: impl std::fmt::Display) -> Fault {
    Fault::of(path, ".base", ErrorCode::Stale, what)
}

fn base_content(
    overlay: &Overlay<'_>,
    path: &SitePath,
    base: Option<&BlobId>,
) -> Result<Vec<u8>, Stop> {
    let content = match base {
        Some(base) => overlay.blob(base)?,
        None => None,
    };
    content.ok_or_else(|| {
        let what = "changed, and the version that the author saw is not known here.";
        stale(path, what).into()
    })
}

fn merge(
    overlay: &mut Overlay<'_>,
    path: &SitePath,
    base: &[u8],
    held: &Held,
    asked: &[u8],
) -> Result<Vec<u8>, Stop> {
    overlay.spend(path, ".base", merge::cost(base, &held.content, asked))?;
    merge::three_way(base, &held.content, asked).map_err(|overlap| {
        let what = format!("changed since the author saw it: {overlap}.");
        stale(path, what).into()
    })
}
