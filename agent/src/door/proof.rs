//! The door's half of the proof: where a session's key is known, nobody but the router is answered, and the router can tell
//! that it is answered by us.
//!
//! ```text
//!   router ──Edit-Proof──▶ judged ─┬─ not exactly one, or not ours: 421, and nothing else is looked at
//!                                  └─ ours: guard ─▶ control | visit ─▶ every answer, 101 too: Edit-Proof
//! ```
//!
//! A container's address is given away as soon as the container is gone, and a security group lets in a whole network. So
//! neither the address nor the host name says anything about who asks.
//!
//! Nonces are not remembered: whoever could repeat a request within its minute has read it on the way, and with it the answer.
//!
//! What the router says of the visitor (`X-Forwarded-*`) is believed because of the proof, and only then.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use contract::Timestamp;
use contract::proof::{HEADER, Nonce, Proof, ProofRefused};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use relay::Proto;

use super::{Door, page};

/// What the scheduler asks from inside the container, where no router is.
const HEALTH: &str = "/_edit/health";

/// Who asks, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    /// The visitor's address; the router's or the program's own where nobody says whose it is.
    pub(super) client: IpAddr,
    /// How the visitor reached the router; none where there is no router.
    pub(super) proto: Option<Proto>,
}

/// Judges whether a request comes from the router. The nonce is what the answer has to prove; none if none is asked for.
fn judge(
    headers: &HeaderMap,
    peer_is_loopback: bool,
    path: &str,
    method: &Method,
    proof: Option<&Proof>,
    now: Timestamp,
) -> Result<Option<Nonce>, ProofRefused> {
    let Some(proof) = proof else {
        return Ok(None);
    };
    let mut values = headers.get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let value = value.to_str().map_err(|_| ProofRefused::Malformed)?;
            proof.verify_request(value, now).map(Some)
        }
        (None, _) if peer_is_loopback && *method == Method::GET && path == HEALTH => Ok(None),
        _ => Err(ProofRefused::Missing),
    }
}

/// Lets in who has proven to be the router, and proves to it who answers.
pub(super) async fn proven(
    State(door): State<Arc<Door>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let judged = judge(
        request.headers(),
        peer.ip().to_canonical().is_loopback(),
        request.uri().path(),
        request.method(),
        door.proof.as_ref(),
        Timestamp::now(),
    );
    let nonce = match judged {
        Ok(nonce) => nonce,
        Err(refused) => {
            match refused {
                ProofRefused::Missing | ProofRefused::Malformed => {
                    tracing::debug!(%peer, why = %refused, "a request did not come from the router");
                }
                // A router whose row is stale, or a clock that is wrong: an operator wants to see it.
                _ => {
                    tracing::info!(%peer, why = %refused, "a request was for another environment");
                }
            }
            let words = "Only the router is answered here.";
            return page::plain(StatusCode::MISDIRECTED_REQUEST, words).into_response();
        }
    };
    remove(request.headers_mut());
    let asker = asker(peer.ip(), request.headers(), nonce.is_some());
    request.extensions_mut().insert(asker);
    let mut response = next.run(request).await;
    // The site's own would be relayed otherwise.
    remove(response.headers_mut());
    if let (Some(proof), Some(nonce)) = (&door.proof, nonce) {
        let answer = HeaderValue::from_str(&proof.answer(nonce)).expect("digits and spaces");
        response
            .headers_mut()
            .insert(HeaderName::from_static(HEADER), answer);
    }
    response
}

/// Takes the header out, however it is spelt: some programs read underscores as hyphens.
fn remove(headers: &mut HeaderMap) {
    let spelt: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().replace('_', "-") == HEADER)
        .cloned()
        .collect();
    for name in spelt {
        headers.remove(name);
    }
}

