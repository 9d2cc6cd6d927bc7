//! The site: the client's own Astro dev server, supervised.
//!
//! One task owns the process. Everybody else reads a [`SiteView`] and sends commands.
//!
//! ```text
//!            ┌──────────────── halt (before a change of configuration) ◀─┐
//!            ▼                                                           │
//!   Halted ─resume─▶ Installing ─▶ Starting ──a page has answered──▶ Serving
//!                                    │  ▲                                │
//!                     it cannot start│  │back-off, or an edit            │it ended
//!                                    ▼  │                                ▼
//!                                  Broken ◀──────── CrashLoop ◀──── (too often)
//! ```
//!
//! A site that does not compile is *degraded*, not a failure of the environment: it can be edited, and the edit that
//! repairs it is the reason to try again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use contract::Timestamp;
use contract::session::SiteHealth;
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

mod addresses;
pub(crate) mod build;
pub(crate) mod consequence;
pub(crate) mod dependencies;
mod error;
mod hold;
mod log;
pub(crate) mod node;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod request;
mod restart;
pub(crate) mod route;

pub(crate) use addresses::{Addresses, percent_encoded};
pub(crate) use consequence::Consequence;
use dependencies::Dependencies;
pub(crate) use error::SiteError;
pub(crate) use hold::{Hold, Judging};
pub(crate) use log::OutputLog;
use log::bounded_line;
use node::Node;
pub(crate) use process::end_orphans;
use process::{GRACE, Group};

use crate::isolation::Role;
use crate::loops::Loops;
use restart::{Restarts, Verdict};

/// The program that starts the site's Astro. See its own first lines.
const RUNNER: &str = include_str!("site/runner.mjs");

/// How long Astro may take until it listens. A cold start with a thousand posts takes half a minute.
const LISTEN_TIME_MAX: Duration = Duration::from_secs(120);
/// How long the first page may take. Measured: 2 to 5 s with real themes, 18 s on a busy machine.
const FIRST_PAGE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the output of an ended process may take to end. A process that it started may hold it open for ever.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);
/// How long it may take until it is known that the process has ended.
const NOTICE_TIME: Duration = Duration::from_secs(2);
/// What is kept for a slow listener: a change of five hundred files is told one by one.
const TOLD_MAX: usize = 1024;
/// Bytes of one line of the runner: four texts of 4,000 characters, every one of them escaped.
const RUNNER_LINE_MAX_BYTES: usize = 128 * 1024;

/// What supervising a site needs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The folder with the site's `package.json`.
    pub(crate) root: PathBuf,
    /// Where the runner is put.
    pub(crate) runner: PathBuf,
    /// Where Node keeps compiled code between starts.
    pub(crate) compile_cache: PathBuf,
    /// The Node that runs it.
    pub(crate) node: Node,
    /// How dependencies are put in place when the lock file changes; not at all if absent.
    pub(crate) dependencies: Option<Dependencies>,
    /// Variables of the site's own.
    pub(crate) variables: std::collections::BTreeMap<String, String>,
}

/// What is known of the site now.
#[derive(Debug, Clone)]
pub(crate) struct SiteView {
    /// Where it stands.
    pub(crate) state: SiteState,
    /// Where it answers; only while serving.
    pub(crate) address: Option<SocketAddr>,
    /// What is wrong with it.
    pub(crate) problem: Option<SiteProblem>,
    /// How the addresses of its pages are made, as it said when it last started.
    pub(crate) addresses: Addresses,
    /// Whether it has served since the agent started: then a visitor is kept waiting a moment instead of being told.
    pub(crate) has_served: bool,
}

impl SiteView {
    /// The same, as somebody sees it who only knows that it is going to be there again.
    pub(crate) fn coming_back(mut self) -> Self {
        self.state = SiteState::Starting;
        self.problem = None;
        self
    }

