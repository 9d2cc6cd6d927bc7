//! How long to be patient with an instruction that does not work for a reason unknown. Pure.
//!
//! What counts is what was tried since this start. An environment that was asleep, or that was stopped in the middle of an
//! attempt, has not been trying all that time: the queue's own count, and the time since it first gave the message, would
//! make the first passing error after waking the last one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contract::InstructionId;

/// So many attempts, and no more: those behind it wait.
const ATTEMPTS_MAX: u32 = 4;
/// And no longer than this after the first attempt.
const TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// Instructions whose attempts are remembered. One is tried at a time, but what was somebody else's for a while may come back.
const REMEMBERED_MAX: usize = 64;

/// What to do after an attempt that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Try again.
    TryAgain {
        /// When.
        after: Duration,
    },
    /// Say that it failed.
    GiveUp,
}

/// What was tried since this start.
#[derive(Debug, Default)]
pub(crate) struct Attempts(VecDeque<Tried>);

/// How often one instruction was tried, and since when.
#[derive(Debug)]
struct Tried {
    instruction_id: InstructionId,
    first: Instant,
    count: u32,
}

impl Attempts {
    /// Notes that an attempt begins.
    pub(super) fn begin(&mut self, id: &InstructionId, now: Instant) {
        if let Some(tried) = self.0.iter_mut().find(|tried| tried.instruction_id == *id) {
            tried.count = tried.count.saturating_add(1);
            return;
        }
        if self.0.len() == REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Tried {
            instruction_id: id.clone(),
            first: now,
            count: 1,
        });
    }

    /// Forgets an instruction that is answered.
    pub(super) fn forget(&mut self, id: &InstructionId) {
        self.0.retain(|tried| tried.instruction_id != *id);
    }

    /// Judges after an attempt that failed.
    pub(super) fn judge(&self, id: &InstructionId, now: Instant) -> Patience {
        let tried = self.0.iter().find(|tried| tried.instruction_id == *id);
        let (count, first) = tried.map_or((1, now), |tried| (tried.count, tried.first));
        let after = pause(count);
        let taken = now.saturating_duration_since(first);
        if count >= ATTEMPTS_MAX || taken.saturating_add(after) >= TIME_MAX {
            Patience::GiveUp
        } else {
            Patience::TryAgain { after }
        }
    }
}

/// The pause after attempt number `attempts`: 1, 4, 16, … seconds, at most a minute.
pub(super) fn pause(attempts: u32) -> Duration {
    Duration::from_secs(4u64.saturating_pow(attempts.saturating_sub(1)).min(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> InstructionId {
        format!("i-{number}").parse().expect("an id")
    }

    fn again(seconds: u64) -> Patience {
        Patience::TryAgain {
            after: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn those_behind_an_instruction_wait_for_it_at_most_four_times_and_five_minutes() {
        let first = Instant::now();
        let after = |seconds| first + Duration::from_secs(seconds);
        let mut attempts = Attempts::default();
        let mut fails = |begun: u64, ended: u64| {
            attempts.begin(&id(1), after(begun));
            attempts.judge(&id(1), after(ended))
        };
        assert_eq!(fails(0, 0), again(1));
        assert_eq!(fails(1, 2), again(4));
        assert_eq!(fails(6, 30), again(16));
        assert_eq!(fails(46, 46), Patience::GiveUp);

        let mut slow = Attempts::default();
        slow.begin(&id(1), first);
        assert_eq!(slow.judge(&id(1), after(200)), again(1));
        slow.begin(&id(1), after(201));
        assert_eq!(
            slow.judge(&id(1), after(297)),
            Patience::GiveUp,
            "it would come back after the five minutes"
        );
    }

    #[test]
    fn a_new_start_and_a_new_instruction_begin_to_count_anew() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        for _ in 0..4 {
            attempts.begin(&id(1), now);
        }
        attempts.begin(&id(2), now);
        assert_eq!(attempts.judge(&id(1), now), Patience::GiveUp);
        assert_eq!(attempts.judge(&id(2), now), again(1));
        attempts.forget(&id(1));
        attempts.begin(&id(1), now);
        assert_eq!(attempts.judge(&id(1), now), again(1));
        // However often and however long ago the queue gave it to an earlier start.
        let mut woken = Attempts::default();
        woken.begin(&id(1), now);
        assert_eq!(woken.judge(&id(1), now), again(1));
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let now = Instant::now();
        let mut attempts = Attempts::default();
        for number in 0..1000 {
            attempts.begin(&id(number), now);
        }
        assert_eq!(attempts.0.len(), REMEMBERED_MAX);
        assert_eq!(attempts.judge(&id(999), now), again(1));
    }
}
