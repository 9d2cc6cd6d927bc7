//! How the pipeline is told to end, and how it says that it has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What waits at all waits so long.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// When it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Until {
    /// When it is told to.
    Told,
    /// When nothing waits in the queue.
    Empty,
    /// Now: the instruction that runs is finished, or taken back.
    Now,
}

/// Tells one pipeline to end. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    until: Arc<watch::Sender<Until>>,
    expected: Arc<Mutex<Option<Instant>>>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            until: Arc::new(watch::channel(Until::Told).0),
            expected: Arc::default(),
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }
}

impl Ending {
    /// When it will be told to end if nothing happens, as far as is known.
    pub(crate) fn expect(&self, at: Option<Instant>) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// How long something may wait that is not to be given up when it ends, at most `most`.
    pub(super) fn patience(&self, most: Duration) -> Duration {
        let expected = *self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let left = expected.map_or(most, |at| at.saturating_duration_since(Instant::now()));
        // A moment at least, or whoever asks again and again would never wait.
        left.clamp(WAIT_MIN, most)
    }

    /// It ends when nothing waits in the queue.
    pub(crate) fn when_empty(&self) {
        self.until.send_if_modified(|until| {
            let earlier = *until < Until::Empty;
            *until = (*until).max(Until::Empty);
            earlier
        });
    }

    /// It ends now.
    pub(crate) fn now(&self) {
        self.until.send_replace(Until::Now);
        self.stop.cancel();
    }

    /// Cancelled when it is to end now.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until it has ended, however it did.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Says that it has ended when it is dropped: also when the pipeline broke.
    pub(super) fn guard(&self) -> DropGuard {
        self.ended.clone().drop_guard()
    }

    /// When it is to end; changes can be waited for.
    pub(super) fn watch(&self) -> watch::Receiver<Until> {
        self.until.subscribe()
    }
}