    /// How the site is.
    pub(crate) fn health(&self) -> SiteHealth {
        if self.state == SiteState::Serving && self.problem.is_none() {
            SiteHealth::Ok
        } else {
            SiteHealth::Degraded
        }
    }
}

/// Where the site stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SiteState {
    /// Stopped while its configuration is being changed, or for good.
    Halted,
    /// Its dependencies are being put in place.
    Installing,
    /// It starts.
    Starting,
    /// It answers.
    Serving,
    /// It could not start; it is tried again with the next edit, or after a while.
    Broken,
    /// It ended too often; it is tried again with the next edit, or after a long while.
    CrashLoop,
}

/// What is wrong with the site, as Astro says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SiteProblem {
    /// What happened.
    pub(crate) message: String,
    /// What Astro advises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// In which file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// On which line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
    /// In which column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<u32>,
    /// The lines around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frame: Option<String>,
}

/// What the dev server told the browsers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HotKind {
    /// Modules changed.
    Update,
    /// Load the page again.
    FullReload,
    /// Something does not compile.
    Error,
}

/// What is heard of the dev server beside its answers.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// It told the browsers something, or would have if that were not held back.
    Hot(HotMessage),
    /// It has taken note of a change of a file of the site: pages show it from now on.
    Changed {
        /// Which file, as a path from the site root.
        file: String,
        /// Whether anything that it has loaded so far is made of it: if not, no page that anybody saw shows it.
        used: bool,
        /// Whether browsers load it by itself.
        browsers: bool,
        /// What is wrong with it, where that was found at once: content that does not fit its schema.
        problem: Option<SiteProblem>,
    },
}

/// A message of the dev server to the browsers.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HotMessage {
    /// What kind.
    pub(crate) kind: HotKind,
    /// Whether it was held back.
    #[serde(default)]
    pub(crate) held: bool,
    /// What is wrong.
    #[serde(default)]
    pub(crate) problem: Option<SiteProblem>,
}

/// What the runner says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum RunnerEvent {
    Ready {
        port: Option<u16>,
        #[serde(default)]
        addresses: Addresses,
    },
    Failed {
        problem: SiteProblem,
    },
    Restarted,
    Hot(HotMessage),
    Changed {
        file: String,
        used: bool,
        #[serde(default)]
        browsers: bool,
        #[serde(default)]
        problem: Option<SiteProblem>,
    },
    /// Browsers were told of a change, or would have been if there were any: pages look different from now on.
    Shown,
    /// It has done what it was told over its input.
    Did,
}

/// The supervised site. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    view: watch::Receiver<SiteView>,
    commands: mpsc::Sender<Command>,
    told: broadcast::Sender<Told>,
    output: OutputLog,
    hold: Hold,
    revision: Revision,
}

/// When pages last became different, for pages that ask instead of being told: milliseconds since 1970 by this machine's
/// clock, and more with every change even if the clock stands still. An agent that starts begins a new one. Cheap to clone.
#[derive(Debug, Clone)]
struct Revision(Arc<AtomicI64>);

