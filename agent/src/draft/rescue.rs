//! Parking: what the remote does not take when an environment stops, kept where the next one finds it.
//!
//! ```text
//!   remote's tip ── our commits that were not pushed ── one commit more, with what was changed by hand
//!                                                        ▲
//!                      refs/edit/rescue/<thread>/<generation> of the remote, or a git bundle
//! ```
//!
//! All of it hangs on one commit whose first parent is the draft's tip, so that where the tip was and what was changed by hand
//! can be read from the commit itself: a record that was lost with the environment takes nothing with it. It stands on a ref
//! of the client's own remote; where that cannot be had, it becomes a bundle, which git's command line reads as well, and the
//! caller keeps it. Nothing that is parked is ever overwritten: a ref that is taken gets a neighbour.
//!
//! Taking up brings the commits back onto the draft as it is by then, without those whose instructions have landed meanwhile.
//! The hand's files are no commit and become none: the caller writes them into the work tree as what they were. Whatever does not fit is
//! said, and stays where it is parked, until [`Draft::forget_parked`].

use std::collections::{BTreeSet, HashSet};
use std::io::Write as _;
use std::path::PathBuf;

use contract::session::{Parked, ParkedAt};
use contract::{Generation, Timestamp};
use git2::{FileMode, Oid};

use super::proposal::Held;
use super::replant::{Picked, pick};
use super::{
    COMMITTER, Draft, DraftError, HISTORY_MAX, Node, PUBLISHED_REFERENCE, PathChange, commit_id,
    commit_message, ledger, remote,
};
use crate::change_set::revert;

/// Below it, for each draft and generation, what was parked.
const RESCUE_REFERENCES: &str = "refs/edit/rescue";
/// The trailer that makes a commit one of these. The ledger takes it for no instruction.
const RESCUE_TRAILER: &str = "Edit-Rescue";
/// The trailer that names the commit on which what was not pushed stands.
const BASE_TRAILER: &str = "Edit-Rescue-Base";
/// Neighbours of one name that are tried: an environment parks once, and again only if it died while it did.
const NEIGHBOURS_MAX: u32 = 8;
/// The first line of a bundle that every git reads.
const BUNDLE_HEAD: &[u8] = b"# v2 git bundle\n";

/// What parked work is called.
#[derive(Debug, Clone)]
pub(crate) struct RescueName {
    /// Whose it is: each generation has its own.
    pub(crate) generation: Generation,
    /// What a bundle of it is called, if it becomes one: the key of an object, or the name of a file.
    pub(crate) bundle: String,
    /// Whether the remote is asked first. It is not worth the time where it has just not answered.
    pub(crate) ask_remote: bool,
}

/// What became of work that was to be parked.
#[derive(Debug)]
pub(crate) enum Parking {
    /// There was none: the remote has everything, and nothing was changed by hand.
    Nothing,
    /// It is on the remote, which was asked.
    Ref(Parked),
    /// The remote could not take it. It is nowhere until the caller has kept these bytes.
    Bundle {
        /// What is to be noted once they are kept.
        parked: Parked,
        /// A git bundle.
        bytes: Vec<u8>,
        /// Why it is not on the remote.
        why: String,
    },
}

/// What came of taking up what was parked.
#[derive(Debug, Default)]
pub(crate) struct TakenUp {
    /// How many commits came back onto the draft.
    pub(crate) commits: usize,
    /// What the files that were changed by hand are to be, as changes by hand on what the draft is now.
    pub(crate) files: Vec<PathChange>,
    /// What does not fit. It is still where it was parked.
    pub(crate) left: Vec<LeftBehind>,
}

/// Work that could not be parked, or not be taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftBehind {
    /// A path of the repository, or the first line of a commit.
    pub(crate) what: String,
    /// Why, as the rest of a sentence.
    pub(crate) why: String,
}

impl Draft {
    /// Puts what the remote does not have, and what was changed by hand, where the next environment finds it. The draft itself is
    /// unchanged.
    pub(crate) fn park(
        &self,
        by_hand: &[PathChange],
        name: &RescueName,
    ) -> Result<Parking, DraftError> {
        let tip = self.tip()?;
        let commits = self.unpushed_commits()?.len();
        let tree = self.tree_by_hand(tip, by_hand)?;
        let (before, after) = (self.tree_of(tip)?, self.tree_object(tree)?);
        let files: Vec<String> = self
            .deltas(Some(&before), Some(&after))?
            .into_iter()
            .map(|delta| delta.path.to_string_lossy().into_owned())
            .collect();
        if commits == 0 && files.is_empty() {
            return Ok(Parking::Nothing);
        }
        let commit = self.write_rescue(tip, tree, commits, files.len(), name.generation)?;
        let parked = |place| Parked {
            place,
            commit: commit_id(commit),
            commits: u32::try_from(commits).unwrap_or(u32::MAX),
            files: files.clone(),
            at: Timestamp::now(),
        };
        let refused = if name.ask_remote {
            match self.park_on_remote(commit, name.generation) {
                Ok(Ok(reference)) => return Ok(Parking::Ref(parked(ParkedAt::Ref(reference)))),
                Ok(Err(reason)) => reason,
                Err(error) => crate::chain(&error),
            }
        } else {
            "it did not answer before".to_owned()
        };
        let reference = format!("{}{}", self.rescue_beginning(), name.generation.0);
        Ok(Parking::Bundle {
            bytes: self.bundle(commit, &reference)?,
            parked: parked(ParkedAt::Bundle(name.bundle.clone())),
            why: refused,
        })
    }

