//! What becomes of a head, in both directions. Pure: the rules of RFC 9110 §7.6 and RFC 9112 §6 as a reverse proxy has to
//! apply them, and nothing that waits.
//!
//! A head is rebuilt, not filtered: how long the body is, which host is meant and what the next hop should do with its
//! connection are *decided* here, once, and what the client said about them is thrown away. Two hops that read one
//! message in two ways is what request smuggling is made of; a message in which each of those is said once, by us,
//! leaves nothing to read differently.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, request, response};

use crate::error::{Refusal, RelayError, Violation};
use crate::settings::{REQUEST_HEAD_MAX_BYTES, REQUEST_HEADERS_MAX};
use crate::upstream::{Forwarded, HostPolicy, Upstream};

/// Fields that belong to one connection. `Trailer` is not among them since RFC 9110, and hyper sends only the trailers it
/// announces. `Proxy-*` credentials are between a client and a forward proxy, which we are not.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const TE_OPTION: HeaderValue = HeaderValue::from_static("te");
const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("Upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// What a body knows about itself before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodySize {
    /// There is none.
    None,
    /// So many bytes.
    Exactly(u64),
    /// As many as come.
    Unknown,
}

impl BodySize {
    pub(crate) fn of<B: http_body::Body>(body: &B) -> Self {
        if body.is_end_stream() {
            BodySize::None
        } else {
            body.size_hint()
                .exact()
                .map_or(BodySize::Unknown, BodySize::Exactly)
        }
    }
}

/// Makes a client's head into the one for `upstream`. Says whether the request is
/// a well-formed WebSocket upgrade.
pub(crate) fn rewrite_request(
    parts: &mut request::Parts,
    body: BodySize,
    body_max: Option<u64>,
    upstream: &Upstream,
) -> Result<bool, RelayError> {
    if parts.method == Method::CONNECT {
        return Err(RelayError::Refused(Refusal::Connect));
    }
    check_size(parts)?;
    let target = target(parts).map_err(RelayError::Refused)?;
    let host = host(parts, &upstream.host).map_err(RelayError::Refused)?;
    let declared = declared_length(&parts.headers).map_err(RelayError::Refused)?;
    let framing = framing(declared, body).map_err(RelayError::Refused)?;
    if let (Framing::Length(length), Some(limit)) = (framing, body_max)
        && length > limit
    {
        return Err(RelayError::BodyTooLarge {
            limit,
            declared: true,
        });
    }

    let accepts_trailers = has_token(&parts.headers, &TE, "trailers");
    let asks_for_websocket = asks_for_websocket(parts);
    strip_hop_by_hop(&mut parts.headers);
    // Judged after the stripping, because what `Connection` nominates may be the key itself.
    let websocket =
        asks_for_websocket && body == BodySize::None && is_websocket_handshake(&parts.headers);
    drop_claims(&mut parts.headers, &upstream.forwarded);

    let headers = &mut parts.headers;
    // Each hop answers this one itself: hyper's server sends the 100 when the body is first asked for, which is after the
    // upstream was reached. Passed on, the upstream's 100 would come to nobody.
    if headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        headers.remove(EXPECT);
    }
    headers.remove(CONTENT_LENGTH);
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        // Said outright, because hyper's client sends no body at all with a GET of unknown length that does not say it.
        Framing::Chunked => {
            headers.insert(TRANSFER_ENCODING, CHUNKED);
        }
    }
    headers.insert(HOST, host);
    if websocket {
        headers.insert(CONNECTION, UPGRADE_OPTION);
        headers.insert(UPGRADE, WEBSOCKET);
    } else if accepts_trailers {
        headers.insert(CONNECTION, TE_OPTION);
        headers.insert(TE, TRAILERS);
    }
    set_forwarded(headers, &upstream.forwarded);

    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(target);
    parts.uri = Uri::from_parts(uri).map_err(|_| RelayError::Refused(Refusal::Target))?;
    parts.version = Version::HTTP_11;
    // Whatever the caller's server keeps there is about the other connection.
    parts.extensions.clear();
    Ok(websocket)
}

