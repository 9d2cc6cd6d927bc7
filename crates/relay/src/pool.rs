//! Connections to upstreams: kept per [`PoolKey`], made by a connector that knows addresses only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::BoxError;
use crate::settings::{RESPONSE_HEAD_MAX_BYTES, Settings};
use crate::upload::Upload;
use crate::upstream::PoolKey;

pub(crate) type UpstreamClient = Client<Connector, Upload>;

/// An upstream that is gone without a word (a stopped task's address answers nothing) is noticed after
/// `KEEPALIVE_IDLE + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL` = 60 s, also by a response or a tunnel that is merely silent.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Below this many pools nobody looks for unused ones.
const POOLS_UNSWEPT: usize = 64;

/// All pools of a relay.
pub(crate) struct Pools {
    settings: Arc<Settings>,
    connector: Connector,
    executor: TrackedExecutor,
    /// Keeps nothing: for a request that has met a dying connection once.
    fresh: UpstreamClient,
    kept: RwLock<Kept>,
}

struct Kept {
    by_key: HashMap<PoolKey, Arc<Pool>>,
    /// The number of pools at which unused ones are dropped.
    sweep_at: usize,
}

/// The connections of one key.
pub(crate) struct Pool {
    pub(crate) client: UpstreamClient,
    /// Ends the tunnels of this pool. Every tunnel holds it, which is how the sweep knows them.
    pub(crate) tunnels: Arc<CancellationToken>,
    /// The tunnels that it may still have.
    pub(crate) slots: Arc<Semaphore>,
    /// The address this pool was made for, in the form a URL wants it: a key almost always means one address.
    authority: (SocketAddr, Authority),
    last_used: Mutex<Instant>,
}

impl Pools {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        // Small writes are whole messages here: an HMR update must not wait for an acknowledgement.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE_IDLE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        let connector = Connector { tcp };
        let executor = TrackedExecutor(TaskTracker::new());
        let fresh = client_builder(&executor)
            .pool_max_idle_per_host(0)
            .build(connector.clone());
        let kept = Kept {
            by_key: HashMap::new(),
            sweep_at: POOLS_UNSWEPT,
        };
        Self {
            settings,
            connector,
            executor,
            fresh,
            kept: RwLock::new(kept),
        }
    }

    /// The pool of `key`; `address` is only remembered.
    pub(crate) fn of(&self, key: &PoolKey, address: SocketAddr) -> Arc<Pool> {
        let found = self
            .kept
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .get(key)
            .cloned();
        let pool = found.unwrap_or_else(|| self.make(key, address));
        *pool
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
        pool
    }

    /// A client that makes a connection for every request.
    pub(crate) fn fresh(&self) -> &UpstreamClient {
        &self.fresh
    }

    pub(crate) fn forget(&self, key: &PoolKey) {
        let forgotten = self
            .kept
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .remove(key);
        if let Some(pool) = forgotten {
            pool.tunnels.cancel();
        }
    }

    /// How many tunnels the pool of `key` has.
    pub(crate) fn tunnels_of(&self, key: &PoolKey) -> usize {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.by_key.get(key).map_or(0, |pool| {
            self.tunnels_max() - pool.slots.available_permits()
        })
    }

    fn tunnels_max(&self) -> usize {
        self.settings
            .tunnels_per_pool_max
            .min(Semaphore::MAX_PERMITS)
    }

    fn make(&self, key: &PoolKey, address: SocketAddr) -> Arc<Pool> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.by_key.len() >= kept.sweep_at {
            // A pool that nobody has used for as long as a connection is kept holds no connection; a caller that never
            // forgets anything is no leak.
            let idle = self.settings.pool_idle_timeout;
            kept.by_key.retain(|_, pool| pool.is_used(idle));
            kept.sweep_at = POOLS_UNSWEPT.max(kept.by_key.len() * 2);
        }
        let pool = kept.by_key.entry(key.clone()).or_insert_with(|| {
            let client = client_builder(&self.executor)
                .pool_idle_timeout(self.settings.pool_idle_timeout)
                .pool_max_idle_per_host(self.settings.pool_idle_max)
                .build(self.connector.clone());
            Arc::new(Pool {
                client,
                tunnels: Arc::new(CancellationToken::new()),
                slots: Arc::new(Semaphore::new(self.tunnels_max())),
                authority: (address, authority(address)),
                last_used: Mutex::new(Instant::now()),
            })
        });
        Arc::clone(pool)
    }
}