impl Revision {
    fn begin(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.unix_ms())))
    }

    fn advance(&self, now: Timestamp) {
        // One task advances it.
        let next = self.get().saturating_add(1).max(now.unix_ms());
        self.0.store(next, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
enum Command {
    /// Stop the process and stay down.
    Halt { done: oneshot::Sender<()> },
    /// Come up again.
    Resume { reinstall: bool },
    /// Something changed: if the site does not run, try again. Answered once that has begun.
    Edited { done: oneshot::Sender<()> },
    /// Its pages were looked at: what is wrong with it, if anything.
    Judged { problem: Option<SiteProblem> },
    /// Stop for good.
    Stop,
}

impl Site {
    /// Starts to supervise; the task ends after [`Site::stop`].
    pub(crate) fn start(settings: Settings, tasks: &mut Loops) -> Result<Self, SiteError> {
        put_program(&settings.runner, RUNNER).map_err(|source| SiteError::Runner {
            path: settings.runner.clone(),
            source,
        })?;
        let (view_sender, view) = watch::channel(SiteView {
            state: SiteState::Starting,
            address: None,
            problem: None,
            addresses: Addresses::default(),
            has_served: false,
        });
        let (commands, receiver) = mpsc::channel(16);
        let (told, _) = broadcast::channel(TOLD_MAX);
        let (output, hold) = (OutputLog::default(), Hold::new());
        let revision = Revision::begin(Timestamp::now());
        let supervisor = Supervisor {
            settings,
            view: view_sender,
            commands: receiver,
            told: told.clone(),
            output: output.clone(),
            hold: hold.clone(),
            revision: revision.clone(),
            restarts: Restarts::default(),
        };
        tasks.spawn(supervisor.run());
        Ok(Self {
            view,
            commands,
            told,
            output,
            hold,
            revision,
        })
    }

    /// A site that is never started: for who does not come to show it.
    pub(crate) fn down() -> Self {
        Self::unsupervised(SiteView {
            state: SiteState::Halted,
            address: None,
            problem: None,
            addresses: Addresses::default(),
            has_served: false,
        })
    }

    /// A site that answers at `address` and is not ours to start: for tests of what stands before it.
    #[cfg(test)]
    pub(crate) fn answering_at(address: SocketAddr) -> Self {
        Self::unsupervised(SiteView {
            state: SiteState::Serving,
            address: Some(address),
            problem: None,
            addresses: Addresses::default(),
            has_served: true,
        })
    }

    fn unsupervised(view: SiteView) -> Self {
        let (_, view) = watch::channel(view);
        Self {
            view,
            commands: mpsc::channel(1).0,
            told: broadcast::channel(1).0,
            output: OutputLog::default(),
            hold: Hold::new(),
            revision: Revision::begin(Timestamp::now()),
        }
    }

    /// What is known now.
    pub(crate) fn view(&self) -> SiteView {
        self.view.borrow().clone()
    }

    /// A receiver of every change of what is known.
    pub(crate) fn watch(&self) -> watch::Receiver<SiteView> {
        self.view.clone()
    }

    /// What is heard of the dev server from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    /// Holds back what browsers may not know yet.
    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The newest lines of its output.
    pub(crate) fn output(&self, count: usize) -> Vec<String> {
        self.output.newest(count)
    }

    /// A number that is larger whenever pages may look different: the time of the last change, in milliseconds since 1970.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.get()
    }

    /// Waits until the site has answered, or is known not to be able to.
    pub(crate) async fn first_answer(&self) -> SiteView {
        let mut view = self.view.clone();
        let answered = view
            .wait_for(|view| {
                matches!(
                    view.state,
                    SiteState::Serving | SiteState::Broken | SiteState::CrashLoop
                )
            })
            .await;
        answered.map_or_else(|_| self.view(), |view| view.clone())
    }

    /// Waits until the site answers after it stopped answering at `address`; none if it does not come back by itself.
    pub(crate) async fn come_back_from(&self, address: SocketAddr) -> Option<SocketAddr> {
        let mut view = self.view.clone();
        // It is published in a moment that the process has ended. A connection can also break while it lives.
        let noticed = view.wait_for(|view| view.address != Some(address));
        if tokio::time::timeout(NOTICE_TIME, noticed).await.is_err() {
            return Some(address);
        }
        self.first_answer().await.address
    }

    /// Stops the process, so that its configuration can be changed under it. Comes back with [`Site::resume`].
    pub(crate) async fn halt(&self) {
        let (done, halted) = oneshot::channel();
        if self.commands.send(Command::Halt { done }).await.is_ok() {
            // An error means that the supervisor is gone, and the process with it.
            halted.await.ok();
        }
    }

    /// Comes up again after [`Site::halt`].
    pub(crate) async fn resume(&self, reinstall: bool) {
        self.send(Command::Resume { reinstall }).await;
    }

    /// Says that the site's files changed. If that was while it started, it has to start anew. Returns once that is known, so
    /// that [`Site::first_answer`] is the answer of a site that has read the change.
    pub(crate) async fn edited(&self) {
        let (done, noted) = oneshot::channel();
        if self.commands.send(Command::Edited { done }).await.is_ok() {
            // An error means that the supervisor is gone, and the process with it.
            noted.await.ok();
        }
    }

    /// Says what is wrong with the site, if anything, for whoever asks how it is.
    pub(crate) async fn judged(&self, problem: Option<SiteProblem>) {
        let view = self.view();
        if view.state == SiteState::Serving && view.problem != problem {
            self.send(Command::Judged { problem }).await;
        }
    }

    /// Stops for good.
    pub(crate) async fn stop(&self) {
        self.send(Command::Stop).await;
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the site's supervisor has ended");
        }
    }
}

