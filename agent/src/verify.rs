//! Verification: the pages that a change affects are looked at through the dev server before anybody else sees them.
//!
//! ```text
//!   change ─▶ affected (which pages and files) ─▶ told (the dev server has taken note) ─▶ look (ask for them)
//!                                                                                            │
//!             what was known of the tree before ──────────────────────────────▶ judgement ◀──┘ findings
//! ```
//!
//! - **Seen, not hoped.** The runner says of every changed file when everybody in the dev server has dealt with it; only
//!   then is a page asked for. Waiting a fixed time would be too long for most edits and too short for some.
//! - **The page's own answer, to its end.** Astro answers 200 and breaks off in the middle, so the end of the page is looked
//!   at as well ([`look`]). What a page does not tell is told by the runner: content that does not fit its schema.
//! - **Nothing is looked at twice.** What was found is remembered by the tree it was found in ([`memory`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use contract::SitePath;
use contract::receipt::{PageProblem, PageResult};
use futures_util::StreamExt as _;
use git2::Oid;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

mod affected;
mod judgement;
mod look;
mod memory;
mod visits;

pub(crate) use affected::Affected;
use judgement::Answer;
pub(crate) use judgement::{Findings, Judgement, Known, Subject, judge};
use look::{Look, Place};
use memory::Memory;
pub(crate) use visits::Visits;

use crate::site::{HotKind, HotMessage, Site, SiteProblem, SiteState, Told};

/// How long the dev server may take to note a change. Measured: 3 to 40 ms, and 1.3 s for an entry with pictures; a busy
/// machine takes several times that.
const NOTE_TIME_MAX: Duration = Duration::from_secs(6);
/// How long Astro may take to store changed content. It waits 500 ms by itself; a thousand entries take a second.
const STORE_TIME_MAX: Duration = Duration::from_secs(5);
/// Astro tells the browsers of a page that failed 200 ms after it failed, and only there says why. For the first time it loads what
/// colours the code in its overlay: seconds, on a busy machine.
const REASON_TIME_MAX: Duration = Duration::from_secs(15);
/// How long the site may take to come back: an edit can make it start anew, or kill it.
const RETURN_TIME_MAX: Duration = Duration::from_secs(120);
/// Pages that are asked for at the same time: Node renders one at a time, but a page may wait for somebody else.
const LOOKS_AT_ONCE: usize = 4;
/// Where Astro stores content.
pub(crate) const STORE: &str = ".astro/data-store.json";

/// Looks at pages, and remembers what it found.
#[derive(Debug)]
pub(crate) struct Verifier {
    site: Site,
    visits: Visits,
    memory: Memory,
    /// The dev server that was asked last, and the pages that it was asked for: it knows what they are made of.
    asked: (Option<SocketAddr>, BTreeSet<String>),
}

/// What the dev server says from a moment on.
#[derive(Debug)]
pub(crate) struct Listening {
    told: broadcast::Receiver<Told>,
    /// Files that it has noted, with what is wrong with them.
    noted: BTreeMap<String, Option<SiteProblem>>,
    /// Those that browsers load by themselves.
    browsers: BTreeSet<String>,
    /// Whether anything that it has loaded is made of one of them.
    used: bool,
    /// Whether it did not note all of them in time: then nothing is known of them.
    missed: bool,
    /// What it told the browsers of, or would have.
    reasons: Vec<SiteProblem>,
}

/// How far a look goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Pages that are looked at, at the most.
    pages: usize,
    /// Whether what was broken before is looked at too, because it may be mended.
    mended: bool,
}

impl Reach {
    /// For an edit: its own pages and those that people looked at last.
    pub(crate) const EDIT: Self = Self {
        pages: 8,
        mended: true,
    };
    /// For what is published: everything that was touched.
    pub(crate) const PUBLISH: Self = Self {
        pages: 60,
        mended: false,
    };
}

impl Verifier {
    /// Nothing has been looked at yet, but for the front page when the site started.
    pub(crate) fn new(site: Site, visits: Visits) -> Self {
        Self {
            site,
            visits,
            memory: Memory::default(),
            asked: (None, BTreeSet::new()),
        }
    }

    /// The site whose pages it looks at.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Listens from now on: before a change is written.
    pub(crate) fn listen(&self) -> Listening {
        Listening {
            told: self.site.listen(),
            noted: BTreeMap::new(),
            browsers: BTreeSet::new(),
            used: false,
            missed: false,
            reasons: Vec::new(),
        }
    }