    /// What is parked of this draft on the remote: also where the record of it was lost. Newest first: of
    /// two that do not go together the one that is taken up first counts, and the newer one was made with the older one at hand.
    pub(crate) fn parked_on_remote(&self) -> Result<Vec<Parked>, DraftError> {
        let beginning = self.rescue_beginning();
        let mut found = Vec::new();
        for (reference, _) in self.remote.references(&self.repository, &beginning)? {
            let Some(commit) = self.remote.fetch_reference(&self.repository, &reference)? else {
                continue;
            };
            // Whoever may push may put anything there.
            if let Some(rescue) = self.rescue(commit)? {
                let files = self.files_by_hand(&rescue)?;
                let parked = Parked {
                    place: ParkedAt::Ref(reference),
                    commit: commit_id(commit),
                    commits: u32::try_from(self.parked_commits(&rescue)?.len()).unwrap_or(u32::MAX),
                    files: files.into_iter().map(|file| file.path).collect(),
                    at: rescue.at,
                };
                found.push((rescue.generation, parked));
            }
        }
        found.sort_by_key(|(generation, parked)| std::cmp::Reverse((*generation, parked.at)));
        Ok(found.into_iter().map(|(_, parked)| parked).collect())
    }

    /// Brings back what was parked: commits onto the draft, files to whoever writes them. To do it twice is to do it once.
    pub(crate) fn take_up_parked(
        &mut self,
        parked: &Parked,
        bundle: Option<&[u8]>,
    ) -> Result<TakenUp, DraftError> {
        let commit = self.fetch_parked(parked, bundle)?;
        let gone = |why: &str| gone(parked, why);
        let rescue = self
            .rescue(commit)?
            .ok_or_else(|| gone("there is something else"))?;
        let mut taken = TakenUp::default();
        self.bring_back(&rescue, &mut taken)?;
        self.follow_tip()?;
        let tip = self.tip()?;
        for file in self.files_by_hand(&rescue)? {
            match self.fitted(tip, &file)? {
                Ok(Some(after)) => taken.files.push(PathChange {
                    path: file.path,
                    after,
                }),
                Ok(None) => {}
                Err(why) => taken.left.push(LeftBehind {
                    what: file.path,
                    why: why.to_owned(),
                }),
            }
        }
        Ok(taken)
    }

    /// Removes the ref of what was parked, if it still is what we put there. To be asked for when it is safe elsewhere: taken up, and
    /// then pushed or parked anew. Returns whether it is gone; a bundle is the caller's.
    pub(crate) fn forget_parked(&self, parked: &Parked) -> Result<bool, DraftError> {
        let ParkedAt::Ref(reference) = &parked.place else {
            return Ok(false);
        };
        if !reference.starts_with(&self.rescue_beginning()) {
            return Ok(false);
        }
        match self.remote.reference_tip(&self.repository, reference)? {
            None => return Ok(true),
            Some(found) if commit_id(found) != parked.commit => return Ok(false),
            Some(found) => self
                .remote
                .delete_reference(&self.repository, reference, found)?,
        };
        let left = self.remote.reference_tip(&self.repository, reference)?;
        Ok(left.is_none())
    }

    /// The tree of a commit with what was changed by hand.
    fn tree_by_hand(&self, on: Oid, by_hand: &[PathChange]) -> Result<Oid, DraftError> {
        let mut edits = Vec::new();
        for change in by_hand {
            // What came to be as the draft has it is nobody's work, and what is not there cannot be removed.
            if self.node(on, &change.path)? == change.after {
                continue;
            }
            let held = match &change.after {
                Node::Absent => None,
                Node::File(version) => Some(self.write_version(version)?),
                Node::Symlink(target) => Some(Held {
                    id: self
                        .repository
                        .blob(target)
                        .map_err(|source| self.local("write a file into the draft", source))?,
                    mode: FileMode::Link.into(),
                }),
                // Its content is in a repository of its own.
                Node::Submodule => continue,
            };
            edits.push((PathBuf::from(&change.path), held));
        }
        let baseline = self.tree_of(on)?;
        if edits.is_empty() {
            return Ok(baseline.id());
        }
        self.edited_tree(&baseline, &edits)
    }

