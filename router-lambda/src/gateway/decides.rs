//! What the gateway asks of the router, and nothing else: so that the gateway can be looked at without one.

use bytes::Bytes;
use contract::Timestamp;
use http::Response;
use relay::RelayError;

use crate::ask::Head;
use crate::router::{Forward, Outcome, Router};

/// Who decides.
pub trait Decides: Send + Sync + 'static {
    /// What becomes of a request.
    fn handle(&self, head: &Head<'_>, now: Timestamp) -> impl Future<Output = Outcome> + Send;

    /// The door did not prove itself; what the visitor gets instead.
    fn unproven(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        now: Timestamp,
    ) -> impl Future<Output = Response<Bytes>> + Send;

    /// The door could not be reached, or broke off before its head; what the visitor gets instead.
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

impl Decides for Router {
    async fn handle(&self, head: &Head<'_>, now: Timestamp) -> Outcome {
        Router::handle(self, head, now).await
    }

    async fn unproven(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        now: Timestamp,
    ) -> Response<Bytes> {
        Router::unproven(self, head, forward, now).await
    }

    async fn unreachable(
        &self,
        head: &Head<'_>,
        forward: &Forward,
        error: &RelayError,
        now: Timestamp,
    ) -> Response<Bytes> {
        Router::unreachable(self, head, forward, error, now).await
    }

    async fn still(&self, forward: &Forward, now: Timestamp) -> bool {
        Router::still(self, forward, now).await
    }
}
