//! The life of a supervised program, as drawn at the head of the crate. Pure: what happens goes in with `now`, what is to be done
//! comes out.

use std::time::{Duration, Instant};

use crate::ending::Ending;
use crate::plan::Plan;
use crate::restart::{History, Verdict};
use crate::signal::{self, Meaning, Signals};
use crate::start::Start;
use crate::voice::Said;

/// How long killed processes may take to be gone. Only one that waits for a broken disk takes longer.
pub(crate) const KILL_TIME_MAX: Duration = Duration::from_secs(2);
/// How often they are killed meanwhile: where there is no `kill(-1)`, one may have forked while it was looked for.
pub(crate) const KILL_AGAIN: Duration = Duration::from_millis(20);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child runs.
    Started {
        /// It leads a session.
        own_session: bool,
        /// The terminal is its own, and sends it signals that we do not hear.
        terminal: bool,
    },
    /// It ended, or never was.
    Ended {
        /// How.
        ending: Ending,
        /// Whether other processes are left.
        anything_left: bool,
    },
    /// Nothing is left of its processes.
    NothingLeft,
    /// Init heard a signal.
    Signal(i32),
    /// It is later now.
    Time,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start the child.
    Start(Start),
    /// Send this signal to the child's group.
    Forward(i32),
    /// Stop ourselves.
    Suspend,
    /// Send TERM to all that is left.
    AskTheRest,
    /// Send KILL to all that is left.
    KillTheRest,
    /// Say something.
    Say(Said),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// [`Action::Start`] was given.
    Starting,
    Running {
        own_session: bool,
        /// What was passed on to this child.
        heard: Signals,
    },
    /// The child has ended, and others have not.
    Clearing {
        stage: Stage,
        next: Next,
    },
    /// Between a crash and the restart, with nothing left.
    Waiting {
        until: Instant,
        number: u32,
    },
    Ended(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked { until: Instant },
    Killed { until: Instant },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    End(Ending),
    Restart { at: Instant, number: u32 },
}

/// A supervised program.
#[derive(Debug)]
pub(crate) struct Life {
    state: State,
    /// None if it is never started anew.
    history: Option<History>,
    grace: Duration,
    /// When somebody first asked for an end: nothing is started any more, unless for the last time.
    asked_to_end: Option<Instant>,
}

impl Life {
    /// Before the first start, and that start.
    pub(crate) fn begin(plan: &Plan) -> (Self, Vec<Action>) {
        let life = Self {
            state: State::Starting,
            history: plan.restarts.map(History::new),
            grace: plan.grace,
            asked_to_end: None,
        };
        (life, vec![Action::Start(Start::default())])
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&self) -> Option<Ending> {
        match self.state {
            State::Ended(ending) => Some(ending),
            _ => None,
        }
    }