    /// What is known of a tree.
    pub(crate) fn known(&self, tree: Oid) -> Known<'_> {
        self.memory.known(tree)
    }

    /// What is known of the site as it is, for a tree that nobody has looked at: what the first page answered.
    pub(crate) fn begin_with(&mut self, tree: Oid) {
        if self.memory.has(tree) {
            return;
        }
        let view = self.site.view();
        let mut findings = Findings::default();
        match (view.state, view.problem) {
            (SiteState::Serving, None) => {}
            (SiteState::Serving, Some(problem)) => {
                findings
                    .pages
                    .insert("/".to_owned(), failed(500, page_problem(problem)));
            }
            (_, problem) => findings.site = Some(page_problem(problem.unwrap_or_default())),
        }
        self.memory.put(tree, findings);
    }

    /// Waits until the dev server has noted the changes, and looks at what they affect. What is found is remembered for
    /// `tree`; what was found there before is not looked for again.
    ///
    /// `from` is the tree before: what was broken there is looked at too, because the change may have mended it.
    pub(crate) async fn look(
        &mut self,
        (from, tree): (Oid, Oid),
        affected: &Affected,
        reach: Reach,
        mut listening: Listening,
    ) -> Findings {
        let mut findings = if reach.mended {
            self.memory.carried_over(from, affected)
        } else {
            Findings::default()
        };
        match self.answering(&mut listening, affected).await {
            Ok(address) => {
                findings.files.extend(
                    listening
                        .wrong_files(affected)
                        .into_iter()
                        .map(|(file, problem)| (file, Some(problem))),
                );
                let reasons = self
                    .visit(
                        address,
                        (from, tree),
                        affected,
                        (reach, &listening),
                        &mut findings,
                    )
                    .await;
                if reasons > 0 {
                    listening.hear_reasons(reasons).await;
                    listening.explain(&mut findings);
                }
                listening.note_rest(affected, &mut findings);
            }
            Err(problem) => findings.site = Some(page_problem(problem)),
        }
        self.memory.put(tree, findings.clone());
        findings
    }

    /// Looks at some subjects again, after a change was taken back.
    pub(crate) async fn look_again(
        &mut self,
        subjects: &BTreeSet<Subject>,
        affected: &Affected,
        mut listening: Listening,
    ) -> Findings {
        let mut findings = Findings::default();
        match self.answering(&mut listening, affected).await {
            Ok(address) => {
                let wrong = listening.wrong_files(affected);
                // What is not there without the change cannot have been broken without it.
                let there = subjects.iter().filter(|subject| match subject {
                    Subject::File(file) => !affected.is_gone(file),
                    Subject::Page(_) | Subject::Site => true,
                });
                let places: Vec<Place> = there.filter_map(Place::of).collect();
                for (place, look) in self.ask(address, places).await {
                    findings.note(place, look);
                }
                for subject in subjects {
                    if let Subject::File(file) = subject
                        && let Some(problem) = wrong.get(file)
                    {
                        findings.files.insert(file.clone(), Some(problem.clone()));
                    }
                }
            }
            Err(problem) => findings.site = Some(page_problem(problem)),
        }
        findings
    }

    /// Waits until the dev server has noted the changes.
    pub(crate) async fn wait(&self, affected: &Affected, mut listening: Listening) {
        if let Err(problem) = self.answering(&mut listening, affected).await {
            tracing::debug!(problem = %problem.message, "the site does not answer");
        }
    }

    /// Forgets everything: files are not as any tree has them.
    pub(crate) fn forget(&mut self) {
        self.memory = Memory::default();
    }

    /// A change stands: whoever asked for it looks at its pages next, or has somebody look.
    pub(crate) fn expect_visits(&self, affected: &Affected) {
        for page in affected.own_pages(&self.site.view().addresses) {
            self.visits.visited(&page);
        }
    }

    /// Remembers what was found of a tree.
    pub(crate) fn remember(&mut self, tree: Oid, findings: &Findings) {
        self.memory.put(tree, findings.clone());
    }

    /// Waits until the site shows the change, and says where it answers.
    async fn answering(
        &self,
        listening: &mut Listening,
        affected: &Affected,
    ) -> Result<SocketAddr, SiteProblem> {
        let view = self.site.view();
        if let (SiteState::Serving, Some(address)) = (view.state, view.address)
            && !affected.restarts
        {
            let mut view = self.site.watch();
            tokio::select! {
                () = listening.hear_notes(affected) => {}
                // It started anew over the change, or died of it: then it has nothing to note, it reads everything.
                _ = view.wait_for(|view| view.address != Some(address)) => {}
            }
            if self.site.view().address == Some(address) {
                if !listening.missed {
                    return Ok(address);
                }
                // Whatever it shows now, nobody knows of which tree it is.
                self.site.halt().await;
                self.site.resume(false).await;
            }
        }
        let view = tokio::time::timeout(RETURN_TIME_MAX, self.site.first_answer()).await;
        match view {
            Ok(view) => match (view.state, view.address) {
                (SiteState::Serving, Some(address)) => Ok(address),
                _ => Err(view.problem.unwrap_or_default()),
            },
            Err(_) => Err(SiteProblem {
                message: format!(
                    "the site did not come back within {} s",
                    RETURN_TIME_MAX.as_secs()
                ),
                ..SiteProblem::default()
            }),
        }
    }

    /// Looks at what is affected, and then at what only those looks have shown to be. Returns how many reasons are going to be
    /// told.
    async fn visit(
        &mut self,
        address: SocketAddr,
        (from, tree): (Oid, Oid),
        affected: &Affected,
        (reach, listening): (Reach, &Listening),
        findings: &mut Findings,
    ) -> usize {
        let addresses = self.site.view().addresses;
        if self.asked.0 != Some(address) {
            self.asked = (Some(address), BTreeSet::new());
        }
        // It can only say whether a file is used by the pages that it has been asked for.
        let is_new = self
            .visits
            .last(affected::LAST_VISITED)
            .any(|page| !self.asked.1.contains(&page));
        let everywhere = affected.restarts
            || affected.everywhere
            || listening.used
            || listening.missed
            || is_new;
        let mut reasons = 0;
        let mut asked: BTreeSet<Place> = BTreeSet::new();
        let mut scripts: BTreeSet<Place> = BTreeSet::new();
        for _ in 0..2 {
            let mut places = affected.places(&self.visits, &addresses, reach.pages, everywhere);
            places.extend(affected.modules(&listening.browsers));
            places.extend(scripts.iter().cloned());
            if reach.mended {
                places.extend(self.memory.broken_pages(from).map(Place::page));
            }
            let mut seen = asked.clone();
            places.retain(|place| seen.insert(place.clone()));
            places.truncate(reach.pages.saturating_sub(asked.len()));
            if places.is_empty() {
                break;
            }
            asked.extend(places.iter().cloned());
            let (known, unknown): (Vec<_>, Vec<_>) = places
                .into_iter()
                .partition(|place| self.memory.sound(tree, place));
            for place in known {
                self.memory.recall(tree, &place, findings);
            }
            for (place, look) in self.ask_patiently(address, unknown).await {
                self.visits.learn(&look.links);
                let own = look
                    .scripts
                    .iter()
                    .filter(|script| affected.has_script(script));
                scripts.extend(own.map(|script| Place::Module(script.clone())));
                reasons += usize::from(look.is_explained_later);
                if let Place::Page(page) = &place {
                    self.asked.1.insert(page.clone());
                }
                findings.note(place, look);
            }
        }
        reasons
    }

    /// Asks; and once more for whatever the dev server died over: it comes back by itself.
    async fn ask_patiently(&self, address: SocketAddr, places: Vec<Place>) -> Vec<(Place, Look)> {
        let (answered, gone): (Vec<_>, Vec<_>) = self
            .ask(address, places)
            .await
            .into_iter()
            .partition(|(_, look)| !look.went_away);
        if gone.is_empty() {
            return answered;
        }
        tracing::info!(
            pages = gone.len(),
            "the site went away while its pages were looked at"
        );
        let back = tokio::time::timeout(RETURN_TIME_MAX, self.site.come_back_from(address)).await;
        let Ok(Some(address)) = back else {
            return answered.into_iter().chain(gone).collect();
        };
        let places = gone.into_iter().map(|(place, _)| place).collect();
        let again = self.ask(address, places).await;
        answered.into_iter().chain(again).collect()
    }

    async fn ask(&self, address: SocketAddr, places: Vec<Place>) -> Vec<(Place, Look)> {
        futures_util::stream::iter(places)
            .map(|place| async move {
                let look = look::at(address, &place).await;
                (place, look)
            })
            .buffered(LOOKS_AT_ONCE)
            .collect()
            .await
    }
}

