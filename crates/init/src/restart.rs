//! Whether a daemon that ended is started anew, and when. Pure.

use std::time::{Duration, Instant};

use crate::ending::{Ending, NotStarted};
use crate::signal::Signals;

/// The code of a Rust program that panicked.
const PANICKED: u8 = 101;

/// When a crashed daemon is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarts {
    /// So many times at most …
    pub max: usize,
    /// … within this time. What crashes more often is not cured by another start.
    pub within: Duration,
    /// From the first crash to the restart. Every further one within the time doubles it …
    pub delay: Duration,
    /// … up to this.
    pub delay_max: Duration,
    /// Asked to end and crashed, in whichever order, it is started one last time, at once, instead of not at all: for a program that
    /// saves what its crash left. So is a restart that the wish itself ended, which had not begun to listen.
    pub last_start: bool,
}

impl Default for Restarts {
    fn default() -> Self {
        Self {
            max: 5,
            within: Duration::from_secs(10 * 60),
            // Short enough that nobody who waits for a page notices.
            delay: Duration::from_millis(250),
            delay_max: Duration::from_secs(8),
            last_start: false,
        }
    }
}

/// What is done after an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was meant: that is the end.
    Meant,
    /// A crash: it is started anew after the delay, for the `number`th time since init began.
    Again {
        /// From the ending to the start.
        delay: Duration,
        /// Counted from 1.
        number: u32,
    },
    /// A crash of what was asked to end: it is started at once, for the `number`th and last time.
    Last {
        /// Counted from 1.
        number: u32,
    },
    /// A crash, and too many of them.
    GiveUp,
}

/// The restarts so far.
#[derive(Debug)]
pub(crate) struct History {
    rules: Restarts,
    recent: Vec<Instant>,
    number: u32,
    /// It has had its last start.
    last: bool,
}

impl History {
    /// None yet.
    pub(crate) fn new(rules: Restarts) -> Self {
        Self {
            rules,
            recent: Vec::new(),
            number: 0,
            last: false,
        }
    }

    /// The rules that it keeps.
    pub(crate) fn rules(&self) -> &Restarts {
        &self.rules
    }

    /// Whether it is started one last time if an end is asked for.
    pub(crate) fn may_start_last(&self) -> bool {
        self.rules.last_start && !self.last
    }

    /// It runs. With `asked`, that was its last start.
    pub(crate) fn started(&mut self, asked: bool) {
        self.last |= asked;
    }

    /// Decides about an ending; `heard` are the signals that were passed on to the daemon, `asked` is whether its end was asked for.
    pub(crate) fn judge(
        &mut self,
        ending: Ending,
        heard: Signals,
        asked: bool,
        now: Instant,
    ) -> Verdict {
        if asked {
            return self.judge_asked(ending, heard, now);
        }
        if !is_crash(ending, heard) {
            return Verdict::Meant;
        }
        self.again(now)
    }

    fn judge_asked(&mut self, ending: Ending, heard: Signals, now: Instant) -> Verdict {
        let heard = if self.number > 0 {
            heard.without_wishes_to_end()
        } else {
            // The first left nothing before it listened.
            heard
        };
        if !self.may_start_last() || !is_crash(ending, heard) {
            return Verdict::Meant;
        }
        if let Ending::NotStarted(_) = ending {
            // Not even once: as if it had not been asked.
            return self.again(now);
        }
        // It is the last: no limit is needed.
        self.number = self.number.saturating_add(1);
        Verdict::Last {
            number: self.number,
        }
    }