/// A dev server that runs.
struct Process {
    group: Group,
    /// Says that it is this one that answers.
    boot: String,
    /// What its runner says.
    events: mpsc::Receiver<RunnerEvent>,
    /// The tasks that read its output.
    drain: JoinSet<()>,
}

impl Process {
    /// Why it ended, if it said so. Ends whatever it leaves behind.
    async fn last_words(self) -> Option<SiteProblem> {
        let Self {
            group,
            mut events,
            drain,
            ..
        } = self;
        drop(group);
        let mut problem = None;
        let said_all = async {
            while let Some(event) = events.recv().await {
                if let RunnerEvent::Failed { problem: failed } = event {
                    problem = Some(failed);
                }
            }
            drain.join_all().await;
        };
        // Who has left the group and holds the output open is not waited for.
        tokio::time::timeout(LAST_WORDS_TIME, said_all).await.ok();
        problem
    }
}

struct Supervisor {
    settings: Settings,
    view: watch::Sender<SiteView>,
    commands: mpsc::Receiver<Command>,
    told: broadcast::Sender<Told>,
    output: OutputLog,
    hold: Hold,
    revision: Revision,
    restarts: Restarts,
}

/// Why a process does not run any more.
enum Ended {
    Halted,
    Stopped,
    /// It does not know what the files are now: they changed while it read them, or it restarted itself in place.
    Outdated,
    Broken(SiteProblem),
    Died(String),
}

impl Supervisor {
    async fn run(mut self) {
        let mut reinstall = false;
        loop {
            if reinstall {
                match self.reinstall().await {
                    Ok(()) => reinstall = false,
                    Err(Ended::Halted) => {
                        if !self.wait_for_resume(&mut reinstall).await {
                            break;
                        }
                        continue;
                    }
                    Err(Ended::Broken(problem)) => {
                        self.publish(SiteState::Broken, None, Some(problem));
                        let wait = self.restarts.after_failed_start();
                        if !self.wait_for_edit(wait, &mut reinstall).await {
                            break;
                        }
                        continue;
                    }
                    Err(_) => break,
                }
            }
            let served_from = Instant::now();
            let ended = self.serve().await;
            self.hold.detach().await;
            match ended {
                Ended::Stopped => break,
                Ended::Outdated => {}
                Ended::Halted => {
                    if !self.wait_for_resume(&mut reinstall).await {
                        break;
                    }
                }
                Ended::Broken(problem) => {
                    tracing::warn!(problem = %problem.message, file = problem.file, "the site does not start");
                    self.publish(SiteState::Broken, None, Some(problem));
                    let wait = self.restarts.after_failed_start();
                    if !self.wait_for_edit(wait, &mut reinstall).await {
                        break;
                    }
                }
                Ended::Died(why) => {
                    let (state, wait) = match self.restarts.after_end(served_from, Instant::now()) {
                        Verdict::Again { after } => (SiteState::Starting, after),
                        Verdict::CrashLoop { after } => (SiteState::CrashLoop, after),
                    };
                    tracing::warn!(%why, again_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "the site ended");
                    let last = self.output.newest(10).join("\n");
                    let problem = SiteProblem {
                        message: why,
                        frame: (!last.is_empty()).then_some(last),
                        ..SiteProblem::default()
                    };
                    self.publish(state, None, Some(problem));
                    if !self.wait_for_edit(wait, &mut reinstall).await {
                        break;
                    }
                }
            }
        }
        self.publish(SiteState::Halted, None, None);
    }

