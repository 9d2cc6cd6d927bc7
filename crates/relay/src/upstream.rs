//! Where a request goes, and what the upstream is told about where it came from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

/// One upstream, chosen by the caller for one request.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where to connect. Names are never resolved here: the caller has judged exactly this address.
    pub address: SocketAddr,
    /// What the upstream sees as `Host`.
    pub host: HostPolicy,
    /// What the upstream is told about the client.
    pub forwarded: Forwarded,
    /// The connections this request may share.
    pub pool_key: PoolKey,
}

/// What becomes of `Host`, for HTTP and WebSocket alike: two policies would be a page that works and an HMR
/// socket that does not.
#[derive(Clone, Debug)]
pub enum HostPolicy {
    /// The client's `Host`, byte for byte. A request that names no host is refused.
    Keep,
    /// This one, whatever the client said.
    Set(HeaderValue),
}

/// What this hop says about the client. Whatever the client says itself (`Forwarded`, `X-Forwarded-*`, `X-Real-IP`,
/// and the same spelt with underscores) is always dropped: a hop that believes its predecessor passes the values on
/// here.
#[derive(Clone, Debug, Default)]
pub struct Forwarded {
    /// `X-Forwarded-For`: the one address of the client, not a chain.
    pub client: Option<IpAddr>,
    /// `X-Forwarded-Proto`: how the client reached the first hop.
    pub proto: Option<Proto>,
    /// `X-Forwarded-Host`: the host the client asked for.
    pub host: Option<HeaderValue>,
    /// Headers of this hop's own, such as a proof. They are set last and replace the client's of the same name, so that a
    /// client can neither forge one nor have it stripped by nominating it in `Connection`.
    pub headers: HeaderMap,
}

/// The scheme of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// `http`, and `ws`.
    Http,
    /// `https`, and `wss`.
    Https,
}

impl Proto {
    /// The value of `X-Forwarded-Proto`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Proto::Http => "http",
            Proto::Https => "https",
        }
    }
}

/// Separates pools: connections are shared only between requests with the same key *and* the same address. An address
/// that now belongs to somebody else is therefore never reached over a connection made for its former owner, as long as
/// the key names the owner (task and generation).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey(Arc<str>);

impl PoolKey {
    /// A key of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PoolKey {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for PoolKey {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<u64> for PoolKey {
    fn from(number: u64) -> Self {
        Self::new(number.to_string())
    }
}

impl fmt::Display for PoolKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
