//! An environment, whoever launched it: a developer, ECS, or the router of a laptop.
//!
//! ```text
//!   Plan   everything that is known before anything is touched ─┐
//!   Seat   the session that is ours, and the ports to it ───────┴─▶ start ─▶ Running ─▶ halt ─▶ Halted
//! ```
//!
//! [`start()`] builds it step by step; [`Running::halt`] takes it apart in the order that is written there. What comes before
//! (whose session it is) and after (what its record says) is the launcher's: [`crate::dev`] or [`mod@crate::run`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::Timestamp;
use contract::client_config::{Policy, SiteSettings};
use contract::proof::Proof;
use contract::session::{Parked, Phase, SiteHealth};
use platform::{Instructions, Receipts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) mod home;
pub(crate) mod interrupt;
mod start;

use home::Home;
pub(crate) use start::{salvage, start};

use crate::activity::Activity;
use crate::content::Fetcher;
use crate::door::{Hosts, Stage};
use crate::draft::Remote;
use crate::events::{Event, Events, PhaseName, PhaseState};
use crate::failure::{Exit, Failure, chain};
use crate::idle;
use crate::isolation::proof::Guarded;
use crate::lease::Lease;
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::pipeline::{Ending, Identity, PipelineView, Results, Workshop};
use crate::pulse::Pulse;
use crate::site::Site;
use crate::site::node::Node;

/// Everything that is known before anything is touched.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its folders.
    pub(crate) home: Home,
    /// The client's repository.
    pub(crate) remote: Remote,
    /// The published branch; the remote's default if absent.
    pub(crate) published_branch: Option<String>,
    /// Where the door listens.
    pub(crate) listener: TcpListener,
    /// The same, as an address.
    pub(crate) address: SocketAddr,
    /// Where others reach it: a door that listens on all addresses is at none of them.
    pub(crate) reached_at: IpAddr,
    /// The host names by which the door is known.
    pub(crate) hosts: Hosts,
    /// What runs the site.
    pub(crate) node: Node,
    /// How the site is built.
    pub(crate) site: SiteSettings,
    /// What instructions may do.
    pub(crate) policy: Policy,
    /// Whether dependencies are put in place; if not, they are there.
    pub(crate) install: bool,
    /// How what instructions have elsewhere is fetched.
    pub(crate) content: Fetcher,
    /// Whether pages show the bar.
    pub(crate) bar: bool,
    /// Whether whoever looks at the site develops it.
    pub(crate) developer: bool,
    /// What the site, its builds and the editor must not get at; it is not tried where they are nobody else.
    pub(crate) guarded: Guarded,
    /// When it sleeps by itself; never if absent.
    pub(crate) idle: Option<idle::Settings>,
    /// How often the remote is asked what others pushed.
    pub(crate) look_every: Duration,
}

/// The session that is ours, and the ports to it.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// Whose it is and where instructions land.
    pub(crate) identity: Identity,
    /// The right to act for it.
    pub(crate) lease: Lease,
    /// What the router proves and is proven; whoever can reach the door is answered if absent.
    pub(crate) proof: Option<Proof>,
    /// What environments before parked; none where nothing is ever parked, because the workspace stays.
    pub(crate) parked: Option<Vec<Kept>>,
    /// When somebody last did something, as the record says.
    pub(crate) last_activity_at: Option<Timestamp>,
    /// Where instructions wait.
    pub(crate) queue: Arc<dyn Instructions>,
    /// Where those go that nobody could carry out.
    pub(crate) dead: Arc<dyn Instructions>,
    /// What became of them.
    pub(crate) receipts: Arc<dyn Receipts>,
    /// The client's queue for final receipts.
    pub(crate) results: Results,
}

/// What an environment before parked.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// What it is.
    pub(crate) parked: Parked,
    /// The bundle, if it is in one and could be read.
    pub(crate) bundle: Option<Vec<u8>>,
}

/// What an environment before parked, and this one has taken up.
#[derive(Debug, Clone)]
pub(crate) struct TakenUpBefore {
    /// What it was.
    pub(crate) parked: Parked,
    /// Whether all of it came back. What did not is only where it was parked.
    pub(crate) whole: bool,
}

/// Who is told how far a start is.
#[derive(Debug)]
pub(crate) struct Boot {
    /// Listeners here.
    pub(crate) events: Events,
    /// The record, once the session is ours.
    pub(crate) lease: Option<Lease>,
    /// How long each phase may take; for ever if nobody waits but the one who can interrupt it.
    pub(crate) budget: Option<fn(PhaseName) -> Duration>,
    /// Who is shown the progress of long work.
    pub(crate) progress: Progress,
    /// Where it is measured.
    pub(crate) metrics: Option<Metrics>,
}

