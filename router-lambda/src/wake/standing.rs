//! How a session stands for whoever wants it awake. Pure.

use std::time::Duration;

use contract::session::{Failure, State};
use contract::{Generation, Session, Timestamp};
use platform::{Task, TaskState};

use super::{Woken, failure};

/// How long a wake is left alone before one asks whether there is a task at all: the router that took it has given up by then.
const LAUNCHED_WITHIN: Duration = Duration::from_secs(15);

/// The pause before a session that failed once is tried again by itself; three times as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest such pause while it is likely that somebody waits.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// After so many failures in a row, nearly an hour of them, it is tried once in an hour: every try is a task that is paid for.
const FAILED_WAKES_MAX: u32 = 12;
const LONG_PAUSE: Duration = Duration::from_secs(60 * 60);

/// How a session stands for whoever wants it awake.
#[derive(Debug)]
pub(super) enum Standing {
    /// It can be woken, in this generation.
    Asleep(Generation),
    /// It cannot, or need not be.
    Otherwise(Box<Woken>),
}

/// Judges a session for a caller who saw it in the generation `seen`.
pub(super) fn standing(session: Session, seen: Generation, now: Timestamp) -> Standing {
    let is_newer = session.generation != seen;
    let held_until = session.lease_until.filter(|until| *until >= now);
    let woken = match (session.state, held_until) {
        (State::Waking, Some(_)) => Woken::Going(session),
        (State::Ready, Some(_)) if is_newer => Woken::Ready(session),
        (State::Ready | State::Draining, Some(until)) => Woken::Held { until },
        // Somebody else has tried since the caller looked. A thousand visitors must not try one after the other.
        (State::Failed, _) if is_newer => Woken::Failed(session),
        _ => return Standing::Asleep(session.generation),
    };
    Standing::Otherwise(Box::new(woken))
}

/// Whether an environment has the session, or is about to: whether it need not be woken.
pub fn is_awake(session: &Session, now: Timestamp) -> bool {
    let lives = session.lease_until.is_some_and(|until| until >= now);
    lives
        && matches!(
            session.state,
            State::Waking | State::Ready | State::Draining
        )
}

/// When a session that failed may be tried again by itself: after 5 s, 15 s, 45 s, … at most 5 minutes, and once an hour after a
/// dozen failures in a row. Never, if it did not fail, or if trying again cannot help. A person may try at any time.
pub fn again_at(session: &Session) -> Option<Timestamp> {
    let retryable = session
        .failure
        .as_ref()
        .is_some_and(|failure| failure.retryable);
    if session.state != State::Failed || !retryable {
        return None;
    }
    // A row that does not say when it failed is older than the field.
    let failed_at = session.failed_at.unwrap_or(session.created_at);
    Some(failed_at.plus(pause(session.failed_wakes)))
}

/// The pause after so many failures in a row.
fn pause(failed_wakes: u32) -> Duration {
    if failed_wakes > FAILED_WAKES_MAX {
        return LONG_PAUSE;
    }
    let times = 3u32.saturating_pow(failed_wakes.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(times).min(PAUSE_MAX)
}

/// When a session that failed may be tried again for something new that is asked of it. Also where trying again by itself
/// cannot help, because whoever asks may have put it right; but not for each of a hundred messages.
pub(crate) fn again_for_news_at(session: &Session) -> Option<Timestamp> {
    let failed_at = session.failed_at?;
    (session.state == State::Failed).then(|| failed_at.plus(pause(session.failed_wakes)))
}

/// How long a client's next wake is expected to take: the median of the last ones of all its sessions. None before the first.
pub fn estimate(sessions: &[Session]) -> Option<Duration> {
    let mut took: Vec<u64> = sessions
        .iter()
        .flat_map(|session| session.wakes_ms.iter().copied())
        .collect();
    took.sort_unstable();
    let upper = *took.get(took.len() / 2)?;
    let lower = took[(took.len() - 1) / 2];
    Some(Duration::from_millis(lower.midpoint(upper)))
}

/// What is to be done about a session that is waking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It will not become ready.
    Fail(Failure),
    /// It has no task: the same order is given again.
    LaunchAgain,
}

/// Judges a session that is waking, by the task of its generation as the launcher knows it. None if it is to be left alone.
pub fn judge_waking(session: &Session, task: Option<&Task>, now: Timestamp) -> Option<Step> {
    if session.state != State::Waking {
        return None;
    }
    let task = task.filter(|task| task.generation == session.generation);
    // Why it stopped says more than that it is late.
    if let Some(failure) = task.and_then(failure::of_task) {
        return Some(Step::Fail(failure));
    }
    if session.lease_until.is_none_or(|until| until < now) {
        return Some(Step::Fail(failure::wake_timeout()));
    }
    let is_claimed = session.phase.is_some() || session.task_arn.is_some();
    let woken_at = session.woken_at.unwrap_or(session.created_at);
    let is_late = now.since(woken_at) > LAUNCHED_WITHIN;
    (task.is_none() && !is_claimed && is_late).then_some(Step::LaunchAgain)
}

/// Whether a task has ended.
pub(crate) fn has_stopped(task: &Task) -> bool {
    matches!(task.state, TaskState::Stopped { .. })
}