/// Makes an upstream's head into the one for the client. `websocket` says whether the request asked for one. Says whether
/// the upstream agreed.
pub(crate) fn rewrite_response(
    parts: &mut response::Parts,
    websocket: bool,
    address: SocketAddr,
) -> Result<bool, RelayError> {
    let broken = |what| RelayError::Protocol {
        address,
        what,
        source: None,
    };
    let switched = parts.status == http::StatusCode::SWITCHING_PROTOCOLS;
    if switched
        && !(websocket
            && is_exactly(&parts.headers, &UPGRADE, "websocket")
            && has_token(&parts.headers, &CONNECTION, "upgrade"))
    {
        return Err(broken(Violation::UnaskedUpgrade));
    }
    let coded = parts.headers.contains_key(TRANSFER_ENCODING);
    // We announce no coding, so the body would come with one that the client is not told of.
    if coded && !is_exactly(&parts.headers, &TRANSFER_ENCODING, "chunked") {
        return Err(broken(Violation::TransferCoding));
    }
    let length = same_length(&parts.headers).map_err(|()| broken(Violation::AmbiguousLength))?;
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(CONTENT_LENGTH);
    if switched {
        parts.headers.insert(CONNECTION, UPGRADE_OPTION);
        parts.headers.insert(UPGRADE, WEBSOCKET);
    } else if let (Some(length), false) = (length, coded) {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    parts.version = Version::HTTP_11;
    Ok(switched)
}

fn check_size(parts: &request::Parts) -> Result<(), RelayError> {
    // ": " and the line's end.
    const PUNCTUATION: usize = 4;
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let fields: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + PUNCTUATION)
        .sum();
    let (headers, bytes) = (parts.headers.len(), target + fields);
    if headers > REQUEST_HEADERS_MAX || bytes > REQUEST_HEAD_MAX_BYTES {
        return Err(RelayError::HeadTooLarge {
            headers,
            bytes,
            headers_max: REQUEST_HEADERS_MAX,
            bytes_max: REQUEST_HEAD_MAX_BYTES,
        });
    }
    Ok(())
}

/// The origin form of the target: path and query as they came, byte for byte.
fn target(parts: &request::Parts) -> Result<PathAndQuery, Refusal> {
    // The authority form, which only CONNECT has, is the one without a path.
    let target = parts.uri.path_and_query().ok_or(Refusal::Target)?;
    let is_path = target.as_str().starts_with('/');
    let is_server = target.as_str() == "*" && parts.method == Method::OPTIONS;
    if !(is_path || is_server) {
        return Err(Refusal::Target);
    }
    Ok(target.clone())
}

/// The one host the request is for. An absolute target outranks `Host` by the RFC; a request in which they differ is
/// refused instead, because whoever chose the upstream looked at one of the two.
fn host(parts: &request::Parts, policy: &HostPolicy) -> Result<HeaderValue, Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::SeveralHosts);
    }
    let authority = parts.uri.authority().map(|authority| {
        let authority = authority.as_str();
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
    });
    if let (Some(header), Some(authority)) = (header, authority)
        && !header.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
    {
        return Err(Refusal::HostMismatch);
    }
    match policy {
        HostPolicy::Set(host) => Ok(host.clone()),
        HostPolicy::Keep => header
            .cloned()
            .or_else(|| authority.and_then(|authority| HeaderValue::from_str(authority).ok()))
            .filter(|host| !host.is_empty())
            .ok_or(Refusal::NoHost),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// What the client says about the length of its body. hyper's server has rejected or repaired most contradictions; a
/// caller may have another server.
fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let declared = lengths.next();
    if headers.contains_key(TRANSFER_ENCODING) {
        if declared.is_some() {
            return Err(Refusal::AmbiguousLength);
        }
        if !is_exactly(headers, &TRANSFER_ENCODING, "chunked") {
            return Err(Refusal::TransferCoding);
        }
    }
    if lengths.next().is_some() {
        return Err(Refusal::AmbiguousLength);
    }
    declared
        .map(|value| digits(value.as_bytes()).ok_or(Refusal::AmbiguousLength))
        .transpose()
}

