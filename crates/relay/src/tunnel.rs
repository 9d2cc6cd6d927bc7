//! Tunnels: what a connection becomes once the upstream has answered an upgrade with 101.
//!
//! ```text
//!            upstream says 101           client's side upgraded          one side ends
//! (slot) ──────────────────────▶ agreed ────────────────────────▶ open ───────────────▶ half closed ──▶ ended
//!                                   │                              │                        │             ▲
//!                                   └── no upgrade in time ────────┴── idle, error, cancel ─┴─────────────┘
//!                                                                  └── closing: 1001 to the client, its farewell to the upstream
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
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::connection::Connection;
use crate::error::RelayError;
use crate::frames::{Frames, GOING_AWAY};
use crate::settings::{Settings, later};
use crate::upstream::PoolKey;

/// Of each direction of a tunnel. HMR messages are hundreds of bytes, and ten thousand sockets should stay affordable.
const BUFFER_BYTES: usize = 8 * 1024;

/// How long a tunnel that is closed may take: to come to the end of a frame, to say 1001 and to hear the client's farewell,
/// before it is cut. A round trip round the world; whoever is closed is one that stops, and has little more time itself.
const FAREWELL: Duration = Duration::from_millis(500);

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

    /// The right to make one tunnel: one of all, and one of its pool's.
    pub(crate) fn slot(
        &self,
        settings: &Settings,
        of_pool: &Arc<Semaphore>,
    ) -> Result<Slot, RelayError> {
        let take = |slots: &Arc<Semaphore>, limit| {
            Arc::clone(slots)
                .try_acquire_owned()
                .map_err(|_| RelayError::TooManyTunnels { limit })
        };
        Ok(Slot {
            _of_all: take(&self.slots, settings.tunnels_max)?,
            _of_pool: take(of_pool, settings.tunnels_per_pool_max)?,
        })
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
                ending = tunnel.run(&closing) => ending,
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
pub(crate) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_pool: OwnedSemaphorePermit,
}

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
    /// What becomes the upstream's side; somebody has to drive it to there.
    pub(crate) connection: Connection,
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
    /// [`Tunnels::close`]: the client was told so, where that was still possible.
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
    async fn run(self, closing: &CancellationToken) -> Ending {
        let Tunnel {
            client,
            upstream,
            connection,
            slot,
            settings,
            ..
        } = self;
        let upstream = async { tokio::join!(connection.end(), upstream).1 };
        let both = async { tokio::try_join!(client, upstream) };
        let both = tokio::select! {
            both = timeout(settings.upgrade_timeout, both) => both,
            () = closing.cancelled() => return Ending::Closed,
        };
        let (client, upstream) = match both {
            Ok(Ok(both)) => both,
            Ok(Err(error)) => return Ending::NotUpgraded(error),
            Err(_) => return Ending::NotUpgradedInTime,
        };
        let farewell_is_over = async {
            closing.cancelled().await;
            sleep(FAREWELL).await;
        };
        let ending = tokio::select! {
            ending = carry(TokioIo::new(client), TokioIo::new(upstream), closing, &settings) => ending,
            () = farewell_is_over => Ending::Closed,
        };
        drop(slot);
        ending
    }
}

/// Carries bytes both ways until both sides have ended. The end of one side is passed on as such, and the other direction
/// goes on.
async fn carry(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    closing: &CancellationToken,
    settings: &Settings,
) -> Ending {
    let moved = Moved(Mutex::new(Instant::now()));
    let (from_client, to_client) = tokio::io::split(client);
    let (from_upstream, to_upstream) = tokio::io::split(upstream);
    let mut requests = pin!(pump(from_client, to_upstream, &moved));
    let mut answers = pin!(pump_frames(from_upstream, to_client, &moved, closing));

    let first = tokio::select! {
        result = &mut requests => result.map(|()| None),
        result = &mut answers => result.map(Some),
        () = moved.nothing_for(settings.tunnel_idle_timeout) => return Ending::Idle,
    };
    moved.note();
    let last = async {
        match first? {
            None => answers.await,
            // After a 1001 the client's own farewell is still passed on, so that the upstream need not guess.
            Some(last) => requests.await.map(|()| last),
        }
    };
    tokio::select! {
        result = last => match result {
            Ok(Last::End) => Ending::Complete,
            Ok(Last::GoingAway) => Ending::Closed,
            Err(error) => Ending::Broken(error),
        },
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
        write(&mut to, &buffer[..count], moved).await?;
    }
}

/// How the direction to the client has ended.
#[derive(Clone, Copy)]
enum Last {
    /// The upstream has.
    End,
    /// We have, with a 1001 where one could still be said.
    GoingAway,
}

/// As [`pump`], for the direction in which we may have something to say ourselves.
async fn pump_frames(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
    closing: &CancellationToken,
) -> io::Result<Last> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut closes = pin!(closing.cancelled());
    loop {
        let count = tokio::select! {
            // First: an upstream that never stops sending is no reason to stay.
            biased;
            () = &mut closes => break,
            count = from.read(&mut buffer) => count?,
        };
        if count == 0 {
            to.shutdown().await?;
            return Ok(Last::End);
        }
        frames.pass(&buffer[..count]);
        write(&mut to, &buffer[..count], moved).await?;
    }
    while !frames.at_boundary() {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            to.shutdown().await?;
            return Ok(Last::End);
        }
        let rest = frames.finish(&buffer[..count]);
        write(&mut to, &buffer[..rest], moved).await?;
    }
    if !frames.are_closed() {
        write(&mut to, &GOING_AWAY, moved).await?;
    }
    to.shutdown().await?;
    Ok(Last::GoingAway)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], moved: &Moved) -> io::Result<()> {
    moved.note();
    to.write_all(bytes).await?;
    to.flush().await?;
    moved.note();
    Ok(())
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
