//! How long to be patient with an instruction that does not work for a reason unknown. Pure.

use std::time::Duration;

use contract::Timestamp;

/// So many attempts, and no more: those behind it wait.
const ATTEMPTS_MAX: u32 = 4;
/// And no longer than this after it was first received.
const TIME_MAX: Duration = Duration::from_secs(5 * 60);

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

/// Judges after attempt number `attempts`.
pub(super) fn judge(attempts: u32, first_received_at: Timestamp, now: Timestamp) -> Patience {
    let after = pause(attempts);
    if attempts >= ATTEMPTS_MAX || now.since(first_received_at) + after >= TIME_MAX {
        Patience::GiveUp
    } else {
        Patience::TryAgain { after }
    }
}

/// The pause after attempt number `attempts`: 1, 4, 16, … seconds, at most a minute.
pub(super) fn pause(attempts: u32) -> Duration {
    Duration::from_secs(4u64.saturating_pow(attempts.saturating_sub(1)).min(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_behind_an_instruction_wait_for_it_at_most_four_times_and_five_minutes() {
        let first = Timestamp::from_unix_ms(0);
        let after = |seconds| first.plus(Duration::from_secs(seconds));
        assert_eq!(
            judge(1, first, after(0)),
            Patience::TryAgain {
                after: Duration::from_secs(1)
            }
        );
        assert_eq!(
            judge(3, first, after(30)),
            Patience::TryAgain {
                after: Duration::from_secs(16)
            }
        );
        assert_eq!(judge(4, first, after(30)), Patience::GiveUp);
        assert_eq!(
            judge(2, first, after(297)),
            Patience::GiveUp,
            "it would come back after the five minutes"
        );
    }
}
