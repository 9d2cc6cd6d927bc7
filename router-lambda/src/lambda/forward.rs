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
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use relay::{Forwarded, HostPolicy, Relay, RelayError, Settings, Upstream};

use super::alb::{self, AlbRequest};
use super::vite;
use crate::cookie;
use crate::page::{self, Form};
use crate::router::{Forward, Router};

/// Bytes of an answer that are read: what passes when it is compressed well. `three.js` has 1.6 MB, and 0.4 compressed.
const ANSWER_READ_MAX_BYTES: usize = 12 * 1024 * 1024;
/// Events of the door.
const EVENTS: &str = "/_edit/events";
/// What is asked of a door only so that it proves itself.
const READY: &str = "/_edit/ready";
/// What a visitor is told of a page of which only the beginning is there.
const BROKEN_OFF: &str = "The site broke off its answer. Load the page again.";
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
    pub(super) async fn forward(
        &self,
        router: &Router,
        request: &AlbRequest,
        forward: &Forward,
    ) -> Response<Bytes> {
        let head = request.head();
        if head.is_upgrade() {
            return page::no_sockets();
        }
        if let Some(client) = vite::client(&request.method, &request.path) {
            return client;
        }
        if request.path == EVENTS {
            return no_events();
        }
        // What somebody sends is for nobody else: whoever is there proves itself before it hears of it.
        if !request.body.is_empty()
            && let Err(refused) = self.introduce(request, forward).await
        {
            return match refused {
                Some(error) => {
                    router
                        .unreachable(&head, forward, &error, Timestamp::now())
                        .await
                }
                None => router.unproven(&head, forward, Timestamp::now()).await,
            };
        }
        let now = Timestamp::now();
        let nonce = nonce();
        let (asked, upstream) = asked(request, forward, nonce, now);
        let mut response = match self.relay.forward(asked, &upstream).await {
            Ok(response) => response,
            Err(error) => {
                return router
                    .unreachable(&head, forward, &error, Timestamp::now())
                    .await;
            }
        };
        if let Err(why) = prove(response.headers_mut(), forward, nonce) {
            tracing::info!(session = forward.session.redacted(), status = response.status().as_u16(), %why, "an answer is not proven");
            self.relay.forget(&forward.pool);
            return router.unproven(&head, forward, Timestamp::now()).await;
        }
        let (parts, body) = response.into_parts();
        match read(body).await {
            Ok(body) => Response::from_parts(parts, body),
            Err(Unread::TooLarge) => page::too_large(None, Form::of(&request.headers)),
            Err(Unread::Broken(error)) => {
                tracing::info!(session = forward.session.redacted(), %error, "an answer broke off");
                page::refused(StatusCode::BAD_GATEWAY, BROKEN_OFF)
            }
        }
    }

    /// Asks a door for nothing but its proof. An error is what kept it from being reached; none, if whoever is there is not it.
    async fn introduce(
        &self,
        request: &AlbRequest,
        forward: &Forward,
    ) -> Result<(), Option<RelayError>> {
        let nonce = nonce();
        let (mut asked, upstream) = asked(request, forward, nonce, Timestamp::now());
        *asked.method_mut() = Method::GET;
        *asked.uri_mut() = http::Uri::from_static(READY);
        *asked.body_mut() = Full::new(Bytes::new());
        let host = asked.headers_mut().remove(header::HOST);
        asked.headers_mut().clear();
        if let Some(host) = host {
            asked.headers_mut().insert(header::HOST, host);
        }
        let mut answer = self.relay.forward(asked, &upstream).await.map_err(Some)?;
        prove(answer.headers_mut(), forward, nonce).map_err(|why| {
            tracing::info!(session = forward.session.redacted(), %why, "a door did not prove itself before it was sent anything");
            self.relay.forget(&forward.pool);
            None
        })
    }
}