/// How the body is sent. The header never outranks the body: hyper's client believes a `Content-Length` even beside an
/// empty body, and the upstream would take the next request for the missing bytes.
fn framing(declared: Option<u64>, body: BodySize) -> Result<Framing, Refusal> {
    match (declared, body) {
        (None, BodySize::None) => Ok(Framing::None),
        (Some(0), BodySize::None) => Ok(Framing::Length(0)),
        (None, BodySize::Exactly(length)) => Ok(Framing::Length(length)),
        (None, BodySize::Unknown) => Ok(Framing::Chunked),
        (Some(declared), BodySize::Exactly(length)) if declared == length => {
            Ok(Framing::Length(length))
        }
        (Some(declared), BodySize::Unknown) => Ok(Framing::Length(declared)),
        (Some(_), BodySize::None | BodySize::Exactly(_)) => Err(Refusal::AmbiguousLength),
    }
}

/// The length of a response, where all its `Content-Length`s agree on one.
fn same_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for item in value.as_bytes().split(|&byte| byte == b',') {
            let item = digits(item.trim_ascii()).ok_or(())?;
            if *length.get_or_insert(item) != item {
                return Err(());
            }
        }
    }
    Ok(length)
}

/// A number as RFC 9110 writes it: digits only. `parse` would also take a sign.
fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Removes what belongs to the connection the message came over, and what its `Connection` nominates. What matters here was
/// read before, and is set again afterwards: nominating `Host` or `Content-Length` away changes nothing.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether in this field the client speaks for a hop.
fn is_claim(name: &str) -> bool {
    name == FORWARDED
        || name == "x-forwarded"
        || name.starts_with("x-forwarded-")
        || name == "x-real-ip"
}

/// Whether this field has a say in how a request is read, or who sent it, that is not the client's.
fn is_ours(name: &str, forwarded: &Forwarded) -> bool {
    is_claim(name)
        || name == HOST
        || name == CONTENT_LENGTH
        || HOP_BY_HOP.iter().any(|field| field == name)
        || forwarded.headers.contains_key(name)
}

/// Drops what the client claims, also where it is spelt with underscores, because CGI-like upstreams read `x_forwarded_for`
/// as `x-forwarded-for`, and where it is only announced, because some merge trailers into the head. hyper sends no trailer
/// that is not announced.
fn drop_claims(headers: &mut HeaderMap, forwarded: &Forwarded) {
    let is_alias = |name: &str| name.contains('_') && is_ours(&name.replace('_', "-"), forwarded);
    let dropped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name.as_str()) || is_alias(name.as_str()))
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
    if headers.contains_key(TRAILER) {
        let announced: Vec<HeaderValue> = headers
            .get_all(TRAILER)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !is_ours(&name.as_str().replace('_', "-"), forwarded))
            .map(HeaderValue::from)
            .collect();
        headers.remove(TRAILER);
        for name in announced {
            headers.append(TRAILER, name);
        }
    }
}

fn set_forwarded(headers: &mut HeaderMap, forwarded: &Forwarded) {
    if let Some(client) = forwarded.client
        && let Ok(client) = HeaderValue::from_str(&client.to_string())
    {
        headers.insert(X_FORWARDED_FOR, client);
    }
    if let Some(proto) = forwarded.proto {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto.as_str()));
    }
    if let Some(host) = &forwarded.host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    for name in forwarded.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &forwarded.headers {
        headers.append(name, value.clone());
    }
}

/// The part of a WebSocket handshake that is hop-by-hop: `GET`, HTTP/1.1, one `Upgrade` to nothing but `websocket`, and
/// the option that goes with it.
fn asks_for_websocket(parts: &request::Parts) -> bool {
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && is_exactly(&parts.headers, &UPGRADE, "websocket")
        && has_token(&parts.headers, &CONNECTION, "upgrade")
}

/// The end-to-end part: one key of 16 bytes and one version. Which version is the upstream's to judge: it answers 426 with
/// those it knows.
fn is_websocket_handshake(headers: &HeaderMap) -> bool {
    const KEY_BYTES: usize = 16;
    let key = single(headers, &SEC_WEBSOCKET_KEY);
    let version = single(headers, &SEC_WEBSOCKET_VERSION);
    key.is_some_and(|key| {
        STANDARD
            .decode(key.as_bytes())
            .is_ok_and(|key| key.len() == KEY_BYTES)
    }) && version.is_some_and(|version| digits(version.as_bytes()).is_some())
}

fn single<'headers>(
    headers: &'headers HeaderMap,
    name: &HeaderName,
) -> Option<&'headers HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

fn is_exactly(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    single(headers, name).is_some_and(|found| {
        found
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(value.as_bytes())
    })
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
