//! What the sweep does, and why. Pure.

use std::time::Duration;

use contract::session::{Failure, State};
use contract::{Session, Timestamp};
use platform::Task;

use crate::wake::{self, Step};

/// A lease that is over by so long is not renewed any more. The agent renews it every ten seconds and steps down without it;
/// what is left is for records that did not answer for a while.
pub(super) const LEASE_GRACE: Duration = Duration::from_secs(60);
/// A task is left alone for so long: what is read of its session may be older than it is.
pub(super) const START_GRACE: Duration = Duration::from_secs(60);
/// An environment that has failed gets so long to save what it has and to end by itself: the longest stop timeout of ECS.
pub(super) const END_GRACE: Duration = Duration::from_secs(120);

/// One thing that the sweep does to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The task is stopped.
    Stop {
        /// Which one.
        task: String,
        /// Why.
        why: &'static str,
    },
    /// The session is failed.
    Fail {
        /// What its record says then.
        failure: Failure,
        /// Why.
        why: &'static str,
    },
    /// Its environment is launched again.
    LaunchAgain {
        /// Why.
        why: &'static str,
    },
    /// It is woken, if something waits in its queue.
    WakeIfAwaited {
        /// Why.
        why: &'static str,
    },
    /// It is ended, with its queue and all that waits there.
    End {
        /// Why.
        why: &'static str,
    },
}

/// Judges a session, by the task of its generation if there is one that is known.
pub fn judge(session: &Session, task: Option<&Task>, now: Timestamp) -> Vec<Action> {
    let task = task.filter(|task| task.generation == session.generation);
    match session.state {
        State::Waking => match wake::judge_waking(session, task, now) {
            Some(Step::Fail(failure)) => failed(failure, task, "it cannot become ready any more"),
            Some(Step::LaunchAgain) => vec![Action::LaunchAgain {
                why: "it was woken and has no task",
            }],
            None => Vec::new(),
        },
        State::Ready | State::Draining => {
            if task.is_some_and(wake::has_stopped) {
                return failed(wake::environment_lost(), None, "its task has stopped");
            }
            if is_over(session, now, LEASE_GRACE) {
                return failed(wake::environment_lost(), task, "its lease is over");
            }
            Vec::new()
        }
        State::Dormant | State::Failed if is_expired(session, now) => vec![Action::End {
            why: "nobody has woken it for as long as it is kept",
        }],
        State::Dormant => vec![Action::WakeIfAwaited {
            why: "it sleeps and an instruction waits",
        }],
        State::Failed if wake::again_at(session).is_some_and(|at| at <= now) => {
            vec![Action::WakeIfAwaited {
                why: "it failed some time ago and an instruction waits",
            }]
        }
        State::Failed => Vec::new(),
    }
}

/// Why a task that runs has to be stopped; none if it may go on. `session` is its session as it is now, if it is there.
pub fn stray(task: &Task, session: Option<&Session>, now: Timestamp) -> Option<&'static str> {
    if wake::has_stopped(task) || now.since(task.created_at) < START_GRACE {
        return None;
    }
    let Some(session) = session else {
        return Some("its session is gone");
    };
    if session.generation != task.generation {
        return Some("its session is another generation's");
    }
    match session.state {
        State::Dormant => Some("its session sleeps"),
        State::Failed => {
            let is_late = session
                .failed_at
                .is_none_or(|failed_at| now.since(failed_at) >= END_GRACE);
            is_late.then_some("its session has failed")
        }
        State::Waking | State::Ready | State::Draining => {
            is_over(session, now, LEASE_GRACE).then_some("its lease is over")
        }
    }
}

/// A session is failed, and its task, if that still runs, is stopped: first the record, so that the task may not act any more.
fn failed(failure: Failure, task: Option<&Task>, why: &'static str) -> Vec<Action> {
    let mut actions = vec![Action::Fail { failure, why }];
    if let Some(task) = task.filter(|task| !wake::has_stopped(task)) {
        actions.push(Action::Stop {
            task: task.name.clone(),
            why,
        });
    }
    actions
}

/// Whether the lease has been over for `grace`.
fn is_over(session: &Session, now: Timestamp, grace: Duration) -> bool {
    session
        .lease_until
        .is_none_or(|until| until.plus(grace) < now)
}

