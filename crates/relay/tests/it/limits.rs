//! What is too much, and what is said about it.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use relay::{
    REQUEST_HEAD_MAX_BYTES, REQUEST_HEADERS_MAX, RESPONSE_HEAD_MAX_BYTES, RESPONSE_HEADERS_MAX,
    Relay, RelayError, Settings, Violation,
};

use crate::front::{Front, plain};
use crate::upstream::Upstream;

fn with_body_max(bytes: u64) -> Settings {
    Settings {
        request_body_max: Some(bytes),
        ..Settings::default()
    }
}

/// So many header lines.
fn lines(count: usize) -> String {
    let lines: Vec<String> = (0..count)
        .map(|index| format!("X-{index}: 1\r\n"))
        .collect();
    lines.concat()
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_anything_is_sent() {
    let upstream = Upstream::listen().await;
    let front = Front::with(with_body_max(10), plain(upstream.address)).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 11\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 413);
    let error = front.error().await;
    assert!(
        matches!(
            error,
            RelayError::BodyTooLarge {
                limit: 10,
                declared: true
            }
        ),
        "{error:?}"
    );
    assert!(error.never_reached_upstream());
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_cut_and_never_completed() {
    let upstream = Upstream::listen().await;
    let front = Front::with(with_body_max(10), plain(upstream.address)).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsix---\r\n")
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.chunk().await, "six---");
    client.send("5\r\nfive-\r\n0\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 413);
    let error = front.error().await;
    assert!(
        matches!(
            error,
            RelayError::BodyTooLarge {
                limit: 10,
                declared: false
            }
        ),
        "{error:?}"
    );
    assert!(!error.never_reached_upstream());
    server.is_gone().await;
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_passes() {
    let upstream = Upstream::listen().await;
    let front = Front::with(with_body_max(10), plain(upstream.address)).await;
    let mut client = front.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(server.chunked_body().await, "0123456789");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_before_anything_is_sent() {
    let upstream = Upstream::listen().await;
    let relay = Relay::new(Settings::default());

    let mut request = Request::get("/").header("host", "site");
    for index in 0..REQUEST_HEADERS_MAX {
        request = request.header(format!("x-{index}"), "1");
    }
    let error = relay
        .forward(
            request.body(Body::empty()).expect("a request"),
            &plain(upstream.address),
        )
        .await;
    let error = error.expect_err("one too many");
    assert!(
        matches!(error, RelayError::HeadTooLarge { headers: 101, .. }),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "request head refused: 101 headers in 903 bytes, at most 100 in 65536"
    );

    let request = Request::get("/")
        .header("host", "site")
        .header("cookie", "x".repeat(REQUEST_HEAD_MAX_BYTES));
    let error = relay
        .forward(
            request.body(Body::empty()).expect("a request"),
            &plain(upstream.address),
        )
        .await;
    let error = error.expect_err("too long");
    assert!(
        matches!(error, RelayError::HeadTooLarge { headers: 2, .. }),
        "{error:?}"
    );
    assert_eq!(error.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(error.never_reached_upstream());
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn as_many_headers_as_are_allowed_pass() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    let many = lines(REQUEST_HEADERS_MAX - 1);
    client
        .send(format!("GET / HTTP/1.1\r\nHost: site\r\n{many}\r\n"))
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.names().len(), REQUEST_HEADERS_MAX);
    let many = lines(RESPONSE_HEADERS_MAX - 1);
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"
        ))
        .await;
    let response = client.head().await;
    assert_eq!(response.status(), 200);
    assert!(response.names().len() >= RESPONSE_HEADERS_MAX);
}

#[tokio::test]
async fn a_response_head_that_is_too_large_is_a_protocol_error() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let many = lines(RESPONSE_HEADERS_MAX + 1);
    let long = format!("X-Long: {}\r\n", "x".repeat(RESPONSE_HEAD_MAX_BYTES));
    for excess in [many, long] {
        let mut client = front.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(format!("HTTP/1.1 200 OK\r\n{excess}")).await;
        assert_eq!(client.head().await.status(), 502);
        let error = front.error().await;
        assert!(
            matches!(
                error,
                RelayError::Protocol {
                    what: Violation::Malformed,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_response_head_just_within_the_limit_passes() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    let long = "x".repeat(RESPONSE_HEAD_MAX_BYTES - 1024);
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(
        client.head().await.get("x-long").map(str::len),
        Some(long.len())
    );
}

#[tokio::test]
async fn for_ever_is_a_limit_like_any_other() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        response_head_timeout: Some(Duration::MAX),
        upgrade_timeout: Duration::MAX,
        tunnel_idle_timeout: Duration::MAX,
        tunnels_max: usize::MAX,
        request_body_max: None,
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 200);
}