    fn again(&mut self, now: Instant) -> Verdict {
        let within = self.rules.within;
        self.recent
            .retain(|at| now.saturating_duration_since(*at) < within);
        if self.recent.len() >= self.rules.max {
            return Verdict::GiveUp;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        let delay = self
            .rules
            .delay
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(self.rules.delay_max);
        self.recent.push(now);
        self.number = self.number.saturating_add(1);
        Verdict::Again {
            delay,
            number: self.number,
        }
    }
}

/// Whether nobody wanted this ending. What was passed on was wanted by somebody.
fn is_crash(ending: Ending, heard: Signals) -> bool {
    match ending {
        Ending::Exited(code) => code == PANICKED,
        Ending::Signalled(signal) => !heard.contains(signal),
        Ending::NotStarted(why) => why == NotStarted::NoRoom,
        Ending::Stopped(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ending = Ending::Signalled(9);

    fn again(delay_ms: u64, number: u32) -> Verdict {
        Verdict::Again {
            delay: Duration::from_millis(delay_ms),
            number,
        }
    }

    #[test]
    fn only_what_nobody_wanted_is_a_crash() {
        for code in 0..=u8::MAX {
            let crash = is_crash(Ending::Exited(code), Signals::default());
            assert_eq!(crash, code == 101, "{code}");
        }
        for signal in 1..=64 {
            assert!(is_crash(Ending::Signalled(signal), Signals::default()));
            let mut heard = Signals::default();
            heard.insert(signal);
            assert!(!is_crash(Ending::Signalled(signal), heard));
        }
        for (why, crash) in [
            (NotStarted::NotFound, false),
            (NotStarted::NotExecutable, false),
            (NotStarted::NoRoom, true),
        ] {
            assert_eq!(
                is_crash(Ending::NotStarted(why), Signals::default()),
                crash,
                "{why:?}"
            );
        }
    }

    #[test]
    fn it_waits_longer_each_time_and_gives_up_in_the_end() {
        let now = Instant::now();
        let mut history = History::new(Restarts::default());
        for (number, delay_ms) in (1..).zip([250, 500, 1000, 2000, 4000]) {
            let verdict = history.judge(KILLED, Signals::default(), false, now);
            assert_eq!(verdict, again(delay_ms, number));
        }
        for _ in 0..3 {
            let verdict = history.judge(KILLED, Signals::default(), false, now);
            assert_eq!(verdict, Verdict::GiveUp);
        }
    }

    #[test]
    fn the_delay_has_a_limit() {
        let now = Instant::now();
        let mut history = History::new(Restarts {
            max: 100,
            ..Restarts::default()
        });
        let last = (0..100).map(|_| history.judge(KILLED, Signals::default(), false, now));
        assert_eq!(last.last(), Some(again(8000, 100)));
    }

    #[test]
    fn old_crashes_are_forgotten_but_counted() {
        let start = Instant::now();
        let mut history = History::new(Restarts::default());
        // One every two minutes and a bit: never more than four others in ten.
        for number in 1..=50 {
            let now = start + Duration::from_secs(u64::from(number) * 125);
            let verdict = history.judge(KILLED, Signals::default(), false, now);
            assert!(
                matches!(verdict, Verdict::Again { delay, number: n } if n == number && delay <= Duration::from_secs(4)),
                "{number}: {verdict:?}"
            );
        }
        let later = start + Duration::from_secs(24 * 3600);
        let verdict = history.judge(KILLED, Signals::default(), false, later);
        assert_eq!(verdict, again(250, 51));
    }

    #[test]
    fn who_was_asked_to_end_and_crashed_has_a_last_start_however_often_it_crashed() {
        let now = Instant::now();
        let rules = Restarts {
            last_start: true,
            ..Restarts::default()
        };
        let mut history = History::new(rules);
        for _ in 0..5 {
            history.judge(KILLED, Signals::default(), false, now);
            history.started(false);
        }
        let no_room = Ending::NotStarted(NotStarted::NoRoom);
        let mut heard = Signals::default();
        heard.insert(15);
        let ended_by_it = Ending::Signalled(15);
        let mut judge = |ending| history.judge(ending, heard, true, now);
        assert_eq!(judge(Ending::Exited(0)), Verdict::Meant);
        assert_eq!(judge(no_room), Verdict::GiveUp);
        assert_eq!(judge(ended_by_it), Verdict::Last { number: 6 });
        history.started(true);
        for ending in [KILLED, ended_by_it, no_room] {
            assert_eq!(history.judge(ending, heard, true, now), Verdict::Meant);
        }
        // Without the rule, and before the first crash, there is nothing to save.
        let mut history = History::new(Restarts::default());
        assert_eq!(history.judge(KILLED, heard, true, now), Verdict::Meant);
        let mut history = History::new(rules);
        assert_eq!(history.judge(ended_by_it, heard, true, now), Verdict::Meant);
        let verdict = history.judge(KILLED, heard, true, now);
        assert_eq!(verdict, Verdict::Last { number: 1 });
    }

    #[test]
    fn a_last_start_that_there_is_no_room_for_is_tried_again() {
        let now = Instant::now();
        let mut history = History::new(Restarts {
            last_start: true,
            ..Restarts::default()
        });
        let no_room = Ending::NotStarted(NotStarted::NoRoom);
        let verdict = history.judge(no_room, Signals::default(), true, now);
        assert_eq!(verdict, again(250, 1));
        let verdict = history.judge(KILLED, Signals::default(), true, now);
        assert_eq!(verdict, Verdict::Last { number: 2 });
    }

    #[test]
    fn what_was_meant_counts_as_no_crash() {
        let now = Instant::now();
        let mut history = History::new(Restarts::default());
        for _ in 0..100 {
            let verdict = history.judge(Ending::Exited(1), Signals::default(), false, now);
            assert_eq!(verdict, Verdict::Meant);
        }
        let verdict = history.judge(KILLED, Signals::default(), false, now);
        assert_eq!(verdict, again(250, 1));
    }
}
