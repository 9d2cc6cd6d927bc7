//! Ctrl-C, and SIGTERM, which asks for the same.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Listens for the wish to stop.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: [Signal; 3],
    /// One was heard that is still to be followed.
    kept: bool,
}

impl Interrupt {
    /// From here on the wish does not end the process by itself.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::internal("listen for Ctrl-C", &error));
        Ok(Self {
            signals: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            ],
            kept: false,
        })
    }

    /// Puts off one that was heard: the next [`requested`](Self::requested) hears it at once.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn requested(&mut self) {
        if !std::mem::take(&mut self.kept) {
            self.requested_anew().await;
        }
    }

    /// Waits for the next one beside one that is kept. Cancel safe.
    pub(crate) async fn requested_anew(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