/// Shows the progress of long work to people who look at a terminal. By default to nobody.
#[derive(Clone)]
pub(crate) struct Progress {
    /// What happens, in words.
    pub(crate) say: Arc<dyn Fn(&str) + Send + Sync>,
    /// How many of how many objects have been received.
    pub(crate) transfer: Arc<dyn Fn(usize, usize) + Send + Sync>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            say: Arc::new(|_| ()),
            transfer: Arc::new(|_, _| ()),
        }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl Boot {
    /// Goes through a phase: says that it begins, does the work within its budget, and says that it is done.
    ///
    /// The work is cut off when the session is another's.
    pub(crate) async fn phase<T>(
        &self,
        phase: PhaseName,
        work: impl Future<Output = Result<(T, Option<String>), Failure>>,
    ) -> Result<T, Failure> {
        self.events.publish(Event::Phase {
            phase,
            state: PhaseState::Started,
            ms: None,
            detail: None,
        });
        tracing::info!(phase = phase.as_str(), "begins");
        let began = Instant::now();
        // A whole start is one large future otherwise, moved about at every step.
        let work = Box::pin(work);
        // The record is told beside the work: a visitor's waiting page is worth a write, not a wait.
        let told = async {
            match &self.lease {
                Some(lease) => lease.phase(phase.of_session()).await.map_err(lease_lost),
                None => Ok(()),
            }
        };
        let within = async {
            match self.budget.map(|budget| budget(phase)) {
                None => work.await,
                Some(budget) => tokio::time::timeout(budget, work).await.unwrap_or_else(|_| {
                    Err(Failure::new(
                        Exit::TooSlow,
                        format!("the phase `{}` took longer than its {} s", phase.as_str(), budget.as_secs()),
                        "Look at what it was doing; the next wake begins again with what is there.",
                    ))
                }),
            }
        };
        let done = tokio::select! {
            done = async { tokio::try_join!(within, told) } => done,
            failure = self.session_lost() => Err(failure),
        };
        match done {
            Ok(((made, detail), ())) => {
                let took = began.elapsed();
                if let Some(metrics) = &self.metrics {
                    metrics.boot_phase(phase, took);
                }
                tracing::info!(
                    phase = phase.as_str(),
                    ms = milliseconds(took),
                    detail,
                    "done"
                );
                self.events.publish(Event::Phase {
                    phase,
                    state: PhaseState::Done,
                    ms: Some(milliseconds(took)),
                    detail,
                });
                Ok(made)
            }
            Err(failure) => {
                self.events.publish(Event::Phase {
                    phase,
                    state: PhaseState::Failed,
                    ms: Some(milliseconds(began.elapsed())),
                    detail: None,
                });
                Err(failure)
            }
        }
    }

    /// Waits until the session is another's.
    pub(crate) async fn session_lost(&self) -> Failure {
        match &self.lease {
            Some(lease) => {
                lease.lost().await;
                stepped_down(lease)
            }
            None => std::future::pending().await,
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn lease_lost(error: crate::lease::LeaseError) -> Failure {
    let exit = match &error {
        crate::lease::LeaseError::Refused(_) => Exit::SteppedDown,
        crate::lease::LeaseError::Backend(_) => Exit::Backend,
    };
    Failure::new(
        exit,
        format!(
            "the session's record could not be written: {}",
            chain(&error)
        ),
        "Check the table of the sessions and the right to write to it.",
    )
}

/// The session is another's: nothing is touched any more.
pub(crate) fn stepped_down(lease: &Lease) -> Failure {
    Failure::new(
        Exit::SteppedDown,
        format!("another environment has the session: {}", lease.why_lost()),
        "Nothing is to be done: that one serves.",
    )
}

impl PhaseName {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Claim => "claim",
            Self::Clone => "clone",
            Self::Install => "install",
            Self::Serve => "serve",
        }
    }

    fn of_session(self) -> Phase {
        match self {
            Self::Config => Phase::Config,
            Self::Claim => Phase::Claim,
            Self::Clone => Phase::Clone,
            Self::Install => Phase::Install,
            Self::Serve => Phase::Serve,
        }
    }
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) home: Home,
    pub(crate) seat: Seat,
    pub(crate) address: SocketAddr,
    /// Where commits are pushed, for people.
    pub(crate) remote: String,
    pub(crate) site: Site,
    /// How the site was when it first answered.
    pub(crate) health: SiteHealth,
    /// The folder of the site in the work tree.
    pub(crate) site_root: PathBuf,
    /// What the pipeline is doing.
    pub(crate) view: watch::Receiver<PipelineView>,
    /// What people do.
    pub(crate) activity: Activity,
    /// That somebody goes on deciding whether it sleeps.
    pub(crate) life: Pulse,
    /// What was parked before.
    taken_up: Vec<TakenUpBefore>,
    pipeline: JoinSet<Workshop>,
    /// The task of the door.
    door: Loops,
    tasks: Loops,
    stage: watch::Sender<Stage>,
    ending: Ending,
    /// Closes the door.
    closing: CancellationToken,
    stop_rest: CancellationToken,
}

