//! Which instructions have landed in the history of a commit, as its trailers say.
//!
//! Read once, and then only what is new or gone when the commit moves: after every instruction the draft asks what has
//! landed, and its history can be long.

use std::collections::{HashMap, HashSet};

use contract::{CommitId, InstructionId};
use git2::{Oid, Repository, Sort};

use super::commit_message::{self, Trailers};
use super::{HISTORY_MAX, commit_id};

/// The kind of action that takes another back.
pub(super) const UNDO: &str = "undo";

/// The kind of action that ends on the published branch, and that nothing takes back.
pub(super) const PUBLISH: &str = "publish";

/// The kind of action that brings in what others published.
pub(super) const SYNC: &str = "sync";

/// The instructions in the history of one commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// The commit whose history it is; none before there is one.
    at: Option<Oid>,
    /// Oldest first.
    marks: Vec<Mark>,
    /// For each instruction its newest commit: somebody may have carried it over a second time.
    newest: HashMap<InstructionId, (Oid, CommitId)>,
    commits: HashSet<Oid>,
}

/// A commit that carries out an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) commit: Oid,
    pub(super) trailers: Trailers,
}

impl Ledger {
    /// Makes it that of the history of `to`, of which at most [`HISTORY_MAX`] commits are looked at.
    pub(super) fn follow(
        &mut self,
        repository: &Repository,
        to: Option<Oid>,
    ) -> Result<(), git2::Error> {
        if self.at == to {
            return Ok(());
        }
        let Some(to) = to else {
            *self = Self::default();
            return Ok(());
        };
        let gone = match self.at {
            Some(at) => commits(repository, at, Some(to))?.collect::<Result<HashSet<_>, _>>()?,
            None => HashSet::new(),
        };
        if gone.iter().any(|commit| self.commits.contains(commit)) {
            self.marks.retain(|mark| !gone.contains(&mark.commit));
            let kept = std::mem::take(&mut self.marks);
            self.newest.clear();
            self.commits.clear();
            self.extend(kept);
        }
        let mut new = marks(repository, to, self.at)?;
        new.reverse();
        self.extend(new);
        self.at = Some(to);
        Ok(())
    }

    /// The newest commit of an instruction.
    pub(super) fn commit_of(&self, id: &InstructionId) -> Option<&CommitId> {
        self.newest.get(id).map(|(_, commit)| commit)
    }

    /// Whether a commit of an instruction is in this history.
    pub(super) fn holds(&self, mark: &Mark) -> bool {
        self.has(mark.commit)
    }

    /// Whether a commit is one of an instruction.
    pub(super) fn has(&self, commit: Oid) -> bool {
        self.commits.contains(&commit)
    }

    /// The newest commit of each instruction, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Mark> {
        self.marks
            .iter()
            .rev()
            .filter(|mark| self.is_newest_of_its_instruction(mark))
    }

    /// What has been taken back, each with what takes it back. An undo counts for as long as it stands itself.
    pub(super) fn undone(&self) -> HashMap<&InstructionId, &InstructionId> {
        let mut undone = HashMap::new();
        let undos = self
            .marks
            .iter()
            .rev()
            .filter(|mark| mark.trailers.action == UNDO);
        // What takes an undo back is newer than it.
        for mark in undos.filter(|mark| self.is_newest_of_its_instruction(mark)) {
            let Trailers {
                instruction_id,
                undoes,
                ..
            } = &mark.trailers;
            if let Some(target) = undoes
                && !undone.contains_key(instruction_id)
            {
                undone.entry(target).or_insert(instruction_id);
            }
        }
        undone
    }

    fn is_newest_of_its_instruction(&self, mark: &Mark) -> bool {
        self.newest
            .get(&mark.trailers.instruction_id)
            .is_some_and(|(newest, _)| *newest == mark.commit)
    }

    fn extend(&mut self, marks: Vec<Mark>) {
        for mark in marks {
            self.commits.insert(mark.commit);
            let commit = (mark.commit, commit_id(mark.commit));
            let id = mark.trailers.instruction_id.clone();
            self.newest.insert(id, commit);
            self.marks.push(mark);
        }
    }
}

/// The commits of instructions in the history of `tip` but not in that of `without`, newest first.
pub(super) fn marks(
    repository: &Repository,
    tip: Oid,
    without: Option<Oid>,
) -> Result<Vec<Mark>, git2::Error> {
    let mut marks = Vec::new();
    for commit in commits(repository, tip, without)?.take(HISTORY_MAX) {
        let commit = commit?;
        let message = repository.find_commit(commit)?;
        marks.extend(
            commit_message::trailers_of(message.message_bytes())
                .map(|trailers| Mark { commit, trailers }),
        );
    }
    Ok(marks)
}

/// The commits in the history of `tip` but not in that of `without`, newest first and children before their parents.
pub(super) fn commits(
    repository: &Repository,
    tip: Oid,
    without: Option<Oid>,
) -> Result<git2::Revwalk<'_>, git2::Error> {
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
    walk.push(tip)?;
    if let Some(without) = without {
        walk.hide(without)?;
    }
    Ok(walk)
}
