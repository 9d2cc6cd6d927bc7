//! What the gateway asks of the router, and nothing else.

use std::net::SocketAddr;

use bytes::Bytes;
use contract::proof::Proof;
use contract::{ClientId, Generation, SessionId, Timestamp};
use http::Response;
use relay::{PoolKey, RelayError};

use crate::ask::Head;

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The router answers it itself. The answer may carry a [`Left`] and a [`Told`] among its extensions.
    Answer(Response<Bytes>),
    /// A door does.
    Forward(Box<Forward>),
}

/// A door, and how it and we prove ourselves to each other.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Whose it is.
    pub client: ClientId,
    /// Which session.
    pub session: SessionId,
    /// In which generation.
    pub generation: Generation,
    /// Where it is said to be.
    pub address: SocketAddr,
    /// The connections to it: one name for each task and generation.
    pub pool: PoolKey,
    /// What both of us know.
    pub proof: Proof,
}

/// The browser has left this session's sockets behind: those of this pool are to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left(pub PoolKey);

/// Whose request it was and why it was answered so, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Whose host.
    pub client: Option<ClientId>,
    /// The first characters of the session's id.
    pub session: Option<String>,
    /// Why, in a word.
    pub why: &'static str,
}

/// The router, as the gateway sees it.
pub trait Decides: Send + Sync + 'static {
    /// What becomes of a request.
    fn handle(&self, head: &Head<'_>, now: Timestamp) -> impl Future<Output = Outcome> + Send;

    /// The door did not prove itself: the row is taken for stale; what the visitor gets instead.
    fn unproven(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        now: Timestamp,
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// The door could not be reached, or broke off before its head: likewise.
    fn unreachable(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        error: &RelayError,
        now: Timestamp,
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// Whether the session is still live in this generation: whoever has a socket to it may keep it.
    fn still(&self, forward: &Forward, now: Timestamp) -> impl Future<Output = bool> + Send;
}