/// The request as the door gets it, and where it goes.
fn asked(
    request: &AlbRequest,
    forward: &Forward,
    nonce: Nonce,
    now: Timestamp,
) -> (Request<Full<Bytes>>, Upstream) {
    let target: PathAndQuery = request
        .head()
        .target()
        .parse()
        .expect("it was judged when it was read");
    let mut asked = Request::new(Full::new(request.body.clone()));
    *asked.method_mut() = request.method.clone();
    *asked.uri_mut() = target.into();
    *asked.headers_mut() = request.headers.clone();
    cookie::without_ours(asked.headers_mut());

    let mut headers = HeaderMap::new();
    let proof =
        HeaderValue::from_str(&forward.proof.request(now, nonce)).expect("digits and spaces");
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
    (asked, upstream)
}

/// Whether the door has proven itself. Its proof is taken out.
fn prove(headers: &mut HeaderMap, forward: &Forward, nonce: Nonce) -> Result<(), ProofRefused> {
    let header::Entry::Occupied(entry) = headers.entry(HEADER) else {
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

/// The one answer after which a browser does not ask again by itself.
fn no_events() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use contract::Generation;
    use contract::proof::Proof;
    use contract::session::ProofKey;

    use super::*;

    fn forward() -> Forward {
        let session: contract::SessionId = "amelia_s1".parse().expect("an id");
        let key = ProofKey("5a".repeat(32));
        Forward {
            client: "amelia".parse().expect("an id"),
            session: session.clone(),
            generation: Generation(3),
            address: "10.0.3.4:8080".parse().expect("an address"),
            pool: "task".into(),
            proof: Proof::new(&key, session, Generation(3)).expect("a key"),
        }
    }

    fn nonce() -> Nonce {
        Nonce::new([7; 16])
    }

    #[test]
    fn a_door_hears_who_asks_and_that_we_are_the_router_and_nothing_that_the_visitor_claims() {
        let event = r#"{"httpMethod":"POST","path":"/a%20b","queryStringParameters":{"raw":""},"body":"abc","headers":{
            "host":"edit.amelia.example.com","cookie":"a=1; __Host-edit-session=amelia_s1","content-length":"3",
            "x-forwarded-for":"127.0.0.1, 203.0.113.9","x-forwarded-proto":"https","edit-proof":"v1 forged"}}"#;
        let request = AlbRequest::parse(event.as_bytes()).expect("a request");
        let now = Timestamp::from_unix_ms(1_000_000);
        let (asked, upstream) = asked(&request, &forward(), nonce(), now);
        assert_eq!(asked.uri(), "/a%20b?raw");
        assert_eq!(asked.headers()["cookie"], "a=1");
        assert_eq!(upstream.forwarded.client, Some([203, 0, 113, 9].into()));
        assert_eq!(upstream.forwarded.proto, Some(relay::Proto::Https));
        assert_eq!(
            upstream.forwarded.host.as_ref().expect("a host"),
            "edit.amelia.example.com"
        );
        // The relay sets these last, over the visitor's own.
        let proof = upstream.forwarded.headers[HEADER].to_str().expect("ASCII");
        assert_eq!(forward().proof.verify_request(proof, now), Ok(nonce()));
    }

    #[test]
    fn only_exactly_one_valid_proof_is_believed_and_none_is_passed_on() {
        let valid = forward().proof.answer(nonce());
        let replayed = forward().proof.answer(Nonce::new([8; 16]));
        for (values, proven) in [
            (&[valid.as_str()][..], true),
            (&[], false),
            (&[""], false),
            (&[replayed.as_str()], false),
            (&[valid.as_str(), valid.as_str()], false),
            (&[valid.as_str(), replayed.as_str()], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, value.parse().expect("a value"));
            }
            assert_eq!(
                prove(&mut headers, &forward(), nonce()).is_ok(),
                proven,
                "{values:?}"
            );
            assert!(headers.is_empty());
        }
    }
}
