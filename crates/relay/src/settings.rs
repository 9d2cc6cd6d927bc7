//! The limits of a relay.

use std::time::Duration;

use tokio::time::Instant;

/// The most header lines a request may have: what hyper's server accepts by default, and Node allows 2,000.
pub const REQUEST_HEADERS_MAX: usize = 100;

/// The most bytes of target, header names and values a request may have: what an ALB lets through. Node stops at 16 KB
/// by default and answers 431 itself, which is relayed.
pub const REQUEST_HEAD_MAX_BYTES: usize = 64 * 1024;

/// The most header lines a response may have.
pub const RESPONSE_HEADERS_MAX: usize = 100;

/// The most bytes a response's head may have. It is also the most that is read from an upstream ahead of a slow client.
/// An ALB answers 502 beyond 32 KB, but the door is also used without one.
pub const RESPONSE_HEAD_MAX_BYTES: usize = 256 * 1024;

/// How long and how much. [`Settings::default`] suits the door as well as the gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest a TCP connect may take. Default: 2 s, because a lost SYN is sent again after 1 s, and an address in the
    /// same network that has not answered by then belongs to nobody.
    pub connect_timeout: Duration,
    /// The longest the upstream may take for the head of its response once it has the whole request, and the longest a
    /// client may pause within its body. Default: 120 s, because a dev server's first page may have to optimise hundreds
    /// of dependencies, and whoever waits longer than that has given up.
    pub response_head_timeout: Option<Duration>,
    /// The longest the upstream may take to answer a WebSocket upgrade. Default: 10 s; Vite never answers one for a path
    /// that is not its own.
    pub upgrade_timeout: Duration,
    /// How long an unused connection is kept. Default: 4 s, shorter than the 5 s after which Node closes it, so that a
    /// request rarely meets a connection that is being closed.
    pub pool_idle_timeout: Duration,
    /// The most unused connections kept per pool. Default: 32; a page of a dev server has 15 to 20 requests in flight.
    pub pool_idle_max: usize,
    /// The most bytes of a request body. Default: 64 MiB, more than a photograph and less than a small container's memory,
    /// should the site hold it there.
    pub request_body_max: Option<u64>,
    /// The most tunnels at a time. Default: 1,024; two sockets and two 8 KiB buffers each.
    pub tunnels_max: usize,
    /// The most tunnels of one pool at a time. Default: all there may be, because the door has one upstream.
    pub tunnels_per_pool_max: usize,
    /// The longest a tunnel may carry nothing either way. Default: one hour: Vite's client pings every 30 s, but a hidden
    /// tab's timers are stopped, and ending its socket reloads the page when it is shown again.
    pub tunnel_idle_timeout: Duration,
    /// The longest a tunnel may carry nothing once one side has ended. Default: 30 s: what remains is the rest of an answer.
    pub tunnel_half_closed_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            response_head_timeout: Some(Duration::from_mins(2)),
            upgrade_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(4),
            pool_idle_max: 32,
            request_body_max: Some(64 * 1024 * 1024),
            tunnels_max: 1024,
            tunnels_per_pool_max: usize::MAX,
            tunnel_idle_timeout: Duration::from_hours(1),
            tunnel_half_closed_timeout: Duration::from_secs(30),
        }
    }
}

/// `since + limit`, where "for ever" may be written as [`Duration::MAX`].
pub(crate) fn later(since: Instant, limit: Duration) -> Instant {
    const FOR_EVER: Duration = Duration::from_hours(24 * 365);
    since.checked_add(limit).unwrap_or_else(|| since + FOR_EVER)
}