/// Who asks. The router is believed; it says one address and one scheme, and anything else is nobody's word.
fn asker(peer: IpAddr, headers: &HeaderMap, proven: bool) -> Asker {
    let said = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    };
    if !proven {
        return Asker {
            client: peer,
            proto: None,
        };
    }
    let client = said("x-forwarded-for").and_then(|client| client.parse().ok());
    let https = said("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
    Asker {
        client: client.unwrap_or(peer),
        proto: Some(if https { Proto::Https } else { Proto::Http }),
    }
}

#[cfg(test)]
mod tests {
    use contract::Generation;
    use contract::session::ProofKey;

    use super::*;

    fn proof(generation: u64) -> Proof {
        let key = ProofKey("5a".repeat(32));
        let session = "amelia_s1".parse().expect("an id");
        Proof::new(&key, session, Generation(generation)).expect("a key")
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1000)
    }

    fn nonce() -> Nonce {
        Nonce::new([7; 16])
    }

    #[test]
    fn only_exactly_one_valid_proof_is_let_in() {
        let ours = proof(3).request(at(1000), nonce());
        let other = proof(2).request(at(1000), nonce());
        let old = proof(3).request(at(900), nonce());
        let verdict = |values: &[&str], loopback: bool, method: &Method, path: &str| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, value.parse().expect("a value"));
            }
            judge(&headers, loopback, path, method, Some(&proof(3)), at(1000)).is_ok()
        };
        for (values, let_in) in [
            (&[ours.as_str()][..], true),
            (&[], false),
            (&[""], false),
            (&["v1"], false),
            (&[other.as_str()], false),
            (&[old.as_str()], false),
            (&[ours.as_str(), ours.as_str()], false),
            (&[ours.as_str(), other.as_str()], false),
        ] {
            for (method, path) in [
                (Method::GET, "/"),
                (Method::GET, "/_edit/ready"),
                (Method::GET, "/_edit/status"),
                (Method::POST, "/_edit/health"),
                (Method::GET, "/_edit/health/"),
                (Method::GET, "/x/_edit/health"),
            ] {
                for loopback in [false, true] {
                    assert_eq!(
                        verdict(values, loopback, &method, path),
                        let_in,
                        "{values:?} {method} {path} {loopback}"
                    );
                }
            }
        }
        // The health of this container is asked for inside it; elsewhere, and with a proof that is none, it is no exception.
        assert!(verdict(&[], true, &Method::GET, HEALTH));
        assert!(!verdict(&[], false, &Method::GET, HEALTH));
        assert!(!verdict(&[&other], true, &Method::GET, HEALTH));
    }

    #[test]
    fn without_a_key_nothing_is_asked_for() {
        let nobody = judge(&HeaderMap::new(), false, "/", &Method::GET, None, at(0));
        assert_eq!(nobody, Ok(None));
    }

    #[test]
    fn the_visitor_is_whom_the_router_names_and_nobody_else() {
        let peer = IpAddr::from([10, 0, 0, 9]);
        let client = IpAddr::from([203, 0, 113, 7]);
        for (headers, proven, expected) in [
            (
                &[
                    ("x-forwarded-for", "203.0.113.7"),
                    ("x-forwarded-proto", "https"),
                ][..],
                true,
                (client, Some(Proto::Https)),
            ),
            (
                &[
                    ("x-forwarded-for", "203.0.113.7"),
                    ("x-forwarded-proto", "https"),
                ],
                false,
                (peer, None),
            ),
            (
                &[
                    ("x-forwarded-for", "203.0.113.7, 10.0.0.1"),
                    ("x-forwarded-proto", "http"),
                ],
                true,
                (peer, Some(Proto::Http)),
            ),
            (
                &[
                    ("x-forwarded-for", "203.0.113.7"),
                    ("x-forwarded-for", "203.0.113.8"),
                ],
                true,
                (peer, Some(Proto::Http)),
            ),
            (&[], true, (peer, Some(Proto::Http))),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("a value"));
            }
            let asker = asker(peer, &map, proven);
            assert_eq!((asker.client, asker.proto), expected, "{headers:?}");
        }
    }
}
