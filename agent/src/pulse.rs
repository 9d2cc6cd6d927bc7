//! When a loop last came round: what the health check goes by. A port that answers says only that a port answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pulse of one loop. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// It comes round.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// It came round then.
    #[cfg(test)]
    pub(crate) fn beat_at(&self, then: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(then);
    }

    /// It has come to its end, and is expected no more.
    pub(crate) fn rest(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How long ago it came round; none if it has not begun, or is over.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|last| last.elapsed())
    }
}
