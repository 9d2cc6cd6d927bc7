//! Whether a change may stand: what was found with it, against what is known of the site without it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::receipt::PageProblem;

use super::look::{Look, Place};

/// Something that works or does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The dev server itself: whether it starts.
    Site,
    /// A page, by its path.
    Page(String),
    /// A file that something is wrong with by itself: an entry, a style, an island.
    File(String),
}

/// What a page answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status; 0 if it did not answer, or not to the end.
    pub(crate) status: u16,
    /// What is wrong with it.
    pub(crate) problem: Option<PageProblem>,
}

/// What was found when a tree was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Pages that were asked for.
    pub(crate) pages: BTreeMap<String, Answer>,
    /// Files that were asked for, or that something was told of: what is wrong with them, if anything.
    pub(crate) files: BTreeMap<String, Option<PageProblem>>,
    /// Why the site does not start, if it does not.
    pub(crate) site: Option<PageProblem>,
}

/// What is known of the site without the change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a>(pub(super) Option<&'a Findings>);

/// Whether a change may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Nothing that was looked at is broken.
    Sound,
    /// Nothing is broken any more.
    Repaired,
    /// What is broken was broken before.
    StillBroken,
    /// It breaks what worked.
    Breaks(BTreeSet<Subject>),
    /// Of these nobody knows whether they worked before: that has to be looked at.
    Unclear(BTreeSet<Subject>),
}

/// Judges a change by what was found with it.
pub(crate) fn judge(known: Known<'_>, found: &Findings) -> Judgement {
    let broken = found.broken();
    if broken.is_empty() {
        let repairs = known.broken().iter().any(|subject| found.covers(subject));
        return if repairs {
            Judgement::Repaired
        } else {
            Judgement::Sound
        };
    }
    let worked: BTreeSet<Subject> = broken
        .iter()
        .filter(|subject| known.is_broken(subject) == Some(false))
        .cloned()
        .collect();
    if !worked.is_empty() {
        return Judgement::Breaks(worked);
    }
    let unknown: BTreeSet<Subject> = broken
        .into_iter()
        .filter(|subject| known.is_broken(subject).is_none())
        .collect();
    if unknown.is_empty() {
        Judgement::StillBroken
    } else {
        Judgement::Unclear(unknown)
    }
}

impl Known<'_> {
    /// Whether a subject is broken; nothing if nobody has looked.
    fn is_broken(self, subject: &Subject) -> Option<bool> {
        let findings = self.0?;
        match subject {
            Subject::Site => Some(findings.site.is_some()),
            Subject::Page(path) => findings
                .pages
                .get(path)
                .map(|answer| answer.problem.is_some()),
            Subject::File(file) => findings.files.get(file).map(Option::is_some),
        }
    }

    fn broken(self) -> BTreeSet<Subject> {
        self.0.map(Findings::broken).unwrap_or_default()
    }
}

impl Findings {
    /// Notes what a place answered.
    pub(super) fn note(&mut self, place: Place, look: Look) {
        match place {
            Place::Page(path) => {
                let Look {
                    status, problem, ..
                } = look;
                self.pages.insert(path, Answer { status, problem });
            }
            // What was told of a file says more than its answer.
            Place::Module(file) => {
                let told = self.files.entry(file).or_default();
                if told.is_none() {
                    *told = look.problem;
                }
            }
        }
    }

    /// Whether anything is broken.
    pub(crate) fn is_broken(&self) -> bool {
        !self.broken().is_empty()
    }

    /// Everything that is broken.
    pub(crate) fn broken(&self) -> BTreeSet<Subject> {
        let pages = self
            .pages
            .iter()
            .filter(|(_, answer)| answer.problem.is_some())
            .map(|(path, _)| Subject::Page(path.clone()));
        let files = self
            .files
            .iter()
            .filter(|(_, problem)| problem.is_some())
            .map(|(file, _)| Subject::File(file.clone()));
        let site = self.site.as_ref().map(|_| Subject::Site);
        site.into_iter().chain(files).chain(pages).collect()
    }

    /// What is wrong with a subject.
    pub(crate) fn problem_of(&self, subject: &Subject) -> Option<&PageProblem> {
        match subject {
            Subject::Site => self.site.as_ref(),
            Subject::Page(path) => self.pages.get(path)?.problem.as_ref(),
            Subject::File(file) => self.files.get(file)?.as_ref(),
        }
    }

    /// Whether it says anything of a subject. Whoever looked at pages has seen that the site starts.
    fn covers(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Site => true,
            Subject::Page(path) => self.pages.contains_key(path),
            Subject::File(file) => self.files.contains_key(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/a` is a page that works, `!/a` one that does not; `f` a file, `!f` one that something is wrong with; `!` a site
    /// that does not start.
    fn findings(words: &str) -> Findings {
        let mut findings = Findings::default();
        for word in words.split_whitespace() {
            let problem = word.starts_with('!').then(PageProblem::default);
            match word.trim_start_matches('!') {
                "" => findings.site = problem,
                path if path.starts_with('/') => {
                    let status = if problem.is_some() { 500 } else { 200 };
                    findings
                        .pages
                        .insert(path.to_owned(), Answer { status, problem });
                }
                file => {
                    findings.files.insert(file.to_owned(), problem);
                }
            }
        }
        findings
    }

    #[test]
    fn a_change_may_not_make_anything_worse() {
        let subjects = |words: &str| findings(words).broken();
        for (before, after, expected) in [
            (Some("/a"), "/a", Judgement::Sound),
            (Some("/a"), "/a /b", Judgement::Sound),
            (None, "/a", Judgement::Sound),
            (Some("/a"), "!/a", Judgement::Breaks(subjects("!/a"))),
            (Some("!/a"), "!/a", Judgement::StillBroken),
            (Some("!/a"), "/a", Judgement::Repaired),
            (Some("!/a"), "/b", Judgement::Sound),
            (Some("!/a /b"), "/a !/b", Judgement::Breaks(subjects("!/b"))),
            (Some("/a"), "!/b", Judgement::Unclear(subjects("!/b"))),
            (Some("/a"), "!/a !/b", Judgement::Breaks(subjects("!/a"))),
            (None, "!/a", Judgement::Unclear(subjects("!/a"))),
            (Some("f"), "!f", Judgement::Breaks(subjects("!f"))),
            (Some("!f /a"), "!f /a", Judgement::StillBroken),
            (Some("!f"), "f", Judgement::Repaired),
            (Some("/a"), "!", Judgement::Breaks(subjects("!"))),
            (Some("!"), "!", Judgement::StillBroken),
            (Some("!"), "/a", Judgement::Repaired),
            (Some("!"), "!/a", Judgement::Unclear(subjects("!/a"))),
        ] {
            let before_findings = before.map(findings);
            let known = Known(before_findings.as_ref());
            assert_eq!(
                judge(known, &findings(after)),
                expected,
                "{before:?} {after}"
            );
        }
    }
}
