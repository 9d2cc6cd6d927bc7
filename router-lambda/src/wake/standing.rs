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

#[cfg(test)]
mod tests {
    use contract::session::{Phase, Transition};
    use platform::conformance::records::{client, dawn, proof_key, session};
    use proptest::prelude::*;

    use super::*;

    fn after(seconds: u64) -> Timestamp {
        dawn().plus(Duration::from_secs(seconds))
    }

    /// Woken at dawn, with a lease of four minutes.
    fn waking() -> Session {
        let asleep = session(&client("amelia"), 1);
        let wake = Transition::Wake {
            seen: asleep.generation,
            proof_key: proof_key(),
            lease_until: after(240),
        };
        wake.apply(&asleep, asleep.generation, dawn())
            .expect("it sleeps")
    }

    fn task(state: TaskState) -> Task {
        let session = waking();
        Task {
            name: "task-1".to_owned(),
            session: session.session_id,
            generation: session.generation,
            state,
            created_at: dawn(),
        }
    }

    fn stopped(reason: &str, exit_code: Option<i32>) -> Task {
        task(TaskState::Stopped {
            reason: reason.to_owned(),
            exit_code,
        })
    }

    fn said(step: Option<Step>) -> String {
        match step {
            None => "left alone".to_owned(),
            Some(Step::LaunchAgain) => "launched again".to_owned(),
            Some(Step::Fail(failure)) => failure.code,
        }
    }