impl Pool {
    /// `address` as the authority of a URL.
    pub(crate) fn authority(&self, address: SocketAddr) -> Authority {
        let (known, known_authority) = &self.authority;
        if *known == address {
            known_authority.clone()
        } else {
            authority(address)
        }
    }

    fn is_used(self: &Arc<Self>, idle: Duration) -> bool {
        Arc::strong_count(self) > 1
            || Arc::strong_count(&self.tunnels) > 1
            || self
                .last_used
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .elapsed()
                <= idle
    }
}

fn authority(address: SocketAddr) -> Authority {
    // Without the scope of a link-local address, which a URL cannot carry.
    let plain = SocketAddr::new(address.ip(), address.port());
    plain
        .to_string()
        .try_into()
        .expect("an address and a port are an authority")
}

fn client_builder(executor: &TrackedExecutor) -> Builder {
    let mut builder = Client::builder(executor.clone());
    builder
        .pool_timer(TokioTimer::new())
        // RESPONSE_HEADERS_MAX is hyper's default, which it keeps on the stack; a number said here goes on the heap.
        .http1_max_buf_size(RESPONSE_HEAD_MAX_BYTES)
        // `Host` is always there.
        .set_host(false);
    builder
}

/// Connection tasks are spawned where they can be counted, like every other task.
#[derive(Clone)]
struct TrackedExecutor(TaskTracker);

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        drop(self.0.spawn(connection));
    }
}

/// Connects, and marks what it made.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri);
        Box::pin(async move {
            Ok(Link {
                stream: connecting.await?,
                answered: Answered::default(),
            })
        })
    }
}

/// Whether a connection has carried a response already. Only such a one can have been closed for idleness while a request
/// was on its way to it; a fresh one that ends unanswered is an upstream that does not want the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

impl Answered {
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection to an upstream.
pub(crate) struct Link {
    stream: TokioIo<TcpStream>,
    answered: Answered,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        // Not `stream.connected()`: it would put the addresses into every response's extensions.
        Connected::new().extra(self.answered.clone())
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 80))
    }

    fn count(pools: &Pools) -> usize {
        pools.kept.read().unwrap().by_key.len()
    }

    #[tokio::test(start_paused = true)]
    async fn pools_that_nobody_forgets_do_not_pile_up() {
        let pools = Pools::new(Arc::new(Settings::default()));
        let kept = PoolKey::from("kept");
        let tunnels = Arc::clone(&pools.of(&kept, address()).tunnels);
        let in_use = pools.of(&PoolKey::from("in use"), address());
        for number in 0..10_000_u64 {
            pools.of(&PoolKey::from(number), address());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(
            count(&pools) < 2 * POOLS_UNSWEPT,
            "{} are left",
            count(&pools)
        );
        assert!(Arc::ptr_eq(
            &in_use,
            &pools.of(&PoolKey::from("in use"), address())
        ));
        pools.forget(&kept);
        assert!(
            tunnels.is_cancelled(),
            "a pool with tunnels stays, so that they can be ended"
        );
    }

    #[tokio::test]
    async fn a_busy_relay_keeps_all_its_pools() {
        let pools = Pools::new(Arc::new(Settings::default()));
        for number in 0..1_000_u64 {
            pools.of(&PoolKey::from(number), address());
        }
        assert_eq!(count(&pools), 1_000);
    }

    #[test]
    fn an_address_is_an_authority_in_either_family() {
        for (address, expected) in [
            ("127.0.0.1:4321", "127.0.0.1:4321"),
            ("[::1]:4321", "[::1]:4321"),
            ("[fe80::1%3]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(authority(address.parse().unwrap()).as_str(), expected);
        }
    }
}