    async fn reinstall(&mut self) -> Result<(), Ended> {
        let Some(dependencies) = self.settings.dependencies.clone() else {
            return Ok(());
        };
        self.publish(SiteState::Installing, None, None);
        let root = self.settings.root.clone();
        let mut install = Box::pin(dependencies.put_in_place(&root, &|_| ()));
        loop {
            tokio::select! {
                result = &mut install => return result.map(drop).map_err(|error| Ended::Broken(SiteProblem {
                    message: error.to_string(),
                    hint: Some(error.hint()),
                    ..SiteProblem::default()
                })),
                // An install can hang on the network for minutes; nobody waits for that who wants something else.
                command = self.commands.recv() => match command {
                    Some(Command::Halt { done }) => {
                        drop(install);
                        self.publish(SiteState::Halted, None, None);
                        done.send(()).ok();
                        return Err(Ended::Halted);
                    }
                    Some(Command::Edited { done }) => drop(done.send(())),
                    Some(Command::Judged { .. } | Command::Resume { .. }) => {}
                    Some(Command::Stop) | None => return Err(Ended::Stopped),
                },
            }
        }
    }

    /// Starts a process.
    async fn begin(&self) -> Result<Process, Ended> {
        let broken = |message: String, hint: Option<String>| {
            Ended::Broken(SiteProblem {
                message,
                hint,
                ..SiteProblem::default()
            })
        };
        node::check(&self.settings.root, &self.settings.node)
            .map_err(|error| broken(error.to_string(), Some(error.hint())))?;
        // What the one before has left in a group of its own would go on in its folder, and with its share of processes.
        let ended = self.settings.node.isolation.end(Role::Site).await;
        ended.map_err(|why| {
            Ended::Died(format!("what it left running could not be ended: {why}"))
        })?;
        let (mut group, boot, port) = self
            .spawn()
            .await
            .map_err(|error| broken(format!("Node could not be started: {error}"), None))?;
        let Some((stdin, stdout, stderr)) = group.pipes() else {
            return Err(Ended::Died("its pipes were gone".to_owned()));
        };
        let line = serde_json::json!({ "root": self.settings.root, "port": port, "boot": boot });
        if let Err(error) = self.hold.attach(stdin, line).await {
            return Err(Ended::Died(format!("it took no settings: {error}")));
        }
        let output = self.output.clone();
        let mut drain = JoinSet::new();
        drain.spawn(async move { output.drain(stderr).await });
        let (said, events) = mpsc::channel(16);
        drain.spawn(read_events(stdout, said, self.hold.clone()));
        Ok(Process {
            group,
            boot,
            events,
            drain,
        })
    }