    /// When [`Event::Time`] is due.
    pub(crate) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Clearing { stage, .. } => Some(match stage {
                Stage::Asked { until } => until,
                Stage::Killed { until } => until.min(now + KILL_AGAIN),
            }),
            State::Waiting { until, .. } => Some(until),
            State::Starting | State::Running { .. } | State::Ended(_) => None,
        }
    }

    /// What an event makes of it.
    #[must_use]
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Started {
                own_session,
                terminal,
            } => {
                let heard = if terminal {
                    Signals::OF_A_TERMINAL
                } else {
                    Signals::default()
                };
                self.state = State::Running { own_session, heard };
                if let Some(history) = &mut self.history {
                    history.started(self.asked_to_end.is_some());
                }
                Vec::new()
            }
            Event::Ended {
                ending,
                anything_left,
            } => self.on_ending(ending, anything_left, now),
            Event::NothingLeft => match self.state {
                State::Clearing { next, .. } => self.go_on(next, now),
                _ => Vec::new(),
            },
            Event::Signal(signal) => self.on_signal(signal, now),
            Event::Time => self.on_time(now),
        }
    }

    fn on_ending(&mut self, ending: Ending, anything_left: bool, now: Instant) -> Vec<Action> {
        let heard = match self.state {
            State::Running { heard, .. } => heard,
            _ => Signals::default(),
        };
        let mut actions = Vec::new();
        let verdict = match &mut self.history {
            None => Verdict::Meant,
            Some(history) => history.judge(ending, heard, self.asked_to_end.is_some(), now),
        };
        if let Some(history) = &self.history {
            actions.push(Action::Say(Said::Ended {
                ending,
                verdict,
                rules: *history.rules(),
            }));
        }
        let next = match verdict {
            Verdict::Meant | Verdict::GiveUp => Next::End(ending),
            Verdict::Again { delay, number } => Next::Restart {
                at: now + delay,
                number,
            },
            Verdict::Last { number } => Next::Restart { at: now, number },
        };
        if !anything_left {
            actions.extend(self.go_on(next, now));
            return actions;
        }
        let until = now + self.grace;
        let stage = Stage::Asked { until };
        self.state = State::Clearing { stage, next };
        match next {
            Next::End(_) => actions.push(Action::AskTheRest),
            // Nobody is there whose work it could save, and it could take the place of what is started: its port, for instance.
            Next::Restart { .. } => actions.push(self.kill(now)),
        }
        actions
    }

    fn on_signal(&mut self, signal: i32, now: Instant) -> Vec<Action> {
        let asks_to_end = signal::asks_to_end(signal);
        let may_start_last = self.asked_to_end.is_none()
            && (self.history.as_ref()).is_some_and(History::may_start_last);
        let already_asked = self.asked_to_end.is_some();
        if asks_to_end {
            self.asked_to_end.get_or_insert(now);
        }
        match &mut self.state {
            State::Running { own_session, heard } => match signal::meaning(signal, *own_session) {
                Meaning::Reap => Vec::new(),
                Meaning::Forward => {
                    heard.insert(signal);
                    vec![Action::Forward(signal)]
                }
                Meaning::Suspend(sent) => vec![Action::Forward(sent), Action::Suspend],
            },
            State::Clearing { stage, next } if asks_to_end => {
                if let Next::Restart { at, .. } = next {
                    if may_start_last {
                        *at = now;
                        return vec![Action::Say(Said::LastStart { signal })];
                    }
                    *next = Next::End(Ending::Stopped(signal));
                    return vec![Action::Say(Said::NotRestarted { signal })];
                }
                // Asked once more, while only what nobody waits for is left.
                match stage {
                    Stage::Asked { .. } if already_asked => self.lose_patience(now),
                    _ => Vec::new(),
                }
            }
            State::Waiting { number, .. } if asks_to_end && may_start_last => {
                let number = *number;
                vec![
                    Action::Say(Said::LastStart { signal }),
                    self.start(number, now),
                ]
            }
            State::Waiting { .. } if asks_to_end => {
                self.state = State::Ended(Ending::Stopped(signal));
                vec![Action::Say(Said::NotRestarted { signal })]
            }
            State::Starting | State::Clearing { .. } | State::Waiting { .. } | State::Ended(_) => {
                Vec::new()
            }
        }
    }

    fn on_time(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Clearing { stage, next } => match stage {
                Stage::Asked { until } if now >= until => self.lose_patience(now),
                Stage::Asked { .. } => Vec::new(),
                Stage::Killed { until } if now >= until => {
                    let mut actions = vec![Action::Say(Said::CannotKill)];
                    actions.extend(self.go_on(next, now));
                    actions
                }
                Stage::Killed { .. } => vec![Action::KillTheRest],
            },
            State::Waiting { until, number } if now >= until => {
                vec![self.start(number, now)]
            }
            State::Starting | State::Running { .. } | State::Waiting { .. } | State::Ended(_) => {
                Vec::new()
            }
        }
    }

    fn start(&mut self, restart: u32, now: Instant) -> Action {
        self.state = State::Starting;
        let asked = self.asked_to_end;
        Action::Start(Start {
            restart,
            asked: asked.map(|at| now.saturating_duration_since(at)),
        })
    }

    /// What was asked has not ended.
    fn lose_patience(&mut self, now: Instant) -> Vec<Action> {
        vec![Action::Say(Said::Kills), self.kill(now)]
    }

    fn kill(&mut self, now: Instant) -> Action {
        if let State::Clearing { stage, .. } = &mut self.state {
            let until = now + KILL_TIME_MAX;
            *stage = Stage::Killed { until };
        }
        Action::KillTheRest
    }

    fn go_on(&mut self, next: Next, now: Instant) -> Vec<Action> {
        self.state = match next {
            Next::End(ending) => State::Ended(ending),
            Next::Restart { at, number } => State::Waiting { until: at, number },
        };
        // Clearing may have taken longer than the back-off.
        self.on_time(now)
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::{SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGTSTP, SIGUSR1, SIGWINCH};

    use super::*;
    use crate::restart::Restarts;

    const GRACE: Duration = Duration::from_secs(3);
    const KILLED: Ending = Ending::Signalled(SIGKILL);
    const STARTED: Event = Event::Started {
        own_session: true,
        terminal: false,
    };

    fn starts(restart: u32) -> Action {
        Action::Start(Start {
            restart,
            asked: None,
        })
    }

    fn starts_for_the_last_time(restart: u32, seconds: u64) -> Action {
        Action::Start(Start {
            restart,
            asked: Some(Duration::from_secs(seconds)),
        })
    }

    fn ended(ending: Ending) -> Event {
        Event::Ended {
            ending,
            anything_left: false,
        }
    }

    fn ended_and_left(ending: Ending) -> Event {
        Event::Ended {
            ending,
            anything_left: true,
        }
    }

    /// A life with its clock.
    struct Told {
        life: Life,
        now: Instant,
    }

    impl Told {
        fn new(restarts: Option<Restarts>) -> Self {
            let mut plan = Plan::new("daemon");
            (plan.restarts, plan.grace) = (restarts, GRACE);
            let (life, actions) = Life::begin(&plan);
            assert_eq!(actions, [starts(0)]);
            let now = Instant::now();
            let mut told = Self { life, now };
            assert_eq!(told.on(STARTED), []);
            told
        }

        fn once() -> Self {
            Self::new(None)
        }

        fn daemon() -> Self {
            Self::new(Some(Restarts::default()))
        }

        fn with_something_to_save() -> Self {
            Self::new(Some(Restarts {
                last_start: true,
                ..Restarts::default()
            }))
        }

        /// What is done, without what is said.
        fn on(&mut self, event: Event) -> Vec<Action> {
            let mut actions = self.life.on(event, self.now);
            actions.retain(|action| !matches!(action, Action::Say(_)));
            actions
        }

        /// Time passes until something is due.
        fn waits(&mut self) -> Vec<Action> {
            self.now = self.life.wakes_at(self.now).expect("something is due");
            self.on(Event::Time)
        }
    }

    #[test]
    fn a_program_that_leaves_nothing_is_not_waited_for() {
        let mut told = Told::once();
        assert_eq!(told.life.wakes_at(told.now), None);
        assert_eq!(told.on(ended(Ending::Exited(7))), []);
        assert_eq!(told.life.ended(), Some(Ending::Exited(7)));
    }

    #[test]
    fn what_is_left_is_asked_then_killed_then_left_to_itself() {
        let mut told = Told::once();
        let began = told.now;
        assert_eq!(
            told.on(ended_and_left(Ending::Exited(0))),
            [Action::AskTheRest]
        );
        assert_eq!(told.on(Event::Time), []);
        assert_eq!(told.waits(), [Action::KillTheRest]);
        assert_eq!(told.now, began + GRACE);
        let mut times = 0;
        while told.life.ended().is_none() {
            let actions = told.waits();
            assert!(actions.is_empty() || actions == [Action::KillTheRest]);
            times += 1;
            assert!(times < 1000, "it never ends");
        }
        assert_eq!(told.now, began + GRACE + KILL_TIME_MAX);
        assert_eq!(told.life.ended(), Some(Ending::Exited(0)));
    }

    #[test]
    fn it_ends_as_soon_as_nothing_is_left() {
        let mut told = Told::once();
        told.on(ended_and_left(Ending::Exited(3)));
        assert_eq!(told.on(Event::NothingLeft), []);
        assert_eq!(told.life.ended(), Some(Ending::Exited(3)));
    }

    #[test]
    fn a_second_wish_to_end_is_impatience() {
        let mut told = Told::once();
        told.on(Event::Signal(SIGTERM));
        told.on(ended_and_left(Ending::Exited(0)));
        assert_eq!(told.on(Event::Signal(SIGUSR1)), []);
        assert_eq!(told.on(Event::Signal(SIGTERM)), [Action::KillTheRest]);
        assert_eq!(told.on(Event::Signal(SIGTERM)), []);
        told.on(Event::NothingLeft);
        assert_eq!(told.life.ended(), Some(Ending::Exited(0)));
    }

    #[test]
    fn a_first_wish_to_end_leaves_the_rest_its_grace() {
        let mut told = Told::once();
        told.on(ended_and_left(Ending::Exited(0)));
        assert_eq!(told.on(Event::Signal(SIGTERM)), []);
        assert_eq!(told.on(Event::Signal(SIGTERM)), [Action::KillTheRest]);
    }

    #[test]
    fn signals_are_passed_on_while_it_runs_and_stops_stop_us_too() {
        let mut told = Told::once();
        for signal in [SIGTERM, SIGINT, SIGUSR1, SIGWINCH, 40] {
            assert_eq!(told.on(Event::Signal(signal)), [Action::Forward(signal)]);
        }
        assert_eq!(
            told.on(Event::Signal(SIGTSTP)),
            [Action::Forward(SIGSTOP), Action::Suspend]
        );
        told.on(Event::Started {
            own_session: false,
            terminal: true,
        });
        assert_eq!(
            told.on(Event::Signal(SIGTSTP)),
            [Action::Forward(SIGTSTP), Action::Suspend]
        );
    }

    #[test]
    fn a_crashed_daemon_is_started_anew_after_its_tree_is_gone() {
        let mut told = Told::daemon();
        assert_eq!(told.on(ended_and_left(KILLED)), [Action::KillTheRest]);
        assert_eq!(told.waits(), [Action::KillTheRest]);
        assert_eq!(told.on(Event::NothingLeft), []);
        assert_eq!(told.waits(), [starts(1)]);
        assert_eq!(told.on(STARTED), []);
        let before = told.now;
        assert_eq!(told.on(ended(Ending::Exited(101))), []);
        assert_eq!(told.waits(), [starts(2)]);
        assert_eq!(told.now - before, Duration::from_millis(500));
    }

    #[test]
    fn a_daemon_that_goes_on_crashing_is_given_up_with_its_last_ending() {
        let mut told = Told::daemon();
        for number in 1..=5 {
            assert_eq!(told.on(ended(KILLED)), []);
            assert_eq!(told.waits(), [starts(number)]);
            told.on(STARTED);
        }
        told.on(ended(Ending::Exited(101)));
        assert_eq!(told.life.ended(), Some(Ending::Exited(101)));
    }

    #[test]
    fn a_daemon_that_meant_to_end_is_not_started_anew() {
        for code in [0, 1, 2, 25, 71, 126, 127, 137, 255] {
            let mut told = Told::daemon();
            told.on(ended(Ending::Exited(code)));
            assert_eq!(told.life.ended(), Some(Ending::Exited(code)));
        }
    }

    #[test]
    fn a_daemon_that_was_asked_to_end_is_not_started_anew_however_it_ends() {
        for signal in [SIGTERM, SIGINT, 3, 1] {
            for ending in [KILLED, Ending::Exited(101), Ending::Signalled(signal)] {
                let mut told = Told::daemon();
                told.on(Event::Signal(signal));
                told.on(ended(ending));
                assert_eq!(told.life.ended(), Some(ending));
            }
        }
    }

    #[test]
    fn a_signal_that_was_passed_on_is_no_crash_but_only_for_the_child_that_got_it() {
        let mut told = Told::daemon();
        told.on(Event::Signal(SIGUSR1));
        told.on(ended(KILLED));
        assert_eq!(told.waits(), [starts(1)]);
        told.on(STARTED);
        // Not passed on to this one.
        told.on(ended(Ending::Signalled(SIGUSR1)));
        assert_eq!(told.waits(), [starts(2)]);
        told.on(STARTED);
        told.on(Event::Signal(SIGUSR1));
        told.on(ended(Ending::Signalled(SIGUSR1)));
        assert_eq!(told.life.ended(), Some(Ending::Signalled(SIGUSR1)));
    }

    #[test]
    fn keys_of_the_childs_terminal_are_no_crash() {
        let mut told = Told::daemon();
        told.on(Event::Started {
            own_session: false,
            terminal: true,
        });
        told.on(ended(Ending::Signalled(SIGINT)));
        assert_eq!(told.life.ended(), Some(Ending::Signalled(SIGINT)));
    }

    #[test]
    fn a_wish_to_end_between_crash_and_restart_ends_it_at_once() {
        let mut told = Told::daemon();
        told.on(ended(KILLED));
        assert_eq!(told.on(Event::Signal(SIGUSR1)), []);
        assert_eq!(told.life.ended(), None);
        assert_eq!(told.on(Event::Signal(SIGTERM)), []);
        assert_eq!(told.life.ended().map(Ending::code), Some(143));
    }

    #[test]
    fn a_wish_to_end_while_a_crashed_tree_is_cleared_waits_for_that_only() {
        let mut told = Told::daemon();
        told.on(ended_and_left(KILLED));
        assert_eq!(told.on(Event::Signal(SIGTERM)), []);
        assert_eq!(told.on(Event::Signal(SIGTERM)), []);
        assert_eq!(told.on(Event::NothingLeft), []);
        assert_eq!(told.life.ended(), Some(Ending::Stopped(SIGTERM)));
    }

    #[test]
    fn who_has_something_to_save_is_started_one_last_time() {
        let mut told = Told::with_something_to_save();
        told.on(ended(KILLED));
        let last = [starts_for_the_last_time(1, 0)];
        assert_eq!(told.on(Event::Signal(SIGTERM)), last);
        assert_eq!(told.on(STARTED), []);
        // However it ends, that is the end.
        assert_eq!(told.on(ended(KILLED)), []);
        assert_eq!(told.life.ended(), Some(KILLED));
    }

    #[test]
    fn who_has_something_to_save_is_started_as_soon_as_its_tree_is_gone() {
        let mut told = Told::with_something_to_save();
        let began = told.now;
        told.on(ended_and_left(KILLED));
        assert_eq!(told.on(Event::Signal(SIGTERM)), []);
        let last = [starts_for_the_last_time(1, 0)];
        assert_eq!(told.on(Event::NothingLeft), last);
        assert_eq!(told.now, began);
    }

    #[test]
    fn a_second_wish_to_end_is_granted_to_who_has_something_to_save() {
        let mut told = Told::with_something_to_save();
        told.on(ended_and_left(KILLED));
        told.on(Event::Signal(SIGTERM));
        assert_eq!(told.on(Event::Signal(SIGINT)), []);
        assert_eq!(told.on(Event::NothingLeft), []);
        assert_eq!(told.life.ended(), Some(Ending::Stopped(SIGINT)));
    }

    #[test]
    fn who_crashes_while_it_saves_is_started_one_last_time() {
        let mut told = Told::with_something_to_save();
        told.on(Event::Signal(SIGTERM));
        told.now += Duration::from_secs(7);
        let last = [starts_for_the_last_time(1, 7)];
        assert_eq!(told.on(ended(KILLED)), last);
        told.on(STARTED);
        assert_eq!(told.on(Event::Signal(SIGTERM)), [Action::Forward(SIGTERM)]);
        assert_eq!(told.on(ended(Ending::Exited(101))), []);
        assert_eq!(told.life.ended(), Some(Ending::Exited(101)));
    }

    #[test]
    fn who_does_not_listen_yet_is_started_one_last_time_if_there_was_a_crash() {
        let mut told = Told::with_something_to_save();
        told.on(ended(KILLED));
        assert_eq!(told.waits(), [starts(1)]);
        told.on(STARTED);
        told.on(Event::Signal(SIGTERM));
        let last = [starts_for_the_last_time(2, 0)];
        assert_eq!(told.on(ended(Ending::Signalled(SIGTERM))), last);
        told.on(STARTED);
        told.on(ended(Ending::Signalled(SIGTERM)));
        assert_eq!(told.life.ended(), Some(Ending::Signalled(SIGTERM)));
        // The first has nothing to save.
        let mut told = Told::with_something_to_save();
        told.on(Event::Signal(SIGTERM));
        told.on(ended(Ending::Signalled(SIGTERM)));
        assert_eq!(told.life.ended(), Some(Ending::Signalled(SIGTERM)));
    }

    #[test]
    fn a_daemon_that_there_is_no_room_for_is_tried_again_and_one_that_is_missing_is_not() {
        use crate::ending::NotStarted::{NoRoom, NotFound};
        let mut told = Told::daemon();
        told.on(ended(KILLED));
        told.waits();
        assert_eq!(told.on(ended(Ending::NotStarted(NoRoom))), []);
        assert_eq!(told.waits(), [starts(2)]);
        told.on(ended(Ending::NotStarted(NotFound)));
        assert_eq!(told.life.ended(), Some(Ending::NotStarted(NotFound)));
    }
}
