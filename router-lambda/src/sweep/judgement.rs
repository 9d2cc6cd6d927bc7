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
