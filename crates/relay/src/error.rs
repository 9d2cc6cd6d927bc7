//! What can go wrong between a request and the head of its response. What goes wrong later ends the response's body with
//! an error, and with it the client's connection: a truncated page must not look complete.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use crate::BoxError;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The request is one that must not be passed on.
    #[error("request refused: {0}")]
    Refused(Refusal),

    /// The request's head is larger than the limits of this crate.
    #[error(
        "request head refused: {headers} headers in {bytes} bytes, at most {headers_max} in {bytes_max}"
    )]
    HeadTooLarge {
        /// Header lines in the request.
        headers: usize,
        /// Bytes of target, names and values.
        bytes: usize,
        /// [`crate::REQUEST_HEADERS_MAX`]
        headers_max: usize,
        /// [`crate::REQUEST_HEAD_MAX_BYTES`]
        bytes_max: usize,
    },

    /// The request's body is, or turned out to be, larger than [`crate::Settings::request_body_max`].
    #[error("request body refused: more than {limit} bytes")]
    BodyTooLarge {
        /// The most a body may have, in bytes.
        limit: u64,
        /// Whether it was refused before a byte of it was sent.
        declared: bool,
    },

    /// The client broke off its request body.
    #[error("reading the request body from the client")]
    RequestBody {
        /// What the body reported.
        source: BoxError,
    },

    /// As many tunnels are open as [`crate::Settings::tunnels_max`] or [`crate::Settings::tunnels_per_pool_max`] allows.
    #[error("WebSocket refused: {limit} are open already")]
    TooManyTunnels {
        /// The most there may be.
        limit: usize,
    },

    /// No connection could be made.
    #[error("connecting to upstream {address}")]
    Connect {
        /// The upstream.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },

    /// Something took longer than it may.
    #[error("{wait} took longer than {limit:?} (upstream {address})")]
    Timeout {
        /// The upstream.
        address: SocketAddr,
        /// What was waited for.
        wait: Wait,
        /// How long it may take.
        limit: Duration,
    },

    /// The upstream closed or reset the connection before the head of its response was complete.
    #[error("upstream {address} closed the connection before it answered")]
    Disconnected {
        /// The upstream.
        address: SocketAddr,
        /// Whether it may have seen something of the request.
        sent: bool,
        /// What was seen.
        source: BoxError,
    },

    /// The upstream's answer is not HTTP as it may be passed on.
    #[error("upstream {address} broke the protocol: {what}")]
    Protocol {
        /// The upstream.
        address: SocketAddr,
        /// Which rule.
        what: Violation,
        /// The parser's words, where there are any.
        source: Option<BoxError>,
    },
}

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `CONNECT` would make this an open proxy.
    #[error("the method CONNECT is not relayed")]
    Connect,
    /// A target without a path, such as `GET example.com:80`.
    #[error("the request target is neither a path nor an absolute URL")]
    Target,
    /// More than one `Host`: two hops could read two different ones.
    #[error("more than one Host header")]
    SeveralHosts,
    /// No `Host`, where it is to be kept.
    #[error("no Host header")]
    NoHost,
    /// The absolute target names another host than `Host`.
    #[error("the request target and the Host header name different hosts")]
    HostMismatch,
    /// `Content-Length` is repeated, not a number, beside `Transfer-Encoding`, or not the length of the body.
    #[error("the length of the body is ambiguous")]
    AmbiguousLength,
    /// A transfer coding other than `chunked`.
    #[error("the body has a transfer coding other than chunked")]
    TransferCoding,
    /// The caller's server cannot hand over its connection.
    #[error("the connection cannot be upgraded")]
    NotUpgradable,
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// A connection to the upstream.
    #[error("connecting")]
    Connect,
    /// The next piece of the request's body, from the client.
    #[error("the next piece of the request body")]
    RequestBody,
    /// The head of the response, from the upstream.
    #[error("the response head")]
    ResponseHead,
    /// The upstream's answer to a WebSocket upgrade.
    #[error("the answer to a WebSocket upgrade")]
    Upgrade,
}

/// How an upstream broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The response could not be parsed, or its head is too large.
    #[error("its response is not HTTP/1, or its head is too large")]
    Malformed,
    /// A 101 to a request that asked for no upgrade, or to something else than a WebSocket.
    #[error("it switched protocols unasked")]
    UnaskedUpgrade,
    /// A transfer coding other than `chunked`.
    #[error("its response has a transfer coding other than chunked")]
    TransferCoding,
    /// `Content-Length` is repeated with different values or not a number.
    #[error("the length of its response is ambiguous")]
    AmbiguousLength,
}

impl RelayError {
    /// Whether it is certain that no byte of the request reached the upstream: the caller may hold the request and send it
    /// again, whatever its method.
    pub fn never_reached_upstream(&self) -> bool {
        match self {
            RelayError::Refused(_)
            | RelayError::HeadTooLarge { .. }
            | RelayError::TooManyTunnels { .. }
            | RelayError::Connect { .. }
            | RelayError::Timeout {
                wait: Wait::Connect,
                ..
            } => true,
            RelayError::BodyTooLarge { declared, .. } => *declared,
            RelayError::Disconnected { sent, .. } => !sent,
            RelayError::RequestBody { .. }
            | RelayError::Timeout { .. }
            | RelayError::Protocol { .. } => false,
        }
    }

    /// The status that says this to a client, for a caller with nothing better to show.
    pub fn status(&self) -> StatusCode {
        match self {
            RelayError::Refused(Refusal::Connect) => StatusCode::METHOD_NOT_ALLOWED,
            RelayError::Refused(_) | RelayError::RequestBody { .. } => StatusCode::BAD_REQUEST,
            RelayError::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            RelayError::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            RelayError::TooManyTunnels { .. } => StatusCode::SERVICE_UNAVAILABLE,
            RelayError::Timeout {
                wait: Wait::RequestBody,
                ..
            } => StatusCode::REQUEST_TIMEOUT,
            RelayError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            RelayError::Connect { .. }
            | RelayError::Disconnected { .. }
            | RelayError::Protocol { .. } => StatusCode::BAD_GATEWAY,
        }
    }
}
