//! An environment in the cloud's seat: launched for one session of one client, by ECS or by the router of a laptop.
//!
//! ```text
//!  settings ─▶ config ─▶ claim ─▶ clone ─▶ install ─▶ serve ─▶ ready ─┬─ nobody needs it ──▶ settle ─▶ park ─▶ dormant, 0
//!                │          │        └───────┴──────────┤              ├─ SIGTERM ─────────▶ finish ─▶ park ─▶ dormant, 0
//!                │          └─ another's ─▶ 18          │              └─ another's ────────▶ abandon ─────────▶ 18
//!                └──────────────────────────────────────┴─▶ failure{code} in the record, and the exit code that goes with it
//!
//!  a last start, after a crash (`save`):  config ─▶ claim ─▶ clone ─▶ park ─▶ dormant, 0
//! ```
//!
//! The record of the session says at each step what is true: the waiting page shows it, and the router goes by it.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::client_config::ClientStatus;
use contract::proof::Proof;
use contract::session::{Parked, ParkedAt, Phase, State, Transition};
use contract::{ClientConfig, Session, Timestamp};
use platform::PortError;
use telemetry::{Everywhere, Output};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod backend;
mod check;
mod life;
mod parking;
mod settings;
mod task;

pub(crate) use check::check;
pub(crate) use settings::{Settings, Wanted, explain};

use backend::{BACKEND_HINT, Backend, SessionQueues, failure};
use life::Reason;
use task::Task;

use crate::door::Hosts;
use crate::draft::{self, Credentials, Remote};
use crate::environment::home::{self, Home};
use crate::environment::interrupt::Interrupt;
use crate::environment::{self, Boot, Halted, Haste, Plan, Progress, Running, Seat};
use crate::events::{Event, Events, PhaseName};
use crate::failure::{Exit, Failure};
use crate::idle;
use crate::isolation::proof::{Guarded, Secret};
use crate::isolation::{Isolation, Users};
use crate::lease::{self, Lease, LeaseError, Terms};
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::pipeline::{Identity, Results};
use crate::site::{self, node::Node};
use crate::words;

/// How often the remote is asked what others pushed: at most six times a minute.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the instruction that runs may take when the environment is to stop: with the site, the door and the record it is
/// to be over within 20 s.
const FINISH_TIME_MAX: Duration = Duration::from_secs(12);
/// How long what came at the last moment may take when the environment goes to sleep: as long as the longest instruction.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(35 * 60);

/// How long it may take to let go of a session that is another's: nothing is finished.
const ABANDON_TIME_MAX: Duration = Duration::from_secs(5);

/// How long it may take to have what is needed beside the session.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long everything may take once it is told to stop, but for the last word of what failed: ECS kills what has not ended
/// 120 s after it was asked.
const STOP_TIME_MAX: Duration = Duration::from_secs(90);
/// How long a last start may take at least, however much of the time to stop had gone before the crash.
const SAVE_TIME_MIN: Duration = Duration::from_secs(15);
/// How long that last word may take.
const LAST_WORD_TIME_MAX: Duration = Duration::from_secs(15);
/// How long it may take to tell the record that it stops; the stop itself does not wait for it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long it may take to tell the record that it sleeps.
const SLEEP_TIME_MAX: Duration = Duration::from_secs(20);

/// How long each phase may take. What goes on for longer is stuck, and the waiting page would say for ever that it goes on.
fn budget(phase: PhaseName) -> Duration {
    let seconds = match phase {
        PhaseName::Config | PhaseName::Claim => 30,
        // A large repository over a slow line.
        PhaseName::Clone => 5 * 60,
        // A cold install of a large site.
        PhaseName::Install => 15 * 60,
        // The first compilation.
        PhaseName::Serve => 3 * 60,
    };
    Duration::from_secs(seconds)
}

/// 2026: this was written later. Whoever believes in an earlier time takes every lease for one that lasts, and is refused by AWS.
const EARLIEST: i64 = 1_767_225_600_000;

/// Fails if the clock of this machine cannot be right.
pub(crate) fn refuse_a_wrong_clock(now: Timestamp) -> Result<(), Failure> {
    if now.unix_ms() >= EARLIEST {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Clock,
        format!("the clock of this machine says that it is {now}"),
        "Set it. Who acts for a session is decided by time, and AWS refuses requests that are minutes off.",
    )
    .retryable(true))
}