impl Listening {
    /// Hears until every changed file has been noted, and changed content is stored.
    async fn hear_notes(&mut self, affected: &Affected) {
        let deadline = Instant::now() + NOTE_TIME_MAX;
        let all = |noted: &BTreeMap<String, Option<SiteProblem>>| {
            affected
                .written_now
                .iter()
                .all(|file| noted.contains_key(file.as_str()))
        };
        while !all(&self.noted) {
            if !self.hear(deadline).await {
                let missing: Vec<&str> = affected
                    .written_now
                    .iter()
                    .map(SitePath::as_str)
                    .filter(|file| !self.noted.contains_key(*file))
                    .collect();
                tracing::warn!(?missing, "the dev server did not note these changes");
                self.missed = true;
                break;
            }
        }
        let wrong = self.wrong_files(affected);
        if affected.is_stored(&wrong) {
            let deadline = Instant::now() + STORE_TIME_MAX;
            while !self.noted.contains_key(STORE) && self.hear(deadline).await {}
        }
    }

    /// Hears why pages failed.
    async fn hear_reasons(&mut self, count: usize) {
        let deadline = Instant::now() + REASON_TIME_MAX;
        while self.reasons.len() < count && self.hear(deadline).await {}
    }

    /// Hears one thing more; not if nothing comes in time.
    async fn hear(&mut self, deadline: Instant) -> bool {
        loop {
            match timeout_at(deadline, self.told.recv()).await {
                Ok(Ok(Told::Changed {
                    file,
                    used,
                    browsers,
                    problem,
                })) => {
                    self.used |= used;
                    if browsers {
                        self.browsers.insert(file.clone());
                    }
                    self.noted.insert(file, problem);
                    return true;
                }
                Ok(Ok(Told::Hot(HotMessage {
                    kind: HotKind::Error,
                    problem: Some(problem),
                    ..
                }))) => {
                    self.reasons.push(problem);
                    return true;
                }
                Ok(Ok(Told::Hot(_)) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return false,
            }
        }
    }

    /// The changed entries that something is wrong with. Of other files nothing is told at once that would be about them: the
    /// watcher's listeners also fail over files that went meanwhile.
    fn wrong_files(&self, affected: &Affected) -> BTreeMap<String, PageProblem> {
        self.noted
            .iter()
            .filter(|(file, _)| affected.has_entry(file))
            .filter_map(|(file, problem)| Some((file.clone(), page_problem(problem.clone()?))))
            .collect()
    }

    /// Notes what browsers would be told of a changed file although every page answers.
    fn note_rest(&self, affected: &Affected, findings: &mut Findings) {
        for reason in &self.reasons {
            let Some(file) = reason.file.as_deref().filter(|file| affected.has(file)) else {
                continue;
            };
            let is_known = findings
                .broken()
                .iter()
                .filter_map(|subject| findings.problem_of(subject))
                .any(|problem| problem.message == reason.message || problem.file == reason.file);
            if !is_known {
                let problem = Some(page_problem(reason.clone()));
                findings.files.insert(file.to_owned(), problem);
            }
        }
    }

    /// Says of everything that is broken why, where that was heard.
    fn explain(&self, findings: &mut Findings) {
        let mut reasons: Vec<&SiteProblem> = Vec::new();
        for reason in &self.reasons {
            // Vite and Astro tell of the same error in turn, and not both know the place.
            match reasons
                .iter_mut()
                .find(|known| known.message == reason.message)
            {
                Some(known) if known.file.is_none() => *known = reason,
                Some(_) => {}
                None => reasons.push(reason),
            }
        }
        let Some(first) = reasons.first() else { return };
        for (path, result) in &mut findings.pages {
            let Some(problem) = &mut result.problem else {
                continue;
            };
            if problem.file.is_none() {
                let own = reasons.iter().find(|reason| {
                    let file = reason.file.as_deref().and_then(crate::site::route::of);
                    file.is_some_and(|route| route.matches(path))
                });
                *problem = page_problem((*own.unwrap_or(first)).clone());
            }
        }
        for (file, problem) in findings
            .files
            .iter_mut()
            .filter_map(|(file, problem)| Some((file, problem.as_mut()?)))
        {
            if let Some(reason) = reasons
                .iter()
                .find(|reason| reason.file.as_deref() == Some(file))
            {
                *problem = page_problem((*reason).clone());
            }
        }
    }
}

fn failed(status: u16, problem: PageProblem) -> Answer {
    Answer {
        status,
        problem: Some(problem),
    }
}

/// A problem as a receipt has it: bounded, because a receipt is a row of a table.
fn page_problem(problem: SiteProblem) -> PageProblem {
    let bounded = |text: String| -> String { text.chars().take(2000).collect() };
    PageProblem {
        message: bounded(problem.message),
        file: problem.file,
        line: problem.line,
        frame: problem.frame.map(bounded),
    }
}

/// The pages of a receipt.
pub(crate) fn page_results(findings: &Findings) -> Vec<PageResult> {
    findings
        .pages
        .iter()
        .map(|(path, answer)| PageResult {
            path: path.clone(),
            status: answer.status,
            problem: answer.problem.clone(),
        })
        .collect()
}