    fn write_rescue(
        &self,
        tip: Oid,
        tree: Oid,
        commits: usize,
        files: usize,
        generation: Generation,
    ) -> Result<Oid, DraftError> {
        let base = self.pushed_tip()?;
        let message = format!(
            "Work that could not be pushed\n\n\
             Parked when the edit environment stopped: {commits} commits of {} that the remote\n\
             did not have, and below this one {files} files that were changed by hand.\n\n\
             {RESCUE_TRAILER}: {}\n{BASE_TRAILER}: {base}\n",
            self.draft_branch, generation.0
        );
        let write = || -> Result<Oid, git2::Error> {
            let us = git2::Signature::now(COMMITTER.0, COMMITTER.1)?;
            let tree = self.repository.find_tree(tree)?;
            let parent = self.repository.find_commit(tip)?;
            self.repository
                .commit(None, &us, &us, &message, &tree, &[&parent])
        };
        write().map_err(|source| self.local("park what could not be pushed", source))
    }

    /// Pushes to a ref that is not taken, and proves it. What the remote says against it is no error.
    fn park_on_remote(
        &self,
        commit: Oid,
        generation: Generation,
    ) -> Result<Result<String, String>, DraftError> {
        let beginning = self.rescue_beginning();
        let taken: HashSet<String> = self
            .remote
            .references(&self.repository, &beginning)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let neighbours = (2..=NEIGHBOURS_MAX).map(|number| format!("-{number}"));
        let Some(reference) = std::iter::once(String::new())
            .chain(neighbours)
            .map(|suffix| format!("{beginning}{}{suffix}", generation.0))
            .find(|name| !taken.contains(name))
        else {
            return Ok(Err("too much of this generation is parked there".to_owned()));
        };
        self.repository
            .reference(&reference, commit, true, "parked")
            .map_err(|source| self.local("park what could not be pushed", source))?;
        let refusal =
            self.remote
                .push_reference(&self.repository, &reference, &reference, commit, None)?;
        if self.remote.reference_tip(&self.repository, &reference)? == Some(commit) {
            return Ok(Ok(reference));
        }
        Ok(Err(refusal.unwrap_or_else(|| {
            "it took the ref and does not have it".to_owned()
        })))
    }

    /// Where this draft's refs begin.
    fn rescue_beginning(&self) -> String {
        let thread = self
            .draft_branch
            .strip_prefix("edit/")
            .unwrap_or(&self.draft_branch);
        format!("{RESCUE_REFERENCES}/{thread}/")
    }