/// Runs the environment of a session, from its configuration to its sleep.
pub(crate) async fn run(
    settings: Settings,
    users: Option<Users>,
    everywhere: Everywhere,
    output: Output,
) -> Result<Exit, Failure> {
    everywhere.say("client_id", settings.client_id.as_str());
    everywhere.say("session_id", settings.session_id.redacted());
    let metrics = Metrics::new(settings.client_id.clone(), output);
    let mut interrupt = Interrupt::of_a_container()?;
    let events = Events::new();
    let backend = Backend::open(&settings).await?;
    let mut boot = Boot {
        events,
        lease: None,
        budget: Some(budget),
        progress: Progress::default(),
        metrics: Some(metrics.clone()),
    };
    let mut keeper = Keeper::default();
    let mut counting = JoinSet::new();
    let counted = CancellationToken::new();
    counting.spawn(count(boot.events.clone(), metrics.clone(), counted.clone()));
    let began = Instant::now();
    let ended = if let Some(ago) = settings.asked_to_end {
        let saving = save(
            &settings,
            users,
            &backend,
            &everywhere,
            &mut boot,
            &mut keeper,
            &metrics,
        );
        let left = STOP_TIME_MAX.saturating_sub(ago).max(SAVE_TIME_MIN);
        tokio::select! {
            biased;
            saved = tokio::time::timeout(left, saving) => saved.unwrap_or_else(|_| Err(out_of_time())),
            () = interrupt.requested() => Err(not_saved("it was told to stop at once")),
        }
    } else {
        let started = tokio::select! {
            started = start(&settings, users, &backend, &everywhere, &mut boot, &mut keeper) => started,
            () = interrupt.requested() => Err(stopped_early(settings.restarts > 0 && !std::io::stdin().is_terminal())),
        };
        match started {
            Ok(started) => {
                metrics.booted(began.elapsed());
                tracing::info!(
                    ms = u64::try_from(began.elapsed().as_millis()).ok(),
                    site = ?started.running.health,
                    "ready"
                );
                live(started, &backend, &metrics, &mut interrupt, &mut keeper).await
            }
            Err(failure) => {
                metrics.boot_failed(failure.code());
                Err(failure)
            }
        }
    };
    if let Err(failure) = &ended {
        say_why(boot.lease.as_ref(), failure).await;
    }
    keeper.stop().await;
    counted.cancel();
    while counting.join_next().await.is_some() {}
    ended
}

/// It was told to stop before it was ready. Where that is after a crash, the workspace may hold what is nowhere else: it ends as if it had
/// crashed again, so that init starts it one last time, for saving that. (Init does not hear the keys of a terminal.)
fn stopped_early(is_restart: bool) -> Failure {
    if is_restart {
        return Failure::new(
            Exit::Crashed,
            "stopped before it was ready, after a crash",
            "It is started one last time, and saves what that left.",
        );
    }
    Failure::new(
        Exit::Interrupted,
        "stopped before it was ready",
        "Nothing is half done; the next wake begins anew.",
    )
    .retryable(true)
}

/// One of its loops broke: as if it had been killed. What it was at is in the journal, and nothing is said in the record, which its next
/// start in this container goes on with. If there is none, the lease runs out.
fn broke() -> Failure {
    Failure::new(
        Exit::Crashed,
        "a loop of the agent broke",
        "Look at the log for the panic, which is a defect of the agent. Nothing is lost: the next start goes on from the workspace or the remote.",
    )
}

/// Not everything is where the next environment finds it.
fn not_saved(why: &str) -> Failure {
    Failure::new(
        Exit::NotSaved,
        format!("it could not save everything: {why}"),
        "What instructions were to do is still in the queue; what was changed by hand is in the workspace.",
    )
    .retryable(true)
}

fn out_of_time() -> Failure {
    not_saved("it did not do so in the time it had")
}