    /// Runs one process to its end.
    async fn serve(&mut self) -> Ended {
        self.publish(SiteState::Starting, None, None);
        let mut process = match self.begin().await {
            Ok(process) => process,
            Err(ended) => return ended,
        };
        let mut problem = None;
        let mut listens = false;
        let mut edited = false;
        let mut probe: Option<std::pin::Pin<Box<dyn Future<Output = probe::Answer> + Send>>> = None;
        let deadline = tokio::time::sleep(LISTEN_TIME_MAX);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                Some(event) = process.events.recv() => match event {
                    // Its watchers missed what changed before; nobody has seen a page of it yet.
                    RunnerEvent::Ready { .. } if edited => {
                        self.halt_group(process.group).await;
                        return Ended::Outdated;
                    }
                    RunnerEvent::Ready { port, addresses } => {
                        listens = true;
                        self.view.send_modify(|view| view.addresses = addresses.clone());
                        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or_default()));
                        tracing::debug!(%address, "the site listens");
                        let boot = process.boot.clone();
                        probe = Some(Box::pin(async move { probe::first_page(address, &addresses, &boot, FIRST_PAGE_TIME_MAX).await }));
                    }
                    RunnerEvent::Failed { problem: failed } => problem = Some(failed),
                    RunnerEvent::Restarted => {
                        tracing::info!("the site restarted itself in place");
                        if self.view.borrow().state == SiteState::Serving {
                            self.publish(SiteState::Starting, None, None);
                            self.halt_group(process.group).await;
                            return Ended::Outdated;
                        }
                    }
                    RunnerEvent::Hot(message) => { self.told.send(Told::Hot(message)).ok(); }
                    RunnerEvent::Changed { file, used, browsers, problem } => { self.told.send(Told::Changed { file, used, browsers, problem }).ok(); }
                    RunnerEvent::Shown => self.revision.advance(Timestamp::now()),
                    // `read_events` keeps these to itself: whoever waits for one may be keeping us from here.
                    RunnerEvent::Did => {}
                },
                ending = process.group.ending() => {
                    let why = ending.map_or_else(|error| error.to_string(), |ending| format!("the dev server {ending}"));
                    let problem = problem.or(process.last_words().await);
                    return match problem {
                        // What changed meanwhile may have mended it.
                        Some(_) if edited => Ended::Outdated,
                        Some(problem) if !listens => Ended::Broken(problem),
                        _ => Ended::Died(why),
                    };
                }
                answer = async { probe.as_mut().expect("guarded").await }, if probe.is_some() => {
                    probe = None;
                    match answer {
                        // Astro 7 never shows a page that was added while it compiled its first one.
                        probe::Answer::Page { .. } if edited => {
                            self.halt_group(process.group).await;
                            return Ended::Outdated;
                        }
                        probe::Answer::Page { address, problem } => {
                            // What changed while it was down, it told nobody of.
                            self.revision.advance(Timestamp::now());
                            self.publish(SiteState::Serving, Some(address), problem);
                        }
                        probe::Answer::Stranger { address } => {
                            self.halt_group(process.group).await;
                            return Ended::Died(format!("another process answers on {address}"));
                        }
                    }
                }
                () = &mut deadline, if !listens => {
                    self.halt_group(process.group).await;
                    return Ended::Died(format!("the dev server did not listen within {} s", LISTEN_TIME_MAX.as_secs()));
                }
                command = self.commands.recv() => match command {
                    Some(Command::Halt { done }) => {
                        // Published first: from here on the door keeps visitors waiting.
                        self.publish(SiteState::Halted, None, None);
                        self.halt_group(process.group).await;
                        done.send(()).ok();
                        return Ended::Halted;
                    }
                    Some(Command::Edited { done }) => {
                        edited |= self.view.borrow().address.is_none();
                        done.send(()).ok();
                    }
                    Some(Command::Judged { problem }) => {
                        let address = self.view.borrow().address;
                        if address.is_some() {
                            self.publish(SiteState::Serving, address, problem);
                        }
                    }
                    Some(Command::Resume { .. }) => {}
                    Some(Command::Stop) | None => {
                        self.publish(SiteState::Halted, None, None);
                        self.halt_group(process.group).await;
                        return Ended::Stopped;
                    }
                },
            }
        }
    }

    async fn spawn(&self) -> std::io::Result<(Group, String, u16)> {
        // Astro 7 takes the file of a dead server for a running one.
        match std::fs::remove_file(self.settings.root.join(".astro/dev.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let port = free_port().await?;
        let mut program = self
            .settings
            .node
            .program(Role::Site, &self.settings.root)
            .arguments([&self.settings.runner]);
        program.variables.extend(self.settings.variables.clone());
        let program = program
            .variable("ASTRO_TELEMETRY_DISABLED", "1")
            .variable("ASTRO_DISABLE_UPDATE_CHECK", "true")
            .variable("ASTRO_DEV_BACKGROUND", "0")
            .variable(
                "NODE_COMPILE_CACHE",
                self.settings.compile_cache.display().to_string(),
            )
            .variable("NO_COLOR", "1");
        Ok((program.start()?, nonce(), port))
    }

    async fn halt_group(&self, group: Group) {
        match group.stop(GRACE).await {
            Ok(ending) => tracing::debug!(%ending, "the dev server was stopped"),
            Err(error) => tracing::warn!(%error, "the dev server's end could not be seen"),
        }
    }

    /// Waits for `time`, or less if somebody edits. Returns whether to go on.
    async fn wait_for_edit(&mut self, time: Duration, reinstall: &mut bool) -> bool {
        // A sleep without end is not to be had; a year is one.
        let sleep = tokio::time::sleep(time.min(Duration::from_secs(365 * 24 * 3600)));
        tokio::select! {
            () = sleep => true,
            command = self.commands.recv() => match command {
                Some(Command::Edited { done }) => {
                    self.restarts.forgive();
                    // Published first: whoever waits for an answer waits for the next one.
                    self.publish(SiteState::Starting, None, None);
                    done.send(()).ok();
                    true
                }
                Some(Command::Judged { .. }) => true,
                Some(Command::Halt { done }) => {
                    self.publish(SiteState::Halted, None, None);
                    done.send(()).ok();
                    self.wait_for_resume(reinstall).await
                }
                Some(Command::Resume { reinstall: again }) => {
                    *reinstall |= again;
                    true
                }
                Some(Command::Stop) | None => false,
            },
        }
    }

    async fn wait_for_resume(&mut self, reinstall: &mut bool) -> bool {
        loop {
            match self.commands.recv().await {
                Some(Command::Resume { reinstall: again }) => {
                    *reinstall |= again;
                    self.restarts.forgive();
                    return true;
                }
                Some(Command::Halt { done }) => {
                    done.send(()).ok();
                }
                Some(Command::Edited { done }) => drop(done.send(())),
                Some(Command::Judged { .. }) => {}
                Some(Command::Stop) | None => return false,
            }
        }
    }

    fn publish(&self, state: SiteState, address: Option<SocketAddr>, problem: Option<SiteProblem>) {
        self.view.send_modify(|view| {
            view.state = state;
            view.address = address;
            view.problem = problem;
            view.has_served |= state == SiteState::Serving;
        });
    }
}

/// Reads what the runner says. In a task of its own: a line that is half read must not be forgotten because something
/// else happens.
///
/// Answers are noted here: who waits for one may be keeping the supervisor from its events.
async fn read_events(
    stdout: tokio::process::ChildStdout,
    said: mpsc::Sender<RunnerEvent>,
    hold: Hold,
) {
    let mut lines = BufReader::new(stdout);
    while let Some(line) = bounded_line(&mut lines, RUNNER_LINE_MAX_BYTES).await {
        match serde_json::from_str(&line) {
            Ok(RunnerEvent::Did) => hold.answered(),
            // Nobody listens any more; it is read all the same, or its writer would block.
            Ok(event) => drop(said.send(event).await),
            Err(error) => tracing::debug!(%error, line, "the runner said something unknown"),
        }
    }
}

/// For the site to read, who may be somebody else, and for nobody but us to write.
fn put_program(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

/// A port of the loopback interface that was free a moment ago. Astro is told to take this one or none, and who answers
/// there is checked.
async fn free_port() -> std::io::Result<u16> {
    Ok(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()?
        .port())
}

fn nonce() -> String {
    contract::id::hex(&crate::random::bytes::<16>())
}
