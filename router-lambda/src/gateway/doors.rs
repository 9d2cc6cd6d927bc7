//! What is asked of a door, and how it is known that the right one answers.
//!
//! ```text
//!   request ─┬─ has a body, or asks for a socket ─▶ GET /_edit/ready, with proof
//!            │                                         │ proven             │ not
//!            └─ everything else ─▶ request, with proof ◀┘                    ▼
//!                                     │ answer proves itself ─▶ its proof taken out, passed on
//!                                     └ it does not ─────────────────────▶ unproven: nothing of it is passed on
//! ```
//!
//! A container's address is given to somebody else as soon as the container is gone, and the row that names it may be old.
//! So what would be *sent* to whoever is there (an upload, what is said into a socket) waits until it is known who that is,
//! each time: a round trip inside a network is nothing beside an upload, and a proof of a minute ago may be somebody else's.
//! What *comes* is passed on only after its proof. Connections are kept under the name of task and generation, so that
//! the one over which a door has proven itself leads to no other.

use std::time::Duration;

use bytes::Bytes;
use contract::Timestamp;
use contract::proof::{HEADER, Nonce, ProofRefused};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body::Body as _;
use http_body_util::Empty;
use hyper::body::Incoming;
use relay::{Answer, Forwarded, HostPolicy, PoolKey, Relay, RelayError, Upstream, Wait};
use tokio::time::timeout;

use super::asked::Asked;
use crate::cookie;
use crate::router::Forward;

/// What is asked of a door only so that it proves itself.
const READY: &str = "/_edit/ready";

/// How long a door may take for that: it says what it knows, and asks nobody.
const READY_MAX: Duration = Duration::from_secs(5);

/// The way to the doors.
#[derive(Debug)]
pub(super) struct Doors {
    relay: Relay,
}

/// Why there is nothing to pass on.
#[derive(Debug)]
pub(super) enum Failed {
    /// Whoever is there has not proven to be the session's door.
    Unproven(ProofRefused),
    /// Nobody is there, or nobody who answers.
    Unreachable(RelayError),
    /// The visitor's request is none that is passed on.
    Visitor(RelayError),
}

impl Doors {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay }
    }

    /// Asks a door, and returns with an answer of which it is proven that it is the door's. Its proof is taken out.
    pub(super) async fn ask(
        &self,
        asked: &Asked,
        forward: &Forward,
        mut request: Request<Incoming>,
    ) -> Result<Answer, Failed> {
        let gives_something_away = !request.body().is_end_stream() || asked.head().is_upgrade();
        if gives_something_away {
            self.ask_who_is_there(asked, forward).await?;
        }
        cookie::without_ours(request.headers_mut());
        self.exchange(asked, forward, request).await
    }

    async fn ask_who_is_there(&self, asked: &Asked, forward: &Forward) -> Result<(), Failed> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = http::Uri::from_static(READY);
        if let Some(host) = asked.head().headers.get(HOST) {
            request.headers_mut().insert(HOST, host.clone());
        }
        match timeout(READY_MAX, self.exchange(asked, forward, request)).await {
            // Whether it is ready is its own affair; it says so to the visitor itself.
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Failed::Unreachable(RelayError::Timeout {
                address: forward.address,
                wait: Wait::ResponseHead,
                limit: READY_MAX,
            })),
        }
    }

    async fn exchange<B>(
        &self,
        asked: &Asked,
        forward: &Forward,
        request: Request<B>,
    ) -> Result<Answer, Failed>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<relay::BoxError>,
    {
        let nonce = nonce();
        let proof = forward.proof.request(Timestamp::now(), nonce);
        let proof = HeaderValue::from_str(&proof).expect("digits and spaces");
        let upstream = Upstream {
            address: forward.address,
            host: HostPolicy::Keep,
            forwarded: Forwarded {
                client: asked.visitor,
                proto: Some(asked.proto),
                host: request.headers().get(HOST).cloned(),
                headers: HeaderMap::from_iter([(HeaderName::from_static(HEADER), proof)]),
            },
            pool_key: forward.pool.clone(),
        };
        let answer = self.relay.ask(request, &upstream).await;
        let mut answer = answer.map_err(|error| {
            if is_the_visitors(&error) {
                Failed::Visitor(error)
            } else {
                Failed::Unreachable(error)
            }
        })?;
        match proof_of(answer.headers()).and_then(|proof| forward.proof.verify_answer(proof, nonce))
        {
            Ok(()) => {
                take_out(answer.headers_mut());
                Ok(answer)
            }
            Err(refused) => {
                // Before anybody can use what was kept of it.
                drop(answer);
                self.forget(&forward.pool);
                Err(Failed::Unproven(refused))
            }
        }
    }

    /// Drops connections and sockets to this door.
    pub(super) fn forget(&self, pool: &PoolKey) {
        self.relay.forget(pool);
    }

    /// How many sockets there are to it.
    pub(super) fn sockets(&self, forward: &Forward) -> usize {
        self.relay.open_tunnels_of(&forward.pool)
    }

    /// How many there are to all doors.
    pub(super) fn all_sockets(&self) -> usize {
        self.relay.open_tunnels()
    }

    /// Ends all sockets; the visitors are told that the server goes away.
    pub(super) async fn close_sockets(&self, deadline: Duration) {
        self.relay.close_tunnels(deadline).await;
    }
}

impl Failed {
    /// What an operator reads: the error and what caused it.
    pub(super) fn why(&self) -> String {
        match self {
            Failed::Unproven(refused) => format!("the door did not prove itself: {refused}"),
            Failed::Unreachable(error) | Failed::Visitor(error) => telemetry::chain(error),
        }
    }
}

/// Whether it was the visitor's fault, or a limit of ours, and nothing is said about the door.
fn is_the_visitors(error: &RelayError) -> bool {
    matches!(
        error,
        RelayError::Refused(_)
            | RelayError::HeadTooLarge { .. }
            | RelayError::BodyTooLarge { .. }
            | RelayError::RequestBody { .. }
            | RelayError::TooManyTunnels { .. }
            | RelayError::Timeout {
                wait: Wait::RequestBody,
                ..
            }
    )
}

/// What a visitor reads of that.
pub(super) fn words(error: &RelayError) -> (StatusCode, &'static str) {
    let words = match error {
        RelayError::HeadTooLarge { .. } => "The head of the request is too large.",
        RelayError::BodyTooLarge { .. } => "The body of the request is too large.",
        RelayError::TooManyTunnels { .. } => {
            "Too many sockets are open already. Close other tabs of this page."
        }
        RelayError::Timeout { .. } | RelayError::RequestBody { .. } => {
            "The body of the request did not come to its end."
        }
        _ => "The request is none that is passed on.",
    };
    (error.status(), words)
}

/// The one proof of an answer.
fn proof_of(headers: &HeaderMap) -> Result<&str, ProofRefused> {
    let mut proofs = headers.get_all(HEADER).iter();
    match (proofs.next(), proofs.next()) {
        (Some(proof), None) => proof.to_str().map_err(|_| ProofRefused::Malformed),
        _ => Err(ProofRefused::Missing),
    }
}

/// Takes the proof out, however it is spelt.
fn take_out(headers: &mut HeaderMap) {
    headers.remove(HEADER);
    headers.remove("edit_proof");
}

fn nonce() -> Nonce {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the system has randomness");
    Nonce::new(random)
}