/// Counts what becomes of instructions.
async fn count(events: Events, metrics: Metrics, stop: CancellationToken) {
    let (_, mut live) = events.subscribe(None);
    loop {
        let heard = tokio::select! {
            // What has happened is counted before the end.
            biased;
            heard = live.recv() => heard,
            () = stop.cancelled() => return,
        };
        match heard {
            Ok(numbered) => {
                if let Event::Receipt { receipt } = &*numbered.event {
                    metrics.receipt(receipt);
                    if let Some(waited) = receipt.timings.queued_ms {
                        metrics.queue_age(Duration::from_millis(waited));
                    }
                }
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "some outcomes were not counted");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Renews the lease, from the claim to the last write.
#[derive(Debug, Default)]
struct Keeper {
    stop: CancellationToken,
    task: Loops,
}

impl Keeper {
    fn keep(&mut self, lease: &Lease) {
        self.task.spawn(lease.clone().keep(self.stop.clone()));
    }

    /// Nothing of it is under way afterwards.
    async fn stop(&mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

/// An environment that serves.
struct Started {
    running: Running,
    idle: idle::Settings,
}

async fn start(
    settings: &Settings,
    users: Option<Users>,
    backend: &Backend,
    everywhere: &Everywhere,
    boot: &mut Boot,
    keeper: &mut Keeper,
) -> Result<Started, Failure> {
    let read = first(settings, backend, boot).await?;
    let (plan, seat, config) =
        take(settings, users, backend, everywhere, read, boot, keeper).await?;
    let idle = life::settings(&config);
    let running = Box::pin(environment::start(plan, seat, boot)).await?;
    Ok(Started { running, idle })
}

/// The last start, after it was told to stop: saves what a crash left in the workspace. No code of the site runs.
async fn save(
    settings: &Settings,
    users: Option<Users>,
    backend: &Backend,
    everywhere: &Everywhere,
    boot: &mut Boot,
    keeper: &mut Keeper,
    metrics: &Metrics,
) -> Result<Exit, Failure> {
    let found = async {
        let read = first(settings, backend, boot).await?;
        let is_ours = (settings.generation).is_none_or(|ours| ours == read.session.generation);
        if read.session.state == State::Dormant && is_ours {
            return Ok(None);
        }
        let (plan, seat, _) =
            take(settings, users, backend, everywhere, read, boot, keeper).await?;
        match Box::pin(environment::salvage(plan, seat, boot)).await? {
            Some(halted) => Ok(Some(halted)),
            None => Err(stopped_early(false)),
        }
    };
    let found = found.await.map_err(|failure| match failure.exit {
        Exit::SteppedDown | Exit::Interrupted => failure,
        _ => not_saved(&failure.message),
    })?;
    match found {
        Some(halted) => end(halted, backend, metrics, keeper).await,
        None => {
            tracing::info!("everything was saved before");
            Ok(Exit::Success)
        }
    }
}

/// What is known before the session is ours.
async fn first(settings: &Settings, backend: &Backend, boot: &Boot) -> Result<Read, Failure> {
    let (read, (), git) = tokio::join!(
        boot.phase(PhaseName::Config, read(settings, backend)),
        say_that_it_begins(settings, backend),
        // Beside what is waited for anyway.
        tokio::task::spawn_blocking(draft::prepare_git),
    );
    git.map_err(|error| Failure::internal("make git ready", &error))??;
    read
}

/// Makes the session ours, and gets ready what it needs.
async fn take(
    settings: &Settings,
    users: Option<Users>,
    backend: &Backend,
    everywhere: &Everywhere,
    read: Read,
    boot: &mut Boot,
    keeper: &mut Keeper,
) -> Result<(Plan, Seat, ClientConfig), Failure> {
    let claimed = boot
        .phase(PhaseName::Claim, claim(settings, backend, &read))
        .await?;
    keeper.keep(&claimed.lease);
    everywhere.say("generation", claimed.lease.generation().0);
    boot.lease = Some(claimed.lease.clone());
    // What is wrong with the configuration is said in the record, so the session has to be ours first.
    let config = usable(settings, read.config?)?;
    let task = read.task?;
    let lease = claimed.lease.clone();
    let prepared = async {
        let said = lease.phase(Phase::Claim);
        let prepared = prepare(settings, users, backend, &config, claimed, task.ip);
        let (said, prepared) = tokio::join!(said, prepared);
        // Whose session it is goes before what is wrong with the rest.
        said.map_err(|error| not_taken(settings, &error))?;
        prepared
    };
    let (plan, seat) = tokio::select! {
        prepared = tokio::time::timeout(PREPARE_TIME_MAX, prepared) => prepared.unwrap_or_else(|_| Err(Failure::new(
            Exit::TooSlow,
            "what the environment needs beside its session could not be had in time",
            "Look at what it was asking for: the deploy key, the queue, the receipts, what was parked.",
        )))?,
        failure = boot.session_lost() => return Err(failure),
    };
    Ok((plan, seat, config))
}

/// Says in the record that a task is there, where the router has told us its generation: the session is not claimed yet, and
/// nothing hangs on it but what the waiting page shows.
async fn say_that_it_begins(settings: &Settings, backend: &Backend) {
    let Some(generation) = settings.generation else {
        return;
    };
    let now = Timestamp::now();
    let step = Transition::Phase {
        phase: Phase::Config,
        lease_until: now.plus(Terms::CONTAINER.validity),
    };
    let told = backend
        .sessions
        .transition(&settings.session_id, generation, &step, 1, now)
        .await;
    match told {
        Ok(Ok(_)) => {}
        Ok(Err(refused)) => tracing::debug!(%refused, "the record did not take the first phase"),
        Err(error) => {
            tracing::debug!(error = %crate::chain(&error), "the record was not told the first phase");
        }
    }
}

/// Everything beside the session that has to be there: what is wrong with it is said before anything is cloned.
async fn prepare(
    settings: &Settings,
    users: Option<Users>,
    backend: &Backend,
    config: &ClientConfig,
    claimed: ClaimedSession,
    reached_at: IpAddr,
) -> Result<(Plan, Seat), Failure> {
    let ClaimedSession { lease, session } = claimed;
    let queues = backend.queues(settings, &session, config);
    let idle = life::settings(config);
    let (plan, kept, ()) = tokio::try_join!(
        plan(settings, users, backend, config, &session, reached_at, idle),
        async { Ok(parking::fetch(backend, session.parked.clone()).await) },
        async {
            match settings.asked_to_end {
                // Nothing is carried out any more.
                Some(_) => Ok(()),
                None => within_reach(backend, &queues, &session).await,
            }
        },
    )?;
    let proof = proof(&session)?;
    let seat = Seat {
        identity: Identity {
            client_id: session.client_id,
            session_id: session.session_id,
            thread_id: session.thread_id,
            branch: session.draft_branch,
            preview_url: session.preview_url,
        },
        lease,
        proof: Some(proof),
        parked: Some(kept),
        last_activity_at: session.last_activity_at,
        queue: queues.own,
        dead: queues.dead,
        receipts: Arc::clone(&backend.receipts),
        results: Results::from(queues.results),
    };
    Ok((plan, seat))
}

/// How long what instructions go through may take to say that it is there. Who does not answer in time may do so when the
/// first instruction comes, and meanwhile people see their pages.
const REACH_TIME_MAX: Duration = Duration::from_secs(5);

/// Fails if the queue or the receipts are not there, or do not let us: then no instruction could ever be carried out, and
/// the environment would wait for ever for what cannot come.
async fn within_reach(
    backend: &Backend,
    queues: &SessionQueues,
    session: &Session,
) -> Result<(), Failure> {
    let (queue, receipts) = tokio::join!(
        tokio::time::timeout(REACH_TIME_MAX, queues.own.depth()),
        tokio::time::timeout(
            REACH_TIME_MAX,
            backend.receipts.recent(&session.session_id, 1)
        ),
    );
    let answers = [
        (
            "ask the session's queue",
            queue.map(|answer| answer.map(drop)),
        ),
        ("read the receipts", receipts.map(|answer| answer.map(drop))),
    ];
    for (operation, answer) in answers {
        let Ok(answer) = answer else {
            tracing::warn!("could not {operation} in time; the environment starts all the same");
            continue;
        };
        match answer {
            // A receipt that cannot be read is for whoever asks for it.
            Ok(()) | Err(PortError::Corrupt { .. }) => {}
            Err(error) if error.is_transient() => {
                tracing::warn!(error = %crate::chain(&error), "could not {operation}; the environment starts all the same");
            }
            Err(error) => return Err(failure(operation, &error)),
        }
    }
    Ok(())
}

/// What the router proves and is proven.
fn proof(session: &Session) -> Result<Proof, Failure> {
    let missing = || {
        Failure::new(
            Exit::Config,
            format!(
                "the record of session {}… has no usable proofKey",
                session.session_id.redacted()
            ),
            "Whoever wakes a session writes one: 32 random bytes in hexadecimal.",
        )
    };
    let key = session.proof_key.as_ref().ok_or_else(missing)?;
    Proof::new(key, session.session_id.clone(), session.generation).map_err(|_| missing())
}

/// What the records say, and which task this is.
#[derive(Debug)]
struct Read {
    /// The client's configuration, if there is one; or why it could not be read.
    config: Result<Option<ClientConfig>, Failure>,
    session: Session,
    /// Which task this is; or why nobody says so.
    task: Result<Task, Failure>,
}

async fn read(settings: &Settings, backend: &Backend) -> Result<(Read, Option<String>), Failure> {
    let config = patiently("read the client's configuration", || {
        backend.clients.get(&settings.client_id)
    });
    let session = patiently("read the session's record", || {
        backend.sessions.get(&settings.session_id)
    });
    let (config, session, task) = tokio::join!(config, session, task::find(settings));
    let Some(session) = session? else {
        return Err(Failure::new(
            Exit::Config,
            format!("there is no session {}…", settings.session_id.redacted()),
            "Check SESSION_ID and SESSIONS_TABLE: the router makes the record before it starts a task.",
        ));
    };
    if session.client_id != settings.client_id {
        return Err(Failure::new(
            Exit::Config,
            format!(
                "the session {}… is not a session of the client {}",
                settings.session_id.redacted(),
                settings.client_id
            ),
            "Check CLIENT_ID and SESSION_ID.",
        ));
    }
    let task_name = task.as_ref().map_or("unknown", |task| task.arn.as_str());
    let detail = format!("client {}, task {task_name}", settings.client_id);
    Ok((
        Read {
            config,
            session,
            task,
        },
        Some(detail),
    ))
}

/// How long a port is asked again that does not answer: less than a phase has, so that what ends the start is what the
/// port said, and not that the time was over.
const PATIENCE: Duration = Duration::from_secs(25);

fn no_answer(operation: &str) -> Failure {
    Failure::new(
        Exit::Backend,
        format!(
            "could not {operation}: no answer within {} s",
            PATIENCE.as_secs()
        ),
        BACKEND_HINT,
    )
    .retryable(true)
}

/// Asks a port again and again while it does not answer.
async fn patiently<T, F: Future<Output = platform::Result<T>>>(
    operation: &'static str,
    mut ask: impl FnMut() -> F,
) -> Result<T, Failure> {
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(250);
    let mut last = None;
    while let Ok(answer) = tokio::time::timeout_at(until, ask()).await {
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() => {
                // Once: what it says in the end is in the failure.
                if last.is_none() {
                    tracing::warn!(error = %crate::chain(&error), "could not {operation}; it is tried again");
                }
                last = Some(failure(operation, &error));
            }
            Err(error) => return Err(failure(operation, &error)),
        }
        if tokio::time::Instant::now() + pause >= until {
            break;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(last.unwrap_or_else(|| no_answer(operation)))
}

/// The session is ours.
#[derive(Debug)]
struct ClaimedSession {
    lease: Lease,
    session: Session,
}

async fn claim(
    settings: &Settings,
    backend: &Backend,
    read: &Read,
) -> Result<(ClaimedSession, Option<String>), Failure> {
    let slots = read
        .config
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map_or(1, |config| config.settings.max_concurrent_sessions);
    // What is wrong with the endpoint is said in the record, so the session has to be ours first: by a name that no other
    // task has.
    let task = read.task.as_ref().map_or_else(
        |_| {
            format!(
                "unnamed-{}",
                contract::id::hex(&crate::random::bytes::<8>())
            )
        },
        |task| task.arn.clone(),
    );
    let is_own = read.session.task_arn.as_ref() == Some(&task);
    if is_own {
        tracing::warn!(
            state = ?read.session.state,
            restarts = settings.restarts,
            "the session is this task's already: the agent was started anew"
        );
    }
    let generation = match settings.generation {
        Some(generation) => generation,
        None if is_own => read.session.generation,
        None => lease::wake(
            backend.sessions.as_ref(),
            &read.session,
            slots,
            Terms::CONTAINER,
        )
        .await
        .map_err(|error| not_taken(settings, &error))?,
    };
    let (lease, session) = Lease::claim(
        Arc::clone(&backend.sessions),
        &settings.session_id,
        generation,
        task,
        slots,
        Terms::CONTAINER,
    )
    .await
    .map_err(|error| not_taken(settings, &error))?;
    let detail = format!("generation {generation}");
    Ok((ClaimedSession { lease, session }, Some(detail)))
}

fn not_taken(settings: &Settings, error: &LeaseError) -> Failure {
    match error {
        LeaseError::Backend(error) => failure("take the session", error),
        LeaseError::Refused(refused) => Failure::new(
            Exit::SteppedDown,
            format!(
                "the session {}… was not taken: {refused}",
                settings.session_id.redacted()
            ),
            "Another environment has it, or the record was woken again: nothing was touched. A lease that nobody renews is over after 30 s.",
        ),
    }
}

/// The client's configuration, if it may have an environment by it.
fn usable(settings: &Settings, config: Option<ClientConfig>) -> Result<ClientConfig, Failure> {
    let Some(config) = config else {
        return Err(Failure::new(
            Exit::Config,
            format!(
                "there is no configuration of the client {}",
                settings.client_id
            ),
            "Put one into CLIENT_CONFIGS_TABLE; `edit-agent schema client-config` prints its schema.",
        ));
    };
    match config.status {
        ClientStatus::Active => Ok(config),
        // What was there before is saved all the same.
        ClientStatus::Suspended if settings.asked_to_end.is_some() => Ok(config),
        ClientStatus::Suspended => Err(Failure::new(
            Exit::Suspended,
            format!("the client {} is suspended", settings.client_id),
            "Set its status to active if it may have environments again.",
        )),
    }
}

/// Everything that can be known before anything is touched.
async fn plan(
    settings: &Settings,
    users: Option<Users>,
    backend: &Backend,
    config: &ClientConfig,
    session: &Session,
    reached_at: IpAddr,
    idle: idle::Settings,
) -> Result<Plan, Failure> {
    if let Some(users) = &users {
        Users::own(&settings.state)?;
        users.end_all().await?;
    }
    let home = Home::open(
        home::state_folder(Some(&settings.state))?,
        &home::key(config.client_id.as_str(), session.session_id.as_str()),
        None,
    )?;
    let isolation = match users {
        Some(users) => users.arrange(&home)?,
        None => {
            site::end_orphans(&home.tree()).await;
            Isolation::none()
        }
    };
    let listener =
        environment::listen(SocketAddr::new(settings.place.listen, settings.port)).await?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::internal("read the port", &error))?;
    let node = Node::find(None, isolation).await?;
    let (remote, deploy_key) = match remote(backend, config).await {
        // What cannot be put on the remote is put into a bundle.
        Err(failure) if settings.asked_to_end.is_some() => {
            tracing::warn!(why = %failure.message, "the remote will not know us");
            with_deploy_key(config, String::new())
        }
        remote => remote?,
    };
    let secrets = Secret::of_environment()
        .into_iter()
        .chain(Secret::new("the deploy key", deploy_key.trim()))
        .chain(
            session
                .proof_key
                .as_ref()
                .and_then(|key| Secret::new("proofKey", key.0.as_bytes())),
        )
        .collect();
    let guarded = Guarded::of(&home, secrets, address);
    Ok(Plan {
        home,
        remote,
        published_branch: Some(config.repository.branch.clone()),
        listener,
        address,
        reached_at,
        hosts: hosts(settings, config, session),
        node,
        site: config.site.clone().unwrap_or_default(),
        policy: config.policy.clone().unwrap_or_default(),
        install: true,
        content: backend.content(),
        bar: true,
        developer: false,
        guarded,
        idle: Some(idle),
        look_every: LOOK_EVERY,
    })
}

/// The client's repository, how we prove who we are, and with what.
async fn remote(backend: &Backend, config: &ClientConfig) -> Result<(Remote, String), Failure> {
    let url = &config.repository.url;
    if !Remote::is_address(url) || url.starts_with("file://") {
        let path = url.strip_prefix("file://").unwrap_or(url);
        let remote = Remote::Local { path: path.into() };
        return Ok((remote, String::new()));
    }
    let secret = match &config.repository.deploy_key {
        None => None,
        Some(reference) => {
            let secret =
                patiently("read the deploy key", || backend.secrets.read(reference)).await?;
            Some(secret.ok_or_else(|| {
                Failure::new(
                    Exit::Config,
                    format!("the deploy key {reference} does not exist"),
                    "Check repository.deployKey of the client's configuration, and that the secret is there.",
                )
            })?)
        }
    };
    let secret = secret.map_or_else(String::new, |secret| secret.expose().to_owned());
    Ok(with_deploy_key(config, secret))
}

fn with_deploy_key(config: &ClientConfig, secret: String) -> (Remote, String) {
    let repository = &config.repository;
    let credentials = Credentials::deploy(secret.clone(), repository.host_keys.clone());
    let remote = Remote::Server {
        url: repository.url.clone(),
        credentials,
    };
    (remote, secret)
}

/// The names under which the door may be asked for.
fn hosts(settings: &Settings, config: &ClientConfig, session: &Session) -> Hosts {
    let client = &config.client_id;
    let mut names = vec![config.domains.edit.clone()];
    names.extend(config.domains.aliases.iter().cloned());
    names.extend(
        settings
            .edit_domain
            .iter()
            .map(|domain| format!("edit.{client}.{domain}")),
    );
    let label = session
        .session_id
        .as_str()
        .rsplit_once('_')
        .map_or(session.session_id.as_str(), |(_, label)| label);
    names.extend(
        settings
            .preview_domain
            .iter()
            .map(|domain| format!("{label}--{client}.{domain}")),
    );
    Hosts {
        names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
    }
}

/// Writes into the record why there is no environment, if the session is ours, and if it does not go on.
async fn say_why(lease: Option<&Lease>, failure: &Failure) {
    let Some(lease) = lease.filter(|lease| !lease.is_lost()) else {
        return;
    };
    if failure.exit == Exit::Crashed {
        return;
    }
    let said = lease.fail(contract::session::Failure {
        code: failure.code().to_owned(),
        message: words::no_environment(failure.code()).to_owned(),
        retryable: failure.retryable,
    });
    let why = match tokio::time::timeout(LAST_WORD_TIME_MAX, said).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => crate::chain(&error),
        Err(_) => "no answer".to_owned(),
    };
    tracing::error!(
        why,
        "the record could not be told why there is no environment"
    );
}

/// The record does not know that the environment has ended.
fn untold(why: &str, parked: &[Parked]) -> Failure {
    let bundles: Vec<&str> = parked
        .iter()
        .filter_map(|parked| match &parked.place {
            // What is parked on the remote is found there.
            ParkedAt::Ref(_) => None,
            ParkedAt::Bundle(name) => Some(name.as_str()),
        })
        .collect();
    let hint = if bundles.is_empty() {
        "Its lease is over in 30 s; nothing is lost.".to_owned()
    } else {
        format!(
            "Its lease is over in 30 s. What could not be pushed is in {} in RESCUE_BUCKET, and perhaps only this line says so: see that it is in `parked` of the session's record.",
            bundles.join(" and ")
        )
    };
    let message = format!("the record could not be told that it sleeps: {why}");
    Failure::new(Exit::Backend, message, hint).retryable(true)
}

/// Says in the record that it stops, whoever is there: whoever told us to does not ask. A record that does not answer holds up
/// nothing that is to be done before we are killed.
async fn drain(lease: &Lease) {
    let why = match tokio::time::timeout(DRAIN_TIME_MAX, lease.drain_whoever_is_there()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => crate::chain(&error),
        Err(_) => format!("no answer within {} s", DRAIN_TIME_MAX.as_secs()),
    };
    tracing::warn!(why, "the record could not be told that it stops");
}

/// Serves until nobody needs it, or until it is told to stop, or until the session is another's.
async fn live(
    started: Started,
    backend: &Backend,
    metrics: &Metrics,
    interrupt: &mut Interrupt,
    keeper: &mut Keeper,
) -> Result<Exit, Failure> {
    let Started { running, idle } = started;
    let lease = running.seat.lease.clone();
    let renewing = keeper.task.broken();
    let reason = tokio::select! {
        reason = life::serve(&running, &idle, metrics) => reason,
        () = lease.lost() => Reason::Lost,
        () = running.broke() => Reason::Broke,
        () = renewing.heard_of() => Reason::Broke,
        () = interrupt.requested() => Reason::Told,
    };
    tracing::info!(reason = reason.as_str(), "the environment ends");
    let time_max = reason.time_max();
    let ended = async {
        let halted = halt(running, reason, interrupt).await?;
        end(halted, backend, metrics, keeper).await
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(time_max, ended) => ended,
        () = lease.lost() => return Err(environment::stepped_down(&lease)),
        () = renewing.heard_of() => return Err(broke()),
    };
    ended.unwrap_or_else(|_| Err(out_of_time()))
}

/// Takes the environment apart. Nothing is touched if the session is another's.
async fn halt(
    running: Running,
    reason: Reason,
    interrupt: &mut Interrupt,
) -> Result<Halted, Failure> {
    let lease = running.seat.lease.clone();
    let (haste, time) = match reason {
        Reason::Idle => (Haste::Settle, SETTLE_TIME_MAX),
        Reason::Lifetime | Reason::Told => (Haste::Finish, FINISH_TIME_MAX),
        Reason::Lost => {
            running.halt(Haste::Abandon, ABANDON_TIME_MAX).await;
            return Err(environment::stepped_down(&lease));
        }
        Reason::Broke => {
            running.halt(Haste::Abandon, ABANDON_TIME_MAX).await;
            return Err(broke());
        }
    };
    let told = async {
        if reason == Reason::Told {
            drain(&lease).await;
        }
    };
    let ending = running.ending();
    let halting = async {
        let mut halting = std::pin::pin!(running.halt(haste, time));
        tokio::select! {
            halted = &mut halting => halted,
            () = interrupt.requested() => {
                // What waits has time until the next wake; what runs is finished or taken back.
                ending.now();
                halting.await
            }
        }
    };
    let (halted, ()) = tokio::join!(halting, told);
    Ok(halted)
}

/// Everything is saved, then the record says that it sleeps.
async fn end(
    halted: Halted,
    backend: &Backend,
    metrics: &Metrics,
    keeper: &mut Keeper,
) -> Result<Exit, Failure> {
    let lease = halted.seat.lease.clone();
    let rest = parking::park(halted, backend, &lease).await?;
    keeper.stop().await;
    let asleep = async {
        // Only who drains can sleep. Where it was told already this changes nothing.
        lease.drain_whoever_is_there().await?;
        lease.sleep(rest.parked.clone()).await
    };
    match tokio::time::timeout(SLEEP_TIME_MAX, asleep).await {
        Ok(Ok(())) => {}
        Ok(Err(LeaseError::Refused(_))) => return Err(environment::stepped_down(&lease)),
        Ok(Err(error)) => return Err(untold(&crate::chain(&error), &rest.parked)),
        Err(_) => {
            let why = format!("no answer within {} s", SLEEP_TIME_MAX.as_secs());
            return Err(untold(&why, &rest.parked));
        }
    }
    metrics.slept();
    tracing::info!("asleep");
    rest.forget(backend).await;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_at_its_beginning_is_refused() {
        let failure = refuse_a_wrong_clock(Timestamp::from_unix_ms(0)).expect_err("it is 1970");
        insta::assert_snapshot!(failure.to_string(), @r"
        error: the clock of this machine says that it is 1970-01-01T00:00:00.000Z
          hint: Set it. Who acts for a session is decided by time, and AWS refuses requests that are minutes off.
        ");
        assert_eq!(failure.exit as u8, 26);
        assert!(refuse_a_wrong_clock(Timestamp::now()).is_ok());
    }
}
