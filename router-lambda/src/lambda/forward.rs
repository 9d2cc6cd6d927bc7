//! Asks a door, for a function: the whole request is there, and the whole answer has to be.
//!
//! ```text
//!   request ─┬─ wants a socket ─▶ 501: none passes a load balancer
//!            ├─ /@vite/client ──▶ ours, which wants none
//!            ├─ /_edit/events ──▶ 204: events are a stream, and whoever listens to them asks for the status instead
//!            └─ anything else ──▶ door, with the proof ──▶ proven? ─┬─ no ──▶ the router: the row is stale
//!                                                                  └─ yes ─▶ read to its end, as far as it may be
//! ```

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use contract::Timestamp;
use contract::proof::{HEADER, Nonce, ProofRefused};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use relay::{Forwarded, HostPolicy, Relay, RelayError, Settings, Upstream};

use super::alb::{self, AlbRequest};
use super::{plain, too_large, vite};
use crate::cookie;
use crate::router::{Forward, Router};

/// Bytes of an answer that are read: what passes when it is compressed well. `three.js` has 1.6 MB, and 0.4 compressed.
const ANSWER_READ_MAX_BYTES: usize = 12 * 1024 * 1024;
/// Events of the door.
const EVENTS: &str = "/_edit/events";
/// The longest a door may take for the head of its answer: less than the load balancer waits for the whole of it.
const HEAD_TIME_MAX: Duration = Duration::from_secs(50);

/// Asks doors.
#[derive(Debug)]
pub(super) struct Forwarder {
    relay: Relay,
}

impl Forwarder {
    pub(super) fn new() -> Self {
        Self {
            relay: Relay::new(Settings {
                response_head_timeout: Some(HEAD_TIME_MAX),
                request_body_max: Some(alb::BODY_MAX_BYTES as u64),
                // Between two requests a function is frozen: what was kept has been closed by the other side for minutes, and a
                // POST that meets it cannot be sent again.
                pool_idle_max: 0,
                tunnels_max: 0,
                ..Settings::default()
            }),
        }
    }

    /// The door's answer, or what there is to say instead.
    pub(super) async fn forward(&self, router: &Router, request: &AlbRequest, forward: &Forward) -> Response<Bytes> {
        let head = request.head();
        if head.is_upgrade() {
            return no_sockets();
        }
        if let Some(client) = vite::client(&request.method, &request.path) {
            return client;
        }
        if request.path == EVENTS {
            return no_events();
        }
        let now = Timestamp::now();
        let nonce = nonce();
        let asked = match asked(request, forward, nonce, now) {
            Ok((asked, upstream)) => self.relay.forward(asked, &upstream).await,
            Err(response) => return *response,
        };
        let mut response = match asked {
            Ok(response) => response,
            Err(error) => return without_answer(router, request, forward, &error).await,
        };
        if let Err(why) = prove(response.headers_mut(), forward, nonce) {
            tracing::warn!(
                client = %forward.client,
                session = %forward.session.redacted(),
                generation = %forward.generation,
                address = %forward.address,
                status = response.status().as_u16(),
                %why,
                "who answered is not the session's door"
            );
            self.relay.forget(&forward.pool);
            return router.unproven(&head, forward, Timestamp::now()).await;
        }
        let (parts, body) = response.into_parts();
        match read(body).await {
            Ok(body) => Response::from_parts(parts, body),
            Err(Unread::TooLarge) => too_large(),
            Err(Unread::Broken(error)) => {
                tracing::info!(session = %forward.session.redacted(), %error, "an answer broke off");
                plain(StatusCode::BAD_GATEWAY, "The site broke off its answer. Load the page again.")
            }
        }
    }
}

/// The request as the door gets it, and where it goes.
#[expect(clippy::type_complexity, reason = "it is used once, just above")]
fn asked(
    request: &AlbRequest,
    forward: &Forward,
    nonce: Nonce,
    now: Timestamp,
) -> Result<(Request<Full<Bytes>>, Upstream), Box<Response<Bytes>>> {
    let refused = || Box::new(plain(StatusCode::BAD_REQUEST, "This request cannot be passed on."));
    let uri: Uri = request.head().target().parse().map_err(|_| refused())?;
    let mut asked = Request::new(Full::new(request.body.clone()));
    *asked.method_mut() = request.method.clone();
    *asked.uri_mut() = uri;
    *asked.headers_mut() = request.headers.clone();
    cookie::without_ours(asked.headers_mut());

    let mut headers = HeaderMap::new();
    let proof = HeaderValue::from_str(&forward.proof.request(now, nonce)).expect("digits and spaces");
    headers.insert(HeaderName::from_static(HEADER), proof);
    let upstream = Upstream {
        address: forward.address,
        host: HostPolicy::Keep,
        forwarded: Forwarded {
            client: request.visitor(),
            proto: Some(request.proto()),
            host: request.headers.get(header::HOST).cloned(),
            headers,
        },
        pool_key: forward.pool.clone(),
    };
    Ok((asked, upstream))
}

/// Whether the door has proven itself. Its proof is taken out.
fn prove(headers: &mut HeaderMap, forward: &Forward, nonce: Nonce) -> Result<(), ProofRefused> {
    let http::header::Entry::Occupied(entry) = headers.entry(HEADER) else {
        return Err(ProofRefused::Missing);
    };
    let (_, values) = entry.remove_entry_mult();
    let values: Vec<HeaderValue> = values.collect();
    let [value] = &values[..] else {
        return Err(ProofRefused::Missing);
    };
    let value = value.to_str().map_err(|_| ProofRefused::Malformed)?;
    forward.proof.verify_answer(value, nonce)
}

/// Who asks what cannot be asked hears that; who meets no door hears what the router knows of the session.
async fn without_answer(router: &Router, request: &AlbRequest, forward: &Forward, error: &RelayError) -> Response<Bytes> {
    match error {
        RelayError::Refused(_)
        | RelayError::HeadTooLarge { .. }
        | RelayError::BodyTooLarge { .. }
        | RelayError::RequestBody { .. } => plain(error.status(), "This request cannot be passed on."),
        _ => router.unreachable(&request.head(), forward, error, Timestamp::now()).await,
    }
}

/// Why an answer is not there as a whole.
enum Unread {
    TooLarge,
    Broken(relay::BoxError),
}

async fn read(mut body: relay::Body) -> Result<Bytes, Unread> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(Unread::Broken)?.into_data() else {
            continue;
        };
        if whole.len() + piece.len() > ANSWER_READ_MAX_BYTES {
            return Err(Unread::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn nonce() -> Nonce {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has random bytes");
    Nonce::new(random)
}

/// No socket comes this far through a load balancer. What does is no handshake, or the target group is another.
fn no_sockets() -> Response<Bytes> {
    plain(
        StatusCode::NOT_IMPLEMENTED,
        "No socket passes here. Pages load themselves again when something changes.",
    )
}

/// The one answer after which a browser does not ask again by itself.
fn no_events() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
