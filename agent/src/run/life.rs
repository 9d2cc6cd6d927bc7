//! What an environment does while it serves: it looks who keeps it awake, tells the record, and goes to sleep when it is nobody.

use std::time::{Duration, Instant};

use contract::client_config::LIFETIME_DEFAULT_MINUTES;
use contract::{ClientConfig, Timestamp};

use crate::activity::Moment;
use crate::environment::Running;
use crate::idle::{self, Facts, Verdict};
use crate::lease::{LeaseError, Told};
use crate::metrics::Metrics;
use crate::pulse::Pulse;

/// How often it is looked who is there, at least: what the lease tells at its next renewal is to be true.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often, at most: a decision that was overtaken is made anew after a moment.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How often it is counted how long it has been awake: what is killed has told the most of it.
const AWAKE_TOLD_EVERY: Duration = Duration::from_secs(60);
/// How long an answer of the queue about what waits may be old: it is asked once a lease.
const DEPTH_EVERY: Duration = Duration::from_secs(10);

/// Why an environment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Nobody needs it. The record says that it drains.
    Idle,
    /// It has lived for as long as it may. The record says that it drains.
    Lifetime,
    /// It was told to stop.
    Told,
    /// The session is another's.
    Lost,
    /// One of its loops broke.
    Broke,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Told => "told",
            Self::Lost => "lost",
            Self::Broke => "broke",
        }
    }

    /// How long everything may take that is left to do.
    pub(super) fn time_max(self) -> Duration {
        match self {
            Self::Idle => super::SETTLE_TIME_MAX + super::STOP_TIME_MAX,
            _ => super::STOP_TIME_MAX,
        }
    }
}

/// When an environment of this client sleeps by itself.
pub(super) fn settings(config: &ClientConfig) -> idle::Settings {
    let minutes = |minutes: f64| Duration::from_secs_f64(minutes * 60.0);
    let lifetime = config
        .limits
        .as_ref()
        .and_then(|limits| limits.max_lifetime_minutes)
        .unwrap_or(LIFETIME_DEFAULT_MINUTES);
    idle::Settings {
        idle_timeout: minutes(config.settings.idle_timeout_minutes),
        lifetime: minutes(lifetime),
        born: Moment::now(),
    }
}

