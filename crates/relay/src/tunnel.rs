//! Tunnels: what a connection becomes once the upstream has answered an upgrade with 101.
//!
//! ```text
//!            upstream says 101           client's side upgraded          one side ends
//! (slot) ──────────────────────▶ agreed ────────────────────────▶ open ───────────────▶ half closed ──▶ ended
//!                                   │                              │                        │             ▲
//!                                   └── no upgrade in time ────────┴── idle, error, cancel ─┴─────────────┘
//! ```
//!
//! A slot is taken before the upstream is asked, so that a refusal costs it nothing. No byte is moved before both sides have
//! switched: what a client sends ahead of the 101 stays in its own server's buffer, and becomes the next *request* if the
//! upstream does not switch.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::error::RelayError;
use crate::settings::{Settings, later};
use crate::upstream::PoolKey;

/// Of each direction of a tunnel. HMR messages are hundreds of bytes, and ten thousand sockets should stay affordable.
const BUFFER_BYTES: usize = 8 * 1024;

/// The tunnels of a relay.
pub(crate) struct Tunnels {
    slots: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    current: Mutex<Batch>,
}

/// The tunnels since the last time all were closed. Closing takes the whole batch, so that waiting for its end cannot be
/// prolonged by those who come back at once.
#[derive(Clone, Default)]
struct Batch {
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Tunnels {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(
                settings.tunnels_max.min(Semaphore::MAX_PERMITS),
            )),
            open: Arc::default(),
            current: Mutex::default(),
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The right to make one tunnel.
    pub(crate) fn slot(&self, limit: usize) -> Result<Slot, RelayError> {
        let slots = Arc::clone(&self.slots);
        slots
            .try_acquire_owned()
            .map_err(|_| RelayError::TooManyTunnels { limit })
    }

    /// Makes a tunnel of two connections that are about to be upgraded.
    pub(crate) fn start(&self, tunnel: Tunnel) {
        let batch = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let counted = Counted::new(&self.open);
        drop(batch.tasks.spawn(async move {
            let (closing, forgotten) = (batch.closing, Arc::clone(&tunnel.forgotten));
            let pool_key = tunnel.pool_key.clone();
            let ending = tokio::select! {
                ending = tunnel.run() => ending,
                () = closing.cancelled() => Ending::Closed,
                () = forgotten.cancelled() => Ending::Forgotten,
            };
            drop(counted);
            debug!(pool = %pool_key, %ending, "tunnel ended");
        }));
    }

    pub(crate) async fn close(&self, deadline: Duration) {
        let batch =
            std::mem::take(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner));
        batch.closing.cancel();
        batch.tasks.close();
        if timeout(deadline, batch.tasks.wait()).await.is_err() {
            debug!(left = batch.tasks.len(), "tunnels did not end in time");
        }
    }
}

/// The right to one tunnel; given back when dropped.
pub(crate) type Slot = OwnedSemaphorePermit;

/// One in the number of open tunnels.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Two connections that are to become one.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    pub(crate) slot: Slot,
    pub(crate) pool_key: PoolKey,
    pub(crate) forgotten: Arc<CancellationToken>,
    pub(crate) settings: Arc<Settings>,
}

/// How a tunnel ended.
#[derive(Debug)]
enum Ending {
    /// The caller never sent its 101, or the client was gone before it.
    NotUpgraded(hyper::Error),
    NotUpgradedInTime,
    /// Both sides ended it.
    Complete,
    /// Nothing was carried for too long.
    Idle,
    /// A side broke.
    Broken(io::Error),
    /// [`Tunnels::close`].
    Closed,
    /// The pool was forgotten.
    Forgotten,
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::NotUpgraded(error) => write!(formatter, "not upgraded: {error}"),
            Ending::NotUpgradedInTime => formatter.write_str("not upgraded in time"),
            Ending::Complete => formatter.write_str("complete"),
            Ending::Idle => formatter.write_str("idle"),
            Ending::Broken(error) => write!(formatter, "broken: {error}"),
            Ending::Closed => formatter.write_str("closed"),
            Ending::Forgotten => formatter.write_str("forgotten"),
        }
    }
}

impl Tunnel {
    async fn run(self) -> Ending {
        let Tunnel {
            client,
            upstream,
            slot,
            settings,
            ..
        } = self;
        let both = async { tokio::try_join!(client, upstream) };
        let (client, upstream) = match timeout(settings.upgrade_timeout, both).await {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return Ending::NotUpgraded(error),
            Err(_) => return Ending::NotUpgradedInTime,
        };
        let ending = carry(TokioIo::new(client), TokioIo::new(upstream), &settings).await;
        drop(slot);
        ending
    }
}

/// Carries bytes both ways until both sides have ended. The end of one side is passed on as such, and the other direction
/// goes on.
async fn carry(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    settings: &Settings,
) -> Ending {
    let moved = Moved(Mutex::new(Instant::now()));
    let (from_client, to_client) = tokio::io::split(client);
    let (from_upstream, to_upstream) = tokio::io::split(upstream);
    let mut requests = pin!(pump(from_client, to_upstream, &moved));
    let mut answers = pin!(pump(from_upstream, to_client, &moved));

    let (first, client_ended) = tokio::select! {
        result = &mut requests => (result, true),
        result = &mut answers => (result, false),
        () = moved.nothing_for(settings.tunnel_idle_timeout) => return Ending::Idle,
    };
    if let Err(error) = first {
        return Ending::Broken(error);
    }
    let last = async {
        if client_ended {
            answers.await
        } else {
            requests.await
        }
    };
    moved.note();
    tokio::select! {
        result = last => result.map_or_else(Ending::Broken, |()| Ending::Complete),
        () = moved.nothing_for(settings.tunnel_half_closed_timeout) => Ending::Idle,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        moved.note();
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved.note();
    }
}

/// When a byte was last moved, either way.
struct Moved(Mutex<Instant>);

impl Moved {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn nothing_for(&self, limit: Duration) {
        loop {
            let until = later(
                *self.0.lock().unwrap_or_else(PoisonError::into_inner),
                limit,
            );
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