fn is_expired(session: &Session, now: Timestamp) -> bool {
    session
        .expires_at
        .is_some_and(|expires_at| expires_at.saturating_mul(1000) < now.unix_ms())
}

#[cfg(test)]
mod tests {
    use contract::Generation;
    use contract::session::Transition;
    use platform::TaskState;
    use platform::conformance::records::{client, dawn, session};
    use proptest::prelude::*;

    use super::*;

    fn after(seconds: u64) -> Timestamp {
        dawn().plus(Duration::from_secs(seconds))
    }

    /// In generation 3, with a lease until second 100, not claimed by a task yet.
    fn in_state(state: State) -> Session {
        let awake = matches!(state, State::Waking | State::Ready | State::Draining);
        Session {
            state,
            generation: Generation(3),
            lease_until: awake.then(|| after(100)),
            woken_at: Some(dawn()),
            failure: (state == State::Failed).then(wake::environment_lost),
            failed_at: (state == State::Failed).then(|| after(10)),
            expires_at: Some(after(10_000).unix_ms() / 1000),
            ..session(&client("amelia"), 1)
        }
    }

    fn task(generation: u64, state: TaskState) -> Task {
        Task {
            name: format!("task-{generation}"),
            session: in_state(State::Ready).session_id,
            generation: Generation(generation),
            state,
            created_at: dawn(),
        }
    }

    fn running() -> Task {
        task(3, TaskState::Running)
    }

    fn stopped() -> Task {
        task(
            3,
            TaskState::Stopped {
                reason: "crashed".to_owned(),
                exit_code: None,
            },
        )
    }

    fn said(actions: &[Action]) -> String {
        let said: Vec<_> = actions
            .iter()
            .map(|action| match action {
                Action::Stop { task, .. } => format!("stop {task}"),
                Action::Fail { failure, .. } => format!("fail {}", failure.code),
                Action::LaunchAgain { .. } => "launch again".to_owned(),
                Action::WakeIfAwaited { .. } => "wake".to_owned(),
                Action::End { .. } => "end".to_owned(),
            })
            .collect();
        said.join(", ")
    }

    type Case = (&'static str, Session, Option<Task>, u64, &'static str);

    fn are_judged(cases: impl IntoIterator<Item = Case>) {
        for (what, session, task, seconds, expected) in cases {
            let actions = judge(&session, task.as_ref(), after(seconds));
            assert_eq!(said(&actions), expected, "{what}");
        }
    }

    #[test]
    fn who_is_awake_is_judged_by_lease_and_task() {
        let waking = || in_state(State::Waking);
        let ready = || in_state(State::Ready);
        let older = task(2, stopped().state);
        let late = "fail wake_timeout, stop task-3";
        let hung = "fail environment_lost, stop task-3";
        let lost = "fail environment_lost";
        are_judged([
            ("waking", waking(), Some(running()), 50, ""),
            ("waking and lost", waking(), None, 50, "launch again"),
            (
                "waking and dead",
                waking(),
                Some(stopped()),
                5,
                "fail task_stopped",
            ),
            ("waking too long", waking(), Some(running()), 101, late),
            ("serving", ready(), Some(running()), 100, ""),
            ("serving, nobody knows where", ready(), None, 100, ""),
            ("a renewal is late", ready(), Some(running()), 160, ""),
            ("lost", ready(), None, 161, lost),
            ("hung", ready(), Some(running()), 161, hung),
            ("dead", ready(), Some(stopped()), 50, lost),
            (
                "dead while it saves",
                in_state(State::Draining),
                Some(stopped()),
                50,
                lost,
            ),
            ("the last one is dead", ready(), Some(older), 50, ""),
        ]);
    }