/// Serves until nobody needs it and the record says that it drains.
pub(super) async fn serve(running: &Running, idle: &idle::Settings, metrics: &Metrics) -> Reason {
    let mut awake = Awake::new(metrics);
    running.activity.woken(Moment::now());
    let mut queue = Queue::default();
    // What the record knows of environments before: sleep is decided against it, not only against what happened here.
    let mut known = running.seat.last_activity_at;
    let _over = Over(&running.life);
    loop {
        running.life.beat();
        let queued = queue.waiting(running).await;
        let now = Moment::now();
        let last = running.activity.last();
        let activity = last.activity().map(|moment| moment.at).max(known);
        let facts = Facts::of(now, last, &running.view.borrow(), queued);
        let verdict = idle::verdict(&facts, Some(idle));
        let (pause, awake_because) = match &verdict {
            Verdict::Awake { because, until } => {
                let left = until.map_or(LOOK_EVERY, |until| until.since(now));
                (
                    left.clamp(LOOK_PAUSE, LOOK_EVERY),
                    Some(because.to_string()),
                )
            }
            Verdict::Sleep { .. } => (LOOK_PAUSE, None),
        };
        running.ending().expect(match &verdict {
            Verdict::Awake { until, .. } => until.map(|until| until.instant),
            Verdict::Sleep { .. } => Some(now.instant),
        });
        awake.because(match &verdict {
            Verdict::Awake { because, .. } => Some(because.code()),
            Verdict::Sleep { .. } => None,
        });
        running.seat.lease.tell(Told {
            site: running.site.view().health(),
            last_activity_at: activity,
            awake_because,
        });
        if let Verdict::Sleep { why } = verdict {
            match drain(running, &mut queue, why, activity).await {
                Ok(Some(reason)) => return reason,
                Ok(None) => {}
                Err(error) if error.is_newer_activity() => {
                    tracing::info!("somebody came while it went to sleep");
                    running.activity.heard_of(Moment::now());
                    known = match running.seat.lease.record().await {
                        Ok(record) => record.and_then(|record| record.last_activity_at).max(known),
                        Err(_) => known,
                    };
                }
                Err(error) => {
                    tracing::warn!(error = %crate::chain(&error), "it could not go to sleep; it is tried again");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
        let mut activity = running.activity.watch();
        activity.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = activity.changed() => {}
        }
    }
}

/// However the loop ends, it is expected no more: what comes after it has its own time.
struct Over<'a>(&'a Pulse);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// Goes to sleep, unless somebody came or something came into the queue while it was decided.
async fn drain(
    running: &Running,
    queue: &mut Queue,
    why: idle::SleepReason,
    activity: Option<Timestamp>,
) -> Result<Option<Reason>, LeaseError> {
    let reason = match why {
        idle::SleepReason::Idle { .. } => Reason::Idle,
        idle::SleepReason::LifetimeOver { .. } => Reason::Lifetime,
    };
    let came = running.activity.last().activity().map(|moment| moment.at) > activity;
    let is_quiet = match (&reason, queue.ask(running).await) {
        // What waits is the next environment's.
        (Reason::Lifetime, _) => running.view.borrow().running.is_none(),
        (_, queued) => !came && queued == 0 && running.view.borrow().running.is_none(),
    };
    if !is_quiet {
        return Ok(None);
    }
    running.seat.lease.drain(activity).await?;
    tracing::info!(%why, code = why.code(), "it goes to sleep");
    Ok(Some(reason))
}

/// How long it is awake for one reason, and then for the next.
#[derive(Debug)]
struct Awake<'a> {
    metrics: &'a Metrics,
    reason: Option<(&'static str, Instant)>,
}

impl<'a> Awake<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            reason: None,
        }
    }

    fn because(&mut self, reason: Option<&'static str>) {
        let due = self
            .reason
            .is_some_and(|(_, since)| since.elapsed() >= AWAKE_TOLD_EVERY);
        if due || self.reason.map(|(known, _)| known) != reason {
            self.tell();
            self.reason = reason.map(|reason| (reason, Instant::now()));
        }
    }

    fn tell(&mut self) {
        if let Some((reason, since)) = self.reason.take() {
            self.metrics.awake(reason, since.elapsed());
        }
    }
}

/// However it ends, the last reason is told.
impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

/// How much waits, as the queue said last.
#[derive(Debug, Default)]
struct Queue {
    said: Option<(Instant, u64)>,
    /// Whether it did not say so the last time.
    silent: bool,
}

impl Queue {
    async fn waiting(&mut self, running: &Running) -> u64 {
        match self.said {
            Some((at, waiting)) if at.elapsed() < DEPTH_EVERY => waiting,
            _ => self.ask(running).await,
        }
    }

    /// Asks. What was given back and is to come again waits too. Whoever does not answer may have something: then it stays awake.
    /// Whoever refuses will go on to do so: nobody stays awake for what it cannot get, and if there is something, it waits.
    async fn ask(&mut self, running: &Running) -> u64 {
        let answer = running.seat.queue.depth().await;
        let was_silent = std::mem::replace(&mut self.silent, answer.is_err());
        let waiting = match answer {
            Ok(depth) => {
                let ours = u64::from(running.view.borrow().running.is_some());
                depth.waiting + depth.in_flight.saturating_sub(ours)
            }
            Err(error) => {
                if !was_silent {
                    tracing::warn!(error = %crate::chain(&error), "the queue does not say how much waits");
                }
                u64::from(error.is_transient())
            }
        };
        self.said = Some((Instant::now(), waiting));
        waiting
    }
}
