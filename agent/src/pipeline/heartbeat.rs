//! Keeps a message ours while its instruction is carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    held: Arc<AtomicBool>,
    task: JoinSet<()>,
}

impl Heartbeat {
    /// Begins to extend.
    pub(super) fn start(queue: Arc<dyn Instructions>, handle: DeliveryHandle) -> Self {
        let (stop, held) = (CancellationToken::new(), Arc::new(AtomicBool::new(true)));
        let mut task = JoinSet::new();
        task.spawn(beat(queue, handle, stop.clone(), Arc::clone(&held)));
        Self { stop, held, task }
    }

    /// Whether the message is still ours, as far as is known. Asked before every step that others can see.
    pub(super) fn held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Stops, and waits until nothing is under way. Returns whether the message was ours to the last.
    pub(super) async fn join(mut self) -> bool {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the heartbeat of a message broke");
                self.held.store(false, Ordering::Release);
            }
        }
        self.held()
    }
}

async fn beat(
    queue: Arc<dyn Instructions>,
    handle: DeliveryHandle,
    stop: CancellationToken,
    held: Arc<AtomicBool>,
) {
    let mut failures = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match queue.extend(&handle, VISIBILITY).await {
            Ok(Lease::Held) => failures = 0,
            Ok(Lease::Lost) => {
                held.store(false, Ordering::Release);
                return;
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "a message could not be extended");
                failures += 1;
                // Two in a row: by the third it may be somebody else's.
                if failures >= 2 {
                    held.store(false, Ordering::Release);
                    return;
                }
            }
        }
    }
}