    #[test]
    fn a_waking_session_is_left_alone_launched_again_or_failed() {
        let claimed = Session {
            task_arn: Some("task-1".to_owned()),
            ..waking()
        };
        let cloning = Session {
            phase: Some(Phase::Clone),
            ..waking()
        };
        let ready = Session {
            state: State::Ready,
            ..waking()
        };
        let older = Task {
            generation: Generation(0),
            ..stopped("ended", Some(0))
        };
        for (what, session, task, seconds, expected) in [
            ("just woken", waking(), None, 10, "left alone"),
            ("no task", waking(), None, 16, "launched again"),
            ("no task any more", claimed, None, 16, "left alone"),
            ("at work", cloning, None, 16, "left alone"),
            (
                "pending",
                waking(),
                Some(task(TaskState::Pending)),
                200,
                "left alone",
            ),
            (
                "running",
                waking(),
                Some(task(TaskState::Running)),
                200,
                "left alone",
            ),
            (
                "too late",
                waking(),
                Some(task(TaskState::Running)),
                241,
                "wake_timeout",
            ),
            (
                "too late without a task",
                waking(),
                None,
                241,
                "wake_timeout",
            ),
            (
                "dead",
                waking(),
                Some(stopped("crashed", Some(1))),
                5,
                "task_stopped",
            ),
            (
                "dead and late",
                waking(),
                Some(stopped("crashed", Some(1))),
                300,
                "task_stopped",
            ),
            (
                "the last one is dead",
                waking(),
                Some(older),
                5,
                "left alone",
            ),
            (
                "not waking",
                ready,
                Some(stopped("crashed", None)),
                300,
                "left alone",
            ),
        ] {
            assert_eq!(
                said(judge_waking(&session, task.as_ref(), after(seconds))),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn what_stopped_a_task_is_said_in_plain_words_and_tried_again_where_that_can_help() {
        let told: String = [
            ("CannotPullContainerError: pull image manifest has been retried 5 time(s): i/o timeout", None),
            ("CannotPullContainerError: ref docker.io/agent:9 not found", None),
            ("OutOfMemoryError: Container killed due to memory usage", Some(137)),
            ("ResourceInitializationError: failed to configure ENI: timed out", None),
            ("ResourceInitializationError: unable to pull secrets: AccessDeniedException", None),
            ("Essential container in task exited", Some(20)),
            ("Essential container in task exited", Some(101)),
            ("Your Spot Task was interrupted.", None),
        ]
        .into_iter()
        .map(|(reason, exit_code)| {
            let failure = failure::of_task(&stopped(reason, exit_code)).expect("stopped");
            let again = if failure.retryable { "again" } else { "stays" };
            format!("{again}: {}\n", failure.message)
        })
        .collect();
        insta::assert_snapshot!(told, @r"
        again: What shows your preview could not be fetched. Please try again in a few minutes.
        stays: What shows your preview could not be fetched. Please ask whoever set up your preview.
        stays: Your preview needs more memory than it has. Please ask whoever set up your preview.
        again: What your preview needs could not be put in place. Please try again in a few minutes.
        stays: What your preview needs could not be put in place. Please ask whoever set up your preview.
        stays: Your preview is not set up rightly. Please ask whoever set up your preview.
        again: Your preview stopped before it was ready. Please try again in a few minutes.
        again: Your preview stopped before it was ready. Please try again in a few minutes.
        ");
    }

    fn failed(failed_wakes: u32, retryable: bool) -> Session {
        let fail = Transition::Fail {
            failure: Failure {
                retryable,
                ..failure::wake_timeout()
            },
        };
        let session = waking();
        let failed = fail
            .apply(&session, session.generation, dawn())
            .expect("it wakes");
        Session {
            failed_wakes,
            ..failed
        }
    }

    #[test]
    fn what_failed_is_tried_again_by_itself_ever_more_rarely_or_never() {
        let pause = |failed_wakes| {
            let at = again_at(&failed(failed_wakes, true)).expect("it may be tried again");
            at.since(dawn()).as_secs()
        };
        let pauses: Vec<_> = [0, 1, 2, 3, 4, 5, 12, 13, u32::MAX].map(pause).into();
        assert_eq!(pauses, [5, 5, 15, 45, 135, 300, 300, 3600, 3600]);
        assert_eq!(again_at(&failed(1, false)), None);
        assert_eq!(again_at(&waking()), None);
        assert_eq!(again_for_news_at(&failed(2, false)), Some(after(15)));
        assert_eq!(again_for_news_at(&waking()), None);
    }

    #[test]
    fn the_next_wake_is_expected_to_take_what_the_last_ones_of_the_client_took() {
        let took = |wakes: &[u64]| Session {
            wakes_ms: wakes.to_vec(),
            ..waking()
        };
        let seconds = |sessions: &[Session]| estimate(sessions).map(|time| time.as_secs_f64());
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[took(&[]), took(&[])]), None);
        assert_eq!(seconds(&[took(&[9000])]), Some(9.0));
        assert_eq!(seconds(&[took(&[1000, 60_000]), took(&[3000])]), Some(3.0));
        assert_eq!(
            seconds(&[took(&[1000, 2000]), took(&[3000, 90_000])]),
            Some(2.5)
        );
        assert_eq!(
            seconds(&[took(&[u64::MAX, u64::MAX])]).map(f64::is_finite),
            Some(true)
        );
    }

    proptest! {
        /// Whoever is told that it can be woken can wake it: the contract's table agrees, whatever the record says.
        #[test]
        fn what_is_said_to_sleep_can_be_woken_and_nothing_else(
            state in prop::sample::select(vec![State::Dormant, State::Waking, State::Ready, State::Draining, State::Failed]),
            lease in prop::option::of(0u64..400),
            seconds in 0u64..400,
            seen in 0u64..3,
        ) {
            let session = Session {
                state,
                lease_until: lease.map(after),
                ..waking()
            };
            let (generation, now) = (session.generation, after(seconds));
            let wake = Transition::Wake { seen: generation, proof_key: proof_key(), lease_until: after(900) };
            let can = wake.apply(&session, generation, now).is_ok();
            match standing(session.clone(), Generation(seen), now) {
                Standing::Asleep(seen) => {
                    prop_assert_eq!(seen, generation);
                    prop_assert!(can);
                }
                Standing::Otherwise(woken) => {
                    let others_failure = matches!(*woken, Woken::Failed(_)) && generation != Generation(seen);
                    prop_assert!(!can || others_failure, "{:?}", woken);
                }
            }
            prop_assert_eq!(is_awake(&session, now), !can);
        }
    }
}
