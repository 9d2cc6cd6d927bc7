//! Keeps a message ours while its instruction is carried out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use platform::{DeliveryHandle, Instructions, Lease};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::VISIBILITY;

/// How often it is extended: three times before it would run out.
const EVERY: Duration = Duration::from_secs(20);

/// Extends one delivery until it is joined.
#[derive(Debug)]
pub(super) struct Heartbeat {
    stop: CancellationToken,
    hold: Arc<Hold>,
    task: JoinSet<()>,
}

/// Whether a message is ours, and until when it is if nothing more is heard.
#[derive(Debug)]
struct Hold {
    lost: AtomicBool,
    until: Mutex<Instant>,
}

impl Hold {
    fn is_held(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        !self.lost.load(Ordering::Acquire) && Instant::now() < until
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    fn extend(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Heartbeat {
    /// Begins to extend.
    pub(super) fn start(queue: Arc<dyn Instructions>, handle: DeliveryHandle) -> Self {
        let stop = CancellationToken::new();
        let hold = Arc::new(Hold {
            lost: AtomicBool::new(false),
            until: Mutex::new(Instant::now() + VISIBILITY),
        });
        let mut task = JoinSet::new();
        task.spawn(beat(queue, handle, stop.clone(), Arc::clone(&hold)));
        Self { stop, hold, task }
    }

    /// Whether the message is still ours, as far as is known. Asked before every step that others can see.
    pub(super) fn held(&self) -> bool {
        self.hold.is_held()
    }

    /// Stops, and waits until nothing is under way. Returns whether the message was ours to the last.
    pub(super) async fn join(mut self) -> bool {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the heartbeat of a message broke");
                self.hold.lose();
            }
        }
        self.held()
    }
}

async fn beat(
    queue: Arc<dyn Instructions>,
    handle: DeliveryHandle,
    stop: CancellationToken,
    hold: Arc<Hold>,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let asked = Instant::now();
        match queue.extend(&handle, VISIBILITY).await {
            Ok(Lease::Held) => hold.extend(asked + VISIBILITY),
            Ok(Lease::Lost) => return hold.lose(),
            // It is ours as long as it was going to be, and asked for again before that.
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "a message could not be extended");
            }
        }
    }
}