    /// Everything that `commit` needs and the remote did not have when it was last seen, as a bundle.
    fn bundle(&self, commit: Oid, reference: &str) -> Result<Vec<u8>, DraftError> {
        let write = || -> Result<Vec<u8>, git2::Error> {
            // What was once pushed and is not there any more is no help to a fresh clone.
            let seen = [&self.draft_branch, &self.published_branch].map(|branch| {
                remote::reference_target(&self.repository, &Self::seen_reference(branch))
            });
            let mut walk = self.repository.revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL)?;
            walk.push(commit)?;
            for tip in seen {
                if let Some(tip) = tip? {
                    walk.hide(tip)?;
                }
            }
            let inside = walk.collect::<Result<Vec<Oid>, _>>()?;
            let known: HashSet<Oid> = inside.iter().copied().collect();
            let mut needed = BTreeSet::new();
            for id in &inside {
                let parents = self.repository.find_commit(*id)?;
                needed.extend(parents.parent_ids().filter(|id| !known.contains(id)));
            }
            let mut bytes = BUNDLE_HEAD.to_vec();
            for id in &needed {
                bytes.extend(format!("-{id} what the remote has\n").bytes());
            }
            bytes.extend(format!("{commit} {reference}\n\n").bytes());

            let mut walk = self.repository.revwalk()?;
            walk.push(commit)?;
            for id in &needed {
                walk.hide(*id)?;
            }
            let mut builder = self.repository.packbuilder()?;
            builder.insert_walk(&mut walk)?;
            let mut pack = git2::Buf::new();
            builder.write_buf(&mut pack)?;
            bytes.extend_from_slice(&pack);
            Ok(bytes)
        };
        write().map_err(|source| self.local("bundle what could not be pushed", source))
    }

    /// Gets what was parked into the clone.
    fn fetch_parked(&self, parked: &Parked, bundle: Option<&[u8]>) -> Result<Oid, DraftError> {
        let commit = Oid::from_str(parked.commit.as_str())
            .map_err(|source| self.local("read a commit", source))?;
        let is_here = || self.repository.find_commit(commit).is_ok();
        match (&parked.place, bundle) {
            (ParkedAt::Ref(reference), _) => {
                if !reference.starts_with(&self.rescue_beginning()) {
                    return Err(gone(parked, "it is no ref of this draft"));
                }
                self.remote.fetch_reference(&self.repository, reference)?;
            }
            (ParkedAt::Bundle(_), Some(bytes)) if !is_here() => self.unpack(parked, bytes)?,
            (ParkedAt::Bundle(_), _) => {}
        }
        if is_here() {
            Ok(commit)
        } else {
            Err(gone(parked, "there is no such commit"))
        }
    }

    fn unpack(&self, parked: &Parked, bundle: &[u8]) -> Result<(), DraftError> {
        let gone = |why: &str| gone(parked, why);
        let rest = bundle
            .strip_prefix(BUNDLE_HEAD)
            .ok_or_else(|| gone("it is no git bundle"))?;
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\n\n")
            .ok_or_else(|| gone("the bundle is cut off"))?;
        let head = String::from_utf8_lossy(&rest[..end]);
        for needed in head.lines().filter_map(|line| line.strip_prefix('-')) {
            let id = needed.split(' ').next().unwrap_or_default();
            let is_here = Oid::from_str(id).is_ok_and(|id| self.repository.find_commit(id).is_ok());
            if !is_here {
                return Err(gone(&format!(
                    "it stands on the commit {id}, which the repository does not have any more"
                )));
            }
        }
        let write = || -> Result<(), git2::Error> {
            let database = self.repository.odb()?;
            let mut writer = database.packwriter()?;
            writer
                .write_all(&rest[end + 2..])
                .map_err(|error| git2::Error::from_str(&error.to_string()))?;
            writer.commit()?;
            Ok(())
        };
        // It is the bundle that is broken: a full disk says so in its own words.
        write().map_err(|source| self.local("unpack what was parked", source))
    }

    /// Reads a commit as one of these; none if it is another.
    fn rescue(&self, commit: Oid) -> Result<Option<Rescue>, DraftError> {
        let object = self.commit_object(commit)?;
        let message = String::from_utf8_lossy(object.message_bytes()).into_owned();
        let value_of = |trailer: &str| {
            message
                .lines()
                .find_map(|line| line.strip_prefix(trailer)?.strip_prefix(": "))
        };
        let generation = value_of(RESCUE_TRAILER).and_then(|number| number.trim().parse().ok());
        let (Some(generation), Ok(tip)) = (generation, object.parent_id(0)) else {
            return Ok(None);
        };
        Ok(Some(Rescue {
            generation: Generation(generation),
            tip,
            tree: object.tree_id(),
            base: value_of(BASE_TRAILER).and_then(|id| Oid::from_str(id.trim()).ok()),
            at: Timestamp::from_unix_ms(object.time().seconds().saturating_mul(1000)),
        }))
    }

    /// The draft's commits that were parked and that neither the remote nor the draft has, oldest first.
    fn parked_commits(&self, rescue: &Rescue) -> Result<Vec<Oid>, DraftError> {
        let read = || -> Result<Vec<Oid>, git2::Error> {
            let mut walk = self.repository.revwalk()?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::REVERSE)?;
            walk.simplify_first_parent()?;
            walk.push(rescue.tip)?;
            if let Some(base) = rescue.base
                && self.repository.find_commit(base).is_ok()
            {
                walk.hide(base)?;
            }
            for reference in [
                self.local_reference(),
                PUBLISHED_REFERENCE.to_owned(),
                Self::seen_reference(&self.draft_branch),
                Self::seen_reference(&self.published_branch),
            ] {
                if let Some(known) = remote::reference_target(&self.repository, &reference)? {
                    walk.hide(known)?;
                }
            }
            walk.take(HISTORY_MAX).collect()
        };
        read().map_err(|source| self.local("read what was parked", source))
    }

    /// What was parked of the work tree.
    fn files_by_hand(&self, rescue: &Rescue) -> Result<Vec<super::Move>, DraftError> {
        self.moves(self.tree_id(rescue.tip)?, rescue.tree)
    }

    /// Puts the commits on top of the draft.
    fn bring_back(&self, rescue: &Rescue, taken: &mut TakenUp) -> Result<(), DraftError> {
        let commits = self.parked_commits(rescue)?;
        let tip = self.tip()?;
        let instructions = |tip: Option<Oid>| -> Result<HashSet<_>, DraftError> {
            let Some(tip) = tip else {
                return Ok(HashSet::new());
            };
            let marks = ledger::marks(&self.repository, tip, rescue.base_in(&self.repository))
                .map_err(|source| self.local("read history", source))?;
            Ok(marks
                .into_iter()
                .map(|mark| mark.trailers.instruction_id)
                .collect())
        };
        let mut there = instructions(Some(tip))?;
        there.extend(instructions(self.published_tip()?)?);
        let mut onto = tip;
        let mut rest = commits.into_iter();
        for commit in rest.by_ref() {
            let object = self.commit_object(commit)?;
            let instruction = commit_message::instruction_of(object.message_bytes());
            if instruction.is_some_and(|instruction| there.contains(&instruction)) {
                continue;
            }
            // One that stands where it is to stand is itself.
            if object.parent_id(0).ok() == Some(onto) {
                onto = commit;
                taken.commits += 1;
                continue;
            }
            match pick(self, commit, onto)? {
                Picked::Clean(id) => {
                    onto = id;
                    taken.commits += 1;
                }
                Picked::Conflict(files) => {
                    let why = format!(
                        "somebody else changed the same lines of {} meanwhile",
                        files.join(", ")
                    );
                    taken.left.push(self.left_commit(commit, why)?);
                    break;
                }
            }
        }
        for commit in rest {
            let why = "it stands on a commit that does not fit".to_owned();
            taken.left.push(self.left_commit(commit, why)?);
        }
        if onto != tip {
            self.set_tip(onto, "take up what was parked")?;
        }
        Ok(())
    }

    fn left_commit(&self, commit: Oid, why: String) -> Result<LeftBehind, DraftError> {
        let what = self.commit_object(commit)?;
        let what = what.summary_bytes().unwrap_or_default();
        Ok(LeftBehind {
            what: String::from_utf8_lossy(what).into_owned(),
            why,
        })
    }

    /// What a file that was changed by hand is to be on what the draft is now; nothing if it is that already.
    fn fitted(
        &self,
        tip: Oid,
        file: &super::Move,
    ) -> Result<Result<Option<Node>, &'static str>, DraftError> {
        const OVERLAP: &str = "the draft has changed the same place meanwhile";
        let present = self.node(tip, &file.path)?;
        if present == file.after {
            return Ok(Ok(None));
        }
        if present == file.before {
            return Ok(Ok(Some(file.after.clone())));
        }
        let version = |node: &Node| match node {
            Node::Absent => Some(None),
            Node::File(version) => Some(Some(version.clone())),
            Node::Symlink(_) | Node::Submodule => None,
        };
        let (Some(base), Some(present), Some(asked)) = (
            version(&file.before),
            version(&present),
            version(&file.after),
        ) else {
            return Ok(Err(OVERLAP));
        };
        let path = self.site_path(std::path::Path::new(&file.path));
        let merged = revert::merged(&path, base.as_ref(), present.as_ref(), asked.as_ref());
        Ok(match merged {
            Ok(merged) if merged == present => Ok(None),
            Ok(merged) => Ok(Some(merged.map_or(Node::Absent, Node::File))),
            Err(revert::Overlap) => Err(OVERLAP),
        })
    }
}

