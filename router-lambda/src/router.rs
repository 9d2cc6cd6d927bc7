//! Stand-in until the lead's arrives.
use std::net::SocketAddr;

use bytes::Bytes;
use contract::proof::Proof;
use contract::{ClientId, Generation, SessionId, Timestamp};
use http::Response;

use crate::ask::Head;

#[derive(Debug, Clone)]
pub struct Router {
    pub forward: Forward,
}
#[derive(Debug)]
pub enum Outcome {
    Answer(Response<Bytes>),
    Forward(Box<Forward>),
}
#[derive(Debug, Clone)]
pub struct Forward {
    pub client: ClientId,
    pub session: SessionId,
    pub generation: Generation,
    pub address: SocketAddr,
    pub pool: relay::PoolKey,
    pub proof: Proof,
}
impl Router {
    pub async fn handle(&self, _head: &Head<'_>, _now: Timestamp) -> Outcome {
        Outcome::Forward(Box::new(self.forward.clone()))
    }
    pub async fn unproven(&self, _head: &Head<'_>, _forward: &Forward, _now: Timestamp) -> Response<Bytes> {
        let mut r = Response::new(Bytes::from_static(b"stale"));
        *r.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        r
    }
    pub async fn unreachable(&self, _head: &Head<'_>, _forward: &Forward, _error: &relay::RelayError, _now: Timestamp) -> Response<Bytes> {
        let mut r = Response::new(Bytes::from_static(b"gone"));
        *r.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        r
    }
}