/// What is left when nothing runs any more.
#[derive(Debug)]
pub(crate) struct Halted {
    pub(crate) home: Home,
    pub(crate) seat: Seat,
    /// What was parked before.
    pub(crate) taken_up: Vec<TakenUpBefore>,
    /// The draft and the work tree.
    pub(crate) workshop: Result<Workshop, Unfinished>,
    /// Where it ended: the newest commit of the draft.
    pub(crate) commit: Option<String>,
    /// Commits that are not on the remote.
    pub(crate) unpushed: usize,
    /// Files that somebody changed by hand and did not commit.
    pub(crate) uncommitted: Vec<String>,
    /// Whether what is not on the remote may be pushed: not after a crash, when nobody has looked at it as it stands.
    pub(crate) may_push: bool,
}

/// Why a pipeline did not give back what it worked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// It broke, which is a defect.
    Broke,
    /// It did not end in time, or was not to.
    CutOff,
}

/// How much is finished before it halts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Everything that waits in the queue.
    Settle,
    /// The instruction that runs, or it is taken back.
    Finish,
    /// Nothing: the session is another's.
    Abandon,
}

impl Running {
    /// How the pipeline is told to end.
    pub(crate) fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// Waits until one of its loops has broken: the pipeline, which never ends by itself, or another by a panic.
    pub(crate) async fn broke(&self) {
        let broken = self.tasks.broken();
        tokio::select! {
            () = self.ending.ended() => {}
            () = broken.heard_of() => {}
        }
    }

    /// Stops, in this order: nothing new is taken on; the instruction that runs is finished and pushed, or taken back; the
    /// files it put off are written; the site stops; the door closes.
    pub(crate) async fn halt(mut self, haste: Haste, time: Duration) -> Halted {
        self.stage.send_replace(Stage::Draining);
        match haste {
            Haste::Settle => self.ending.when_empty(),
            Haste::Finish => self.ending.now(),
            Haste::Abandon => {
                self.ending.now();
                self.pipeline.abort_all();
            }
        }
        let ended = tokio::time::timeout(time, self.pipeline.join_next()).await;
        let workshop = match ended {
            Ok(Some(Ok(workshop))) => Ok(workshop),
            Ok(Some(Err(error))) if error.is_cancelled() => Err(Unfinished::CutOff),
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "the pipeline broke");
                Err(Unfinished::Broke)
            }
            Ok(None) => Err(Unfinished::Broke),
            Err(_) => {
                tracing::warn!(
                    "the running instruction did not end in time; it goes on at the next start"
                );
                Err(Unfinished::CutOff)
            }
        };
        let halted = Halted::with(self.home, self.seat, self.taken_up, workshop).await;
        self.stop_rest.cancel();
        self.site.stop().await;
        self.closing.cancel();
        for tasks in [&mut self.tasks, &mut self.door] {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a task broke");
                }
            }
        }
        halted
    }
}

impl Halted {
    /// Looks at what is left. Whatever goes wrong with that, the steps after it are taken all the same.
    async fn with(
        home: Home,
        seat: Seat,
        taken_up: Vec<TakenUpBefore>,
        workshop: Result<Workshop, Unfinished>,
    ) -> Self {
        let mut halted = Self {
            home,
            seat,
            taken_up,
            workshop,
            commit: None,
            unpushed: 0,
            uncommitted: Vec::new(),
            may_push: true,
        };
        let Ok(workshop) = &mut halted.workshop else {
            return halted;
        };
        if let Err(error) = workshop.settled().await {
            tracing::error!(error = %chain(&error), "not everything could be shown; it is put right at the next start");
        }
        match workshop.summary().await {
            Ok((tip, waiting)) => {
                halted.commit = Some(tip.to_string());
                halted.unpushed = waiting;
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the draft could not be read");
            }
        }
        // It is nowhere else: whoever throws the workspace away has to know.
        match workshop.uncommitted().await {
            Ok(files) => halted.uncommitted = files.into_iter().collect(),
            Err(error) => {
                tracing::error!(error = %chain(&error), "what is changed by hand could not be examined");
            }
        }
        halted
    }
}

/// Opens the port of the door.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "Stop what listens there, or choose another one with --port (0 takes any)."
            }
            std::io::ErrorKind::PermissionDenied => {
                "Choose a port above 1023 with --port (0 takes any)."
            }
            _ => "Choose an address of this machine with --host.",
        };
        Failure::new(
            Exit::Port,
            format!("could not listen on {address}: {error}"),
            hint,
        )
    })
}