/// A commit that parks.
#[derive(Debug)]
struct Rescue {
    /// Who parked it.
    generation: Generation,
    /// The draft's tip as it was.
    tip: Oid,
    /// That with what was changed by hand.
    tree: Oid,
    /// On which commit of the remote what was not pushed stands.
    base: Option<Oid>,
    /// When it was parked.
    at: Timestamp,
}

impl Rescue {
    /// The base, if the repository has it.
    fn base_in(&self, repository: &git2::Repository) -> Option<Oid> {
        self.base
            .filter(|base| repository.find_commit(*base).is_ok())
    }
}

fn gone(parked: &Parked, why: &str) -> DraftError {
    let (ParkedAt::Ref(place) | ParkedAt::Bundle(place)) = &parked.place;
    DraftError::ParkedGone {
        place: place.clone(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::change_set::Version;
    use crate::draft::scene::{Scene, edit, instruct, read};
    use crate::draft::{Credentials, Remote, Round, Settings};

    fn name(generation: u64) -> RescueName {
        RescueName {
            generation: Generation(generation),
            bundle: format!("amelia/{generation}.bundle"),
            ask_remote: true,
        }
    }

    fn text(content: &str) -> Node {
        Node::File(Version {
            content: content.into(),
            executable: false,
        })
    }

    /// `-` stands for a file that was removed.
    fn by_hand(files: &[(&str, &str)]) -> Vec<PathChange> {
        let change = |(path, content): &(&str, &str)| PathChange {
            path: (*path).to_owned(),
            after: match *content {
                "-" => Node::Absent,
                content => text(content),
            },
        };
        files.iter().map(change).collect()
    }

    fn on_remote(parking: Parking) -> Parked {
        match parking {
            Parking::Ref(parked) => parked,
            other => panic!("{other:?}"),
        }
    }

    /// Nobody may make our refs there any more.
    fn refuse_our_refs(scene: &Scene) {
        fs::write(scene.remote.path().join("refs/edit"), "").expect("written");
    }

    #[test]
    fn what_was_parked_is_what_a_fresh_clone_takes_up() {
        let scene = Scene::with(&[("a.txt", "a\n"), ("b.txt", "b\n"), ("link", "x")]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("c.txt", "c\n")]);
        draft.push_once().expect("pushed");
        edit(&mut draft, "i-2", &[("a.txt", "two\n")]);
        let tip = edit(&mut draft, "i-3", &[("d/e.txt", "e\n")]);
        let mut hands = by_hand(&[("b.txt", "-"), ("new/f.txt", "f\n"), ("a.txt", "mine\n")]);
        hands.push(PathChange {
            path: "link".to_owned(),
            after: Node::Symlink(b"a.txt".to_vec()),
        });
        let parked = on_remote(draft.park(&hands, &name(7)).expect("parked"));
        assert_eq!(
            parked.place,
            ParkedAt::Ref("refs/edit/rescue/local/7".to_owned())
        );
        assert_eq!(parked.commits, 2);
        assert_eq!(parked.files, ["a.txt", "b.txt", "link", "new/f.txt"]);
        assert_eq!(draft.tip().expect("a tip"), tip, "the draft is as it was");
        assert_eq!(scene.read("edit/local", "d/e.txt"), None);

        let mut fresh = scene.draft_of("edit/local", "fresh.git");
        assert_eq!(fresh.parked_on_remote().expect("read").len(), 1);
        let taken = fresh.take_up_parked(&parked, None).expect("taken up");
        assert_eq!(fresh.tip().expect("a tip"), tip);
        assert_eq!((taken.commits, taken.left), (2, Vec::new()));
        hands.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(taken.files, hands);
        assert!(fresh.landed(&"i-3".parse().expect("an id")).is_some());
        let no_instruction = fresh.history().expect("read").entries;
        assert_eq!(no_instruction.len(), 3, "parking is no instruction");

        // We die before it is noted: the next one finds the same.
        let mut again = scene.draft_of("edit/local", "again.git");
        let found = again.parked_on_remote().expect("read");
        assert_eq!(found[0].commit, parked.commit);
        assert_eq!((found[0].commits, &found[0].files), (2, &parked.files));
        again.take_up_parked(&found[0], None).expect("taken up");
        let taken = again.take_up_parked(&found[0], None).expect("and again");
        assert_eq!((taken.commits, taken.files), (0, hands));
        assert_eq!(again.tip().expect("a tip"), tip);
    }

    #[test]
    fn what_a_server_refuses_becomes_a_bundle_that_git_reads() {
        let scene = Scene::with(&[("a.txt", "a\n")]);
        let mut draft = scene.draft();
        let tip = edit(&mut draft, "i-1", &[("c.txt", "c\n")]);
        refuse_our_refs(&scene);
        let hands = by_hand(&[("a.txt", "mine\n")]);
        let (parked, bytes) = match draft.park(&hands, &name(3)).expect("parked") {
            Parking::Bundle { parked, bytes, why } => {
                assert!(why.contains("refs/edit"), "{why}");
                (parked, bytes)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(parked.place, ParkedAt::Bundle("amelia/3.bundle".to_owned()));
        assert_eq!(
            (parked.commits, &parked.files),
            (1, &vec!["a.txt".to_owned()])
        );

        // An operator with git alone gets at it.
        let bundle = scene.folder.path().join("a.bundle");
        fs::write(&bundle, &bytes).expect("written");
        let bundle = bundle.display().to_string();
        let clone = scene.folder.path().join("by-hand");
        let remote = scene.folder.path().join("remote").display().to_string();
        git(
            scene.folder.path(),
            &["clone", "--quiet", &remote, "by-hand"],
        );
        git(&clone, &["bundle", "verify", "--quiet", &bundle]);
        git(
            &clone,
            &[
                "fetch",
                "--quiet",
                &bundle,
                "refs/edit/rescue/local/3:rescued",
            ],
        );
        assert_eq!(git(&clone, &["show", "rescued:a.txt"]), "mine\n");
        assert_eq!(git(&clone, &["show", "rescued:c.txt"]), "c\n");
        git(&clone, &["fsck", "--strict"]);

        let mut fresh = scene.draft_of("edit/local", "fresh.git");
        let error = fresh
            .take_up_parked(&parked, None)
            .expect_err("where is it?");
        assert!(matches!(error, DraftError::ParkedGone { .. }), "{error}");
        let half = fresh.take_up_parked(&parked, Some(&bytes[..bytes.len() / 2]));
        half.expect_err("cut off");
        let taken = fresh
            .take_up_parked(&parked, Some(&bytes))
            .expect("taken up");
        assert_eq!(fresh.tip().expect("a tip"), tip);
        assert_eq!((taken.commits, taken.files), (1, hands));
        let round = fresh.push_once().expect("pushed");
        assert!(matches!(round, Round::Verified), "{round:?}");
    }

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .args(arguments)
            .output()
            .expect("git runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {words}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn a_remote_that_is_away_costs_nothing_but_a_bundle() {
        let scene = Scene::with(&[("a.txt", "a\n")]);
        let mut draft = scene.draft();
        instruct(&mut draft, "i-1");
        let (here, away) = (
            scene.folder.path().join("remote"),
            scene.folder.path().join("away"),
        );
        fs::rename(&here, &away).expect("away");
        let parking = draft.park(&[], &name(1)).expect("parked");
        let Parking::Bundle { parked, bytes, .. } = parking else {
            panic!("{parking:?}");
        };
        fs::rename(&away, &here).expect("back");
        let mut fresh = scene.draft_of("edit/local", "fresh.git");
        fresh
            .take_up_parked(&parked, Some(&bytes))
            .expect("taken up");
        assert_eq!(read(&fresh, "i-1").as_deref(), Some("i-1"));
    }

    #[test]
    fn a_server_keeps_it_and_gives_it_back_and_forgets_it() {
        let scene = Scene::with(&[("a.txt", "a\n")]);
        let server = |folder: &str| {
            let settings = Settings {
                remote: Remote::Server {
                    url: format!("file://{}", scene.folder.path().join("remote").display()),
                    credentials: Credentials::Secret(String::new()),
                },
                ..scene.settings("edit/local", folder)
            };
            Draft::open(&settings, &mut |_, _| ()).expect("open")
        };
        let mut draft = server("draft.git");
        instruct(&mut draft, "i-1");
        let hands = by_hand(&[("a.txt", "mine\n")]);
        let parked = on_remote(draft.park(&hands, &name(1)).expect("parked"));
        let mut fresh = server("fresh.git");
        assert_eq!(fresh.parked_on_remote().expect("read").len(), 1);
        let taken = fresh.take_up_parked(&parked, None).expect("taken up");
        assert_eq!((taken.commits, taken.files), (1, hands));
        assert!(fresh.forget_parked(&parked).expect("asked"));
        assert!(fresh.parked_on_remote().expect("read").is_empty());
        assert!(fresh.forget_parked(&parked).expect("asked"), "it is gone");
        let error = server("late.git")
            .take_up_parked(&parked, None)
            .expect_err("gone");
        assert!(matches!(error, DraftError::ParkedGone { .. }), "{error}");
    }

    #[test]
    fn what_is_there_is_never_overwritten_nor_what_others_put_there_removed() {
        let scene = Scene::with(&[("a.txt", "a\n")]);
        let draft = scene.draft();
        let park = |generation, content| {
            let hands = by_hand(&[("a.txt", content)]);
            on_remote(draft.park(&hands, &name(generation)).expect("parked"))
        };
        let parked = [park(1, "one\n"), park(2, "two\n"), park(2, "three\n")];
        let places: Vec<_> = parked.iter().map(|parked| &parked.place).collect();
        let expected =
            ["1", "2", "2-2"].map(|end| ParkedAt::Ref(format!("refs/edit/rescue/local/{end}")));
        assert_eq!(places, expected.iter().collect::<Vec<_>>());
        let mut fresh = scene.draft_of("edit/local", "fresh.git");
        for (parked, content) in parked.iter().zip(["one\n", "two\n", "three\n"]) {
            let taken = fresh.take_up_parked(parked, None).expect("taken up");
            assert_eq!(taken.files, by_hand(&[("a.txt", content)]));
        }
        let found = fresh.parked_on_remote().expect("read");
        assert_eq!(
            found.last().map(|parked| &parked.place),
            Some(&parked[0].place)
        );
        let main = scene.tip("main");
        scene
            .remote
            .reference("refs/edit/rescue/local/2", main, true, "somebody")
            .expect("moved");
        assert!(!draft.forget_parked(&parked[1]).expect("asked"));
        let branch = Parked {
            place: ParkedAt::Ref("refs/heads/main".to_owned()),
            commit: commit_id(main),
            ..parked[0].clone()
        };
        assert!(!draft.forget_parked(&branch).expect("asked"));
        let error = fresh
            .take_up_parked(&branch, None)
            .expect_err("no ref of ours");
        assert!(matches!(error, DraftError::ParkedGone { .. }), "{error}");
        assert_eq!(scene.tip("main"), main);
        // What is no work of ours is not taken for it.
        assert_eq!(draft.parked_on_remote().expect("read").len(), 2);
        assert!(matches!(
            draft.park(&by_hand(&[("a.txt", "a\n")]), &name(4)),
            Ok(Parking::Nothing)
        ));
    }

    #[test]
    fn others_went_on_meanwhile() {
        let scene = Scene::with(&[
            ("a.txt", "1\n2\n3\n4\n5\n"),
            ("b.txt", "b\n"),
            ("g.txt", "g\n"),
        ]);
        let mut draft = scene.draft();
        edit(&mut draft, "i-1", &[("c.txt", "c\n")]);
        draft.push_once().expect("pushed");
        edit(&mut draft, "landed", &[("d.txt", "d\n")]);
        edit(&mut draft, "fits", &[("e.txt", "e\n")]);
        edit(&mut draft, "collides", &[("c.txt", "ours\n")]);
        edit(&mut draft, "after", &[("f.txt", "f\n")]);
        let hands = by_hand(&[
            ("a.txt", "one\n2\n3\n4\n5\n"),
            ("b.txt", "mine\n"),
            ("g.txt", "-"),
        ]);
        let parked = on_remote(draft.park(&hands, &name(1)).expect("parked"));
        // The message came to somebody else, and others changed what we changed.
        scene.write(
            "edit/local",
            "Carried over\n\nEdit-Instruction: landed\nEdit-Session: s\n",
            &[("d.txt", "d\n")],
        );
        scene.write(
            "edit/local",
            "Theirs",
            &[
                ("a.txt", "1\n2\n3\n4\nfive\n"),
                ("b.txt", "theirs\n"),
                ("c.txt", "theirs\n"),
            ],
        );

        let mut fresh = scene.draft_of("edit/local", "fresh.git");
        let taken = fresh.take_up_parked(&parked, None).expect("taken up");
        assert_eq!(taken.commits, 1);
        assert_eq!(read(&fresh, "e.txt").as_deref(), Some("e\n"));
        assert_eq!(read(&fresh, "c.txt").as_deref(), Some("theirs\n"));
        assert_eq!(
            taken.files,
            by_hand(&[("a.txt", "one\n2\n3\n4\nfive\n"), ("g.txt", "-")])
        );
        let left: Vec<String> = taken
            .left
            .iter()
            .map(|left| format!("{}: {}", left.what, left.why))
            .collect();
        insta::assert_snapshot!(left.join("\n"), @r"
        Edit c.txt: somebody else changed the same lines of c.txt meanwhile
        Add f.txt: it stands on a commit that does not fit
        b.txt: the draft has changed the same place meanwhile
        ");
        // Twice is once, and what was left is still there.
        let tip = fresh.tip().expect("a tip");
        let again = fresh.take_up_parked(&parked, None).expect("taken up");
        assert_eq!((again.commits, again.left), (0, taken.left));
        assert_eq!(fresh.tip().expect("a tip"), tip);
        let round = fresh.push_once().expect("pushed");
        assert!(matches!(round, Round::Verified), "{round:?}");
        assert_eq!(fresh.parked_on_remote().expect("read").len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Whatever was committed and changed by hand, a fresh clone has both again: by the ref as by the bundle.
        #[test]
        fn parking_loses_nothing(
            commits in proptest::collection::vec(("[a-c](/[x-y])?\\.txt", "[a-z]{0,4}\n"), 0..4),
            hands in proptest::collection::btree_map("[a-c](/[x-y])?\\.txt", prop_oneof!["[A-Z]{0,4}\n", Just("-".to_owned())], 0..5),
            ask_remote in any::<bool>(),
        ) {
            let scene = Scene::with(&[("a.txt", "a\n"), ("b/x.txt", "x\n")]);
            let mut draft = scene.draft();
            for (number, (path, content)) in commits.iter().enumerate() {
                edit(&mut draft, &format!("i-{number}"), &[(path, content)]);
            }
            let hands: Vec<_> = hands.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
            let hands = by_hand(&hands);
            let tip = draft.tip().expect("a tip");
            let changed: Vec<_> = hands
                .iter()
                .filter(|change| draft.node(tip, &change.path).expect("read") != change.after)
                .cloned()
                .collect();
            let name = RescueName { ask_remote, ..name(1) };
            let (parked, bytes) = match draft.park(&hands, &name).expect("parked") {
                Parking::Nothing => {
                    prop_assert!(commits.is_empty() && changed.is_empty());
                    return Ok(());
                }
                Parking::Ref(parked) => (parked, None),
                Parking::Bundle { parked, bytes, .. } => (parked, Some(bytes)),
            };
            prop_assert_eq!(bytes.is_none(), ask_remote);
            let mut fresh = scene.draft_of("edit/local", "fresh.git");
            let taken = fresh.take_up_parked(&parked, bytes.as_deref()).expect("taken up");
            prop_assert_eq!(fresh.tip().expect("a tip"), tip);
            prop_assert_eq!(taken.files, changed);
            prop_assert!(taken.left.is_empty());
        }
    }
}
