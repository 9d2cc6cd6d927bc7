//! What was found, by the tree of the repository in which it was found.

use std::collections::VecDeque;

use git2::Oid;

use super::affected::Affected;
use super::judgement::{Findings, Known};
use super::look::Place;

/// Trees that are remembered. An undo goes back to one of the last few.
const TREES_MAX: usize = 64;

/// What is remembered of trees, newest first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    trees: VecDeque<(Oid, Findings)>,
}

impl Memory {
    /// Whether a tree has been looked at.
    pub(super) fn has(&self, tree: Oid) -> bool {
        self.of(tree).is_some()
    }

    /// What is known of a tree.
    pub(super) fn known(&self, tree: Oid) -> Known<'_> {
        Known(self.of(tree))
    }

    /// Remembers what was found in a tree; what was found there before stays unless it was looked at again.
    pub(super) fn put(&mut self, tree: Oid, found: Findings) {
        let mut findings = match self.trees.iter().position(|(known, _)| *known == tree) {
            Some(at) => self
                .trees
                .remove(at)
                .map(|(_, known)| known)
                .unwrap_or_default(),
            None => Findings::default(),
        };
        findings.pages.extend(found.pages);
        findings.files.extend(found.files);
        findings.site = found.site;
        self.trees.push_front((tree, findings));
        self.trees.truncate(TREES_MAX);
    }

    /// What holds of a tree that comes from another one by a change of other files: what is wrong with a file stays.
    pub(super) fn carried_over(&self, from: Oid, affected: &Affected) -> Findings {
        let mut findings = Findings::default();
        if let Some(before) = self.of(from) {
            let untouched = before
                .files
                .iter()
                .filter(|(file, problem)| problem.is_some() && !affected.has(file));
            findings.files = untouched
                .map(|(file, problem)| (file.clone(), problem.clone()))
                .collect();
        }
        findings
    }

    /// The pages that are broken in a tree.
    pub(super) fn broken_pages(&self, tree: Oid) -> impl Iterator<Item = &str> {
        let pages = self.of(tree).map(|findings| &findings.pages);
        pages
            .into_iter()
            .flatten()
            .filter(|(_, answer)| answer.problem.is_some())
            .map(|(path, _)| path.as_str())
    }

    /// Whether a place was looked at in a tree and is in order.
    pub(super) fn sound(&self, tree: Oid, place: &Place) -> bool {
        self.of(tree).is_some_and(|findings| match place {
            Place::Page(path) => findings
                .pages
                .get(path)
                .is_some_and(|answer| answer.problem.is_none()),
            Place::Module(file) => findings.files.get(file) == Some(&None),
        })
    }

    /// Adds what is remembered of a place that is in order.
    pub(super) fn recall(&self, tree: Oid, place: &Place, findings: &mut Findings) {
        let Some(known) = self.of(tree) else { return };
        match place {
            Place::Page(path) => {
                let answer = known.pages.get_key_value(path);
                findings
                    .pages
                    .extend(answer.map(|(path, answer)| (path.clone(), answer.clone())));
            }
            Place::Module(file) => {
                findings.files.entry(file.clone()).or_default();
            }
        }
    }

    fn of(&self, tree: Oid) -> Option<&Findings> {
        self.trees
            .iter()
            .find(|(known, _)| *known == tree)
            .map(|(_, findings)| findings)
    }
}
