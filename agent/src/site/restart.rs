//! When to start the site again. Pure: the caller passes the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long to wait after the first, second, … end in a row.
const WAITS: &[Duration] = &[
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(10),
];
/// So many ends within [`WINDOW`] are a loop.
const LOOP_ENDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(120);
/// In a loop, and after starts that failed, an edit is what helps; this is for causes outside the site.
const LOOP_WAIT: Duration = Duration::from_secs(60);

/// The site's recent ends.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    ends: VecDeque<Instant>,
    failed_starts: u32,
}

/// What to do after an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start again after this time.
    Again { after: Duration },
    /// It ends again and again: start again after this longer time.
    CrashLoop { after: Duration },
}

impl Restarts {
    /// The process ended at `now`, having begun at `since`.
    pub(super) fn after_end(&mut self, since: Instant, now: Instant) -> Verdict {
        if now.duration_since(since) > WINDOW {
            self.ends.clear();
        }
        self.ends.retain(|end| now.duration_since(*end) <= WINDOW);
        self.ends.push_back(now);
        match self.ends.len() {
            LOOP_ENDS.. => Verdict::CrashLoop { after: LOOP_WAIT },
            count => Verdict::Again {
                after: WAITS[(count - 1).min(WAITS.len() - 1)],
            },
        }
    }

    /// The process could not start: its configuration does not load.
    pub(super) fn after_failed_start(&mut self) -> Duration {
        self.failed_starts = (self.failed_starts + 1).min(6);
        Duration::from_secs(1 << self.failed_starts).min(LOOP_WAIT)
    }

    /// Something changed: whatever happened before says nothing any more.
    pub(super) fn forgive(&mut self) {
        self.ends.clear();
        self.failed_starts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_ends_again_and_again_is_a_loop_until_something_changes() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let verdicts: Vec<Verdict> = (1..=5).map(|n| restarts.after_end(at(n), at(n))).collect();
        assert_eq!(
            verdicts[..4],
            WAITS
                .iter()
                .map(|wait| Verdict::Again { after: *wait })
                .collect::<Vec<_>>()
        );
        assert_eq!(verdicts[4], Verdict::CrashLoop { after: LOOP_WAIT });
        restarts.forgive();
        assert_eq!(
            restarts.after_end(at(6), at(6)),
            Verdict::Again { after: WAITS[0] }
        );
    }

    #[test]
    fn an_end_after_a_long_life_is_the_first_one() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        for n in 0..4 {
            restarts.after_end(start, start + Duration::from_secs(n));
        }
        let later = start + Duration::from_secs(3600);
        assert_eq!(
            restarts.after_end(start, later),
            Verdict::Again { after: WAITS[0] }
        );
    }
}
