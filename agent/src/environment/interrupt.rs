//! Ctrl-C, and SIGTERM, which asks for the same.

use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Listens for the wish to stop.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: Vec<Signal>,
}

impl Interrupt {
    /// From here on the wish does not end the process by itself.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::of(&[
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ])
    }

    /// The same, and no other signal that asks for an end does so either.
    pub(crate) fn of_a_container() -> Result<Self, Failure> {
        let mut interrupt = Self::listen()?;
        let quit = Self::of(&[SignalKind::quit()])?;
        interrupt.signals.extend(quit.signals);
        Ok(interrupt)
    }

    fn of(kinds: &[SignalKind]) -> Result<Self, Failure> {
        let listened: Result<_, _> = kinds.iter().copied().map(signal).collect();
        let signals = listened.map_err(|error| Failure::internal("listen for Ctrl-C", &error))?;
        Ok(Self { signals })
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn requested(&mut self) {
        std::future::poll_fn(|context| {
            let mut heard = false;
            // Each is asked, so that each wakes us.
            for signal in &mut self.signals {
                heard |= signal.poll_recv(context).is_ready();
            }
            if heard {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
