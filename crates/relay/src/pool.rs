//! Connections to upstreams that nobody uses just now: kept per [`PoolKey`], made by a connector that knows addresses only.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::connection::Connection;
use crate::settings::{Settings, later};
use crate::upstream::PoolKey;

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
    pub(crate) connector: Connector,
    closers: Closers,
    kept: RwLock<Kept>,
}

struct Kept {
    by_key: HashMap<PoolKey, Arc<Pool>>,
    /// The number of pools at which unused ones are dropped.
    sweep_at: usize,
}

/// The connections of one key.
pub(crate) struct Pool {
    settings: Arc<Settings>,
    closers: Closers,
    unused: Mutex<Unused>,
    /// Ends the tunnels of this pool, and says that it is forgotten. Every tunnel holds it, which is how the sweep knows them.
    pub(crate) tunnels: Arc<CancellationToken>,
    /// The tunnels that it may still have.
    pub(crate) slots: Arc<Semaphore>,
    last_used: Mutex<Instant>,
}

#[derive(Default)]
struct Unused {
    /// The oldest first.
    connections: Vec<(Connection, Instant)>,
    /// Whether somebody sees to it that they are closed in time.
    closing: bool,
}

/// The tasks that close what nobody uses, and where they run: a response's body may be dropped anywhere.
#[derive(Clone)]
struct Closers {
    tasks: TaskTracker,
    runtime: Handle,
}

impl Pools {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let connector = Connector::new(settings.connect_timeout);
        let closers = Closers {
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        };
        let kept = Kept {
            by_key: HashMap::new(),
            sweep_at: POOLS_UNSWEPT,
        };
        Self {
            settings,
            connector,
            closers,
            kept: RwLock::new(kept),
        }
    }

    /// The pool of `key`.
    pub(crate) fn of(&self, key: &PoolKey) -> Arc<Pool> {
        let found = self
            .kept
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .get(key)
            .cloned();
        let pool = found.unwrap_or_else(|| self.make(key));
        *pool
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
        pool
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
            pool.lock().connections.clear();
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

    fn make(&self, key: &PoolKey) -> Arc<Pool> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.by_key.len() >= kept.sweep_at {
            // A pool that nobody has used for as long as a connection is kept holds no connection; a caller that never
            // forgets anything is no leak.
            let idle = self.settings.pool_idle_timeout;
            kept.by_key.retain(|_, pool| pool.is_used(idle));
            kept.sweep_at = POOLS_UNSWEPT.max(kept.by_key.len() * 2);
        }
        let pool = kept.by_key.entry(key.clone()).or_insert_with(|| {
            Arc::new(Pool {
                settings: Arc::clone(&self.settings),
                closers: self.closers.clone(),
                unused: Mutex::default(),
                tunnels: Arc::new(CancellationToken::new()),
                slots: Arc::new(Semaphore::new(self.tunnels_max())),
                last_used: Mutex::new(Instant::now()),
            })
        });
        Arc::clone(pool)
    }
}

impl Pool {
    /// Takes out a connection to this address over which a request can be sent. The one that was used last is the one that
    /// its upstream is least about to close.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<Connection> {
        loop {
            let (mut connection, since) = {
                let mut unused = self.lock();
                let found = unused
                    .connections
                    .iter()
                    .rposition(|(connection, _)| connection.address == address)?;
                unused.connections.remove(found)
            };
            if since.elapsed() <= self.settings.pool_idle_timeout && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for whoever comes next, if it can still be used and there is room for it.
    pub(crate) fn put(self: &Arc<Self>, mut connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        let mut unused = self.lock();
        if self.tunnels.is_cancelled() || unused.connections.len() >= self.settings.pool_idle_max {
            return;
        }
        unused.connections.push((connection, Instant::now()));
        if !std::mem::replace(&mut unused.closing, true) {
            let closing = close_unused(Arc::downgrade(self), self.settings.pool_idle_timeout);
            drop(self.closers.tasks.spawn_on(closing, &self.closers.runtime));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Unused> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Closes connections that nobody has used for `limit`, until there are none left.
async fn close_unused(pool: Weak<Pool>, limit: Duration) {
    loop {
        let next = {
            let Some(pool) = pool.upgrade() else { return };
            let mut unused = pool.lock();
            let now = Instant::now();
            unused
                .connections
                .retain(|(_, since)| now.saturating_duration_since(*since) < limit);
            let Some((_, oldest)) = unused.connections.first() else {
                unused.closing = false;
                return;
            };
            later(*oldest, limit)
        };
        sleep_until(next).await;
    }
}

/// Connects to addresses.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
}

impl Connector {
    fn new(timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(timeout));
        // Small writes are whole messages here: an HMR update must not wait for an acknowledgement.
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE_IDLE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        Self { tcp }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TokioIo<TcpStream>> {
        let mut tcp = self.tcp.clone();
        tcp.call(url(address))
            .await
            .map_err(|error| io_error(&error))
    }
}

/// `address` as a connector wants it.
fn url(address: SocketAddr) -> Uri {
    // Without the scope of a link-local address, which a URL cannot carry.
    let plain = SocketAddr::new(address.ip(), address.port());
    format!("http://{plain}/")
        .try_into()
        .expect("an address and a port are an authority")
}

/// What the operating system said, from the chain of sources.
fn io_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = Some(error);
    while let Some(found) = cause {
        if let Some(found) = found.downcast_ref::<io::Error>() {
            return io::Error::new(found.kind(), found.to_string());
        }
        cause = found.source();
    }
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(pools: &Pools) -> usize {
        pools.kept.read().unwrap().by_key.len()
    }

    #[tokio::test(start_paused = true)]
    async fn pools_that_nobody_forgets_do_not_pile_up() {
        let pools = Pools::new(Arc::new(Settings::default()));
        let kept = PoolKey::from("kept");
        let tunnels = Arc::clone(&pools.of(&kept).tunnels);
        let in_use = pools.of(&PoolKey::from("in use"));
        for number in 0..10_000_u64 {
            pools.of(&PoolKey::from(number));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(
            count(&pools) < 2 * POOLS_UNSWEPT,
            "{} are left",
            count(&pools)
        );
        assert!(Arc::ptr_eq(&in_use, &pools.of(&PoolKey::from("in use"))));
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
            pools.of(&PoolKey::from(number));
        }
        assert_eq!(count(&pools), 1_000);
    }

    #[test]
    fn an_address_is_a_url_in_either_family() {
        for (address, expected) in [
            ("127.0.0.1:4321", "127.0.0.1:4321"),
            ("[::1]:4321", "[::1]:4321"),
            ("[fe80::1%3]:80", "[fe80::1]:80"),
        ] {
            let url = url(address.parse().unwrap());
            assert_eq!(
                url.authority().map(http::uri::Authority::as_str),
                Some(expected)
            );
        }
    }
}