    #[test]
    fn who_is_not_awake_is_woken_in_time_and_ended_after_weeks() {
        let asleep = || in_state(State::Dormant);
        let failed = || in_state(State::Failed);
        let hopeless = || {
            let mut session = failed();
            session.failure.as_mut().expect("it failed").retryable = false;
            session
        };
        let kept_for_ever = Session {
            expires_at: None,
            ..asleep()
        };
        are_judged([
            ("asleep", asleep(), None, 9_999, "wake"),
            ("asleep for weeks", asleep(), None, 10_001, "end"),
            ("asleep for ever", kept_for_ever, None, 99_999, "wake"),
            ("failed just now", failed(), None, 14, ""),
            ("failed", failed(), None, 15, "wake"),
            ("failed for good", hopeless(), None, 9_999, ""),
            (
                "failed for good, weeks ago",
                hopeless(),
                None,
                10_001,
                "end",
            ),
        ]);
    }

    #[test]
    fn a_task_runs_as_long_as_its_session_lets_it() {
        let now = Some("there");
        for (what, state, task, seconds, is_stopped) in [
            ("its session is gone", None, running(), 60, true),
            (
                "so young that its session may not be seen yet",
                None,
                running(),
                59,
                false,
            ),
            (
                "of an older generation",
                Some(State::Ready),
                task(2, TaskState::Running),
                60,
                true,
            ),
            (
                "pending, of an older generation",
                Some(State::Waking),
                task(2, TaskState::Pending),
                60,
                true,
            ),
            ("asleep", Some(State::Dormant), running(), 60, true),
            (
                "failed, and saving what it has",
                Some(State::Failed),
                running(),
                129,
                false,
            ),
            ("failed long ago", Some(State::Failed), running(), 130, true),
            ("waking", Some(State::Waking), running(), 90, false),
            ("serving", Some(State::Ready), running(), 160, false),
            ("without a lease", Some(State::Ready), running(), 161, true),
            ("ended", None, stopped(), 999, false),
        ] {
            let session = state.map(in_state);
            let why = stray(&task, session.as_ref(), after(seconds));
            assert_eq!(
                why.and(now),
                is_stopped.then_some("there"),
                "{what}: {why:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_with_a_living_lease_and_a_living_task_is_touched_and_nothing_is_left_for_ever(
            state in prop::sample::select(vec![State::Dormant, State::Waking, State::Ready, State::Draining, State::Failed]),
            lease in prop::option::of(0u64..1000),
            failed_wakes in 0u32..20,
            retryable: bool,
            has_task: bool,
            task_generation in 2u64..5,
            seconds in 0u64..1000,
        ) {
            let mut session = Session {
                failed_wakes,
                lease_until: in_state(state).lease_until.and(lease.map(after)),
                ..in_state(state)
            };
            if let Some(failure) = &mut session.failure {
                failure.retryable = retryable;
            }
            let task = has_task.then(|| task(task_generation, TaskState::Running));
            let now = after(seconds);
            let actions = judge(&session, task.as_ref(), now);

            let lives = wake::is_awake(&session, now);
            let own = task.as_ref().filter(|task| task.generation == session.generation);
            if lives && own.is_some() {
                prop_assert_eq!(&actions, &[]);
                prop_assert_eq!(stray(own.expect("there"), Some(&session), now), None);
            }
            // What is failed is failed by the contract's table too, and a task is stopped only after its record says so.
            for (place, action) in actions.iter().enumerate() {
                match action {
                    Action::Fail { failure, .. } => {
                        let fail = Transition::Fail { failure: failure.clone() };
                        prop_assert!(fail.apply(&session, session.generation, now).is_ok());
                    }
                    Action::Stop { task, .. } => {
                        prop_assert_eq!(task, &own.expect("only its own").name);
                        let is_failed = matches!(actions[place - 1], Action::Fail { .. });
                        prop_assert!(is_failed, "stopped before its record says so");
                    }
                    Action::WakeIfAwaited { .. } => prop_assert!(!lives),
                    Action::LaunchAgain { .. } | Action::End { .. } => {}
                }
            }
            // In the end every task without a lease is stopped, and every session without one is failed or can be woken.
            let later = after(100_000);
            if let Some(task) = &task {
                let is_ended = stray(task, Some(&session), later).is_some();
                prop_assert!(is_ended, "{:?} lets {:?} run", session.state, task.generation);
            }
            let is_stuck = judge(&Session { expires_at: None, ..session.clone() }, None, later).is_empty();
            prop_assert_eq!(is_stuck, state == State::Failed && !retryable);
        }
    }
}
