//! Messages that two hops could read in two ways. Each is refused, or made into one that has a single reading.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Uri};
use relay::{Refusal, Relay, RelayError, Settings, Violation};
use tokio::sync::mpsc;

use crate::front::{Front, plain};
use crate::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn heads_with_two_readings_never_reach_the_upstream() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for head in [
        // Hosts.
        "GET / HTTP/1.1\r\nHost: site\r\nHost: evil\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\r\nHost: site\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://evil/ HTTP/1.1\r\nHost: site\r\n\r\n",
        "GET http://site@evil/ HTTP/1.1\r\nHost: site\r\n\r\n",
        // Targets.
        "CONNECT site:443 HTTP/1.1\r\nHost: site:443\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: site\r\n\r\n",
        "GET site:80 HTTP/1.1\r\nHost: site:80\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: site\r\n\r\n",
        "GET a/b HTTP/1.1\r\nHost: site\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: site\r\n\r\n",
        "GET /a\tb HTTP/1.1\r\nHost: site\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: site\r\n\r\n",
        // Lengths.
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody!",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4, 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: +4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 0x4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length:\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 99999999999999999999\r\n\r\nbody",
        // Codings.
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Lines.
        "GET / HTTP/1.1\r\nHost: site\r\nX-Folded: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: site\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\r\n: nameless\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: site\r\nX Y: 1\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: site\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: site\r\n\r\n",
        "GET /\r\n\r\n",
    ] {
        let mut client = front.connect().await;
        client.send(head).await;
        // Not said to be the last words, because a server may drop the request of a client that has gone.
        let answer = client.head_or_end().await;
        let refused = answer
            .as_ref()
            .is_none_or(|answer| matches!(answer.status(), 400..=499));
        assert!(refused, "{head:?} was answered {answer:?}");
        upstream.nobody_else_came().await;
    }
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_does_not_get_through() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for both in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n",
    ] {
        let mut client = front.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: site\r\n{both}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: site\r\n\r\n"
            ))
            .await;
        let mut server = upstream.accept().await;
        let request = server.head().await;
        assert_eq!(request.get("content-length"), None);
        assert_eq!(request.get("transfer-encoding"), Some("chunked"));
        assert_eq!(server.chunked_body().await, "");
        server.send(OK).await;
        let (answer, _) = client.rest().await;
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            1,
            "one answer, then the connection is closed: {answer:?}"
        );
        upstream.nobody_else_came().await;
        drop(server);
    }
}

#[tokio::test]
async fn the_same_length_twice_is_said_once() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.all("content-length"), ["4"]);
    assert_eq!(server.exactly(4).await, "body");
}

#[tokio::test]
async fn chunk_extensions_and_padded_sizes_are_not_passed_on() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n0004;a=b\r\nbody\r\n0;c\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(
        server.read_through("0\r\n\r\n").await,
        "4\r\nbody\r\n0\r\n\r\n"
    );
}

#[tokio::test]
async fn a_server_that_checks_less_than_hyper_is_no_way_in_either() {
    let upstream = Upstream::listen().await;
    let relay = Relay::new(Settings::default());
    let request = || Request::post("/").header("host", "site");
    let stream = || {
        Body::from_stream(futures_util::stream::iter([Ok::<_, Infallible>(
            Bytes::from("body"),
        )]))
    };
    let no_path = {
        let mut request = request().body(Body::empty()).expect("a request");
        *request.uri_mut() = Uri::from_static("site:80");
        request
    };
    for (request, refusal) in [
        (
            request().header("host", "evil").body(Body::empty()),
            Refusal::SeveralHosts,
        ),
        (Request::post("/").body(Body::empty()), Refusal::NoHost),
        (
            Request::post("http://evil/")
                .header("host", "site")
                .body(Body::empty()),
            Refusal::HostMismatch,
        ),
        (
            request().method(Method::CONNECT).body(Body::empty()),
            Refusal::Connect,
        ),
        (Ok(no_path), Refusal::Target),
        (
            request()
                .header("content-length", "4")
                .header("transfer-encoding", "chunked")
                .body(stream()),
            Refusal::AmbiguousLength,
        ),
        (
            request()
                .header("content-length", "4")
                .header("content-length", "4")
                .body(stream()),
            Refusal::AmbiguousLength,
        ),
        (
            request().header("content-length", "-4").body(stream()),
            Refusal::AmbiguousLength,
        ),
        // hyper's client would announce five bytes and send none: the next request would be taken for them.
        (
            request().header("content-length", "5").body(Body::empty()),
            Refusal::AmbiguousLength,
        ),
        (
            request()
                .header("content-length", "5")
                .body(Body::from("body")),
            Refusal::AmbiguousLength,
        ),
        (
            request().header("transfer-encoding", "gzip").body(stream()),
            Refusal::TransferCoding,
        ),
    ] {
        let error = relay
            .forward(request.expect("a request"), &plain(upstream.address))
            .await
            .expect_err("refused");
        assert!(
            matches!(error, RelayError::Refused(why) if why == refusal),
            "{refusal:?}: {error:?}"
        );
        assert!(error.never_reached_upstream());
        assert!(error.status().is_client_error());
    }
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn a_body_shorter_than_it_says_ends_the_connection_instead_of_borrowing_from_the_next_request()
 {
    let upstream = Upstream::listen().await;
    let relay = Relay::new(Settings::default());
    let (pieces, source) = mpsc::channel::<&'static str>(1);
    let stream = futures_util::stream::unfold(source, async |mut source| {
        let piece = source.recv().await?;
        Some((Ok::<_, Infallible>(piece), source))
    });
    let request = Request::post("/")
        .header("host", "site")
        .header("content-length", "5");
    let request = request.body(Body::from_stream(stream)).expect("a request");
    let to = plain(upstream.address);
    let played = async {
        pieces.send("body").await.expect("somebody reads");
        let mut server = upstream.accept().await;
        assert_eq!(server.head().await.get("content-length"), Some("5"));
        assert_eq!(server.exactly(4).await, "body");
        drop(pieces);
        server.is_gone().await;
    };
    let (answer, ()) = tokio::join!(relay.forward(request, &to), played);
    assert!(
        matches!(answer, Err(RelayError::RequestBody { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn responses_with_two_readings_are_a_protocol_error() {
    let upstream = Upstream::listen().await;
    // A connection whose response had no body to disagree about is kept for a moment.
    let settings = Settings {
        pool_idle_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    for (head, violation) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Violation::Malformed,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: one\r\n\r\n",
            Violation::Malformed,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 1, 2\r\n\r\n",
            Violation::AmbiguousLength,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            Violation::TransferCoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            Violation::TransferCoding,
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Violation::Malformed,
        ),
        (
            "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\n\r\n",
            Violation::Malformed,
        ),
        ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Violation::Malformed),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", Violation::Malformed),
        ("HTTP/3 200 OK\r\n\r\n", Violation::Malformed),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", Violation::Malformed),
        ("<html>hello</html>\r\n\r\n", Violation::Malformed),
    ] {
        let mut client = front.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(head).await;
        assert_eq!(client.head().await.status(), 502, "{head:?}");
        let error = front.error().await;
        assert!(
            matches!(&error, RelayError::Protocol { what, .. } if *what == violation),
            "{head:?}: {error:?}"
        );
        assert!(!error.never_reached_upstream());
        server.is_gone().await;
    }
}

#[tokio::test]
async fn a_response_with_a_length_beside_chunks_is_told_in_chunks_only() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let response = client.head().await;
    assert_eq!(response.get("content-length"), None);
    assert_eq!(client.chunked_body().await, "ok");
}

#[tokio::test]
async fn what_an_upstream_says_after_its_response_is_nobodys_answer() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server
        .send(format!(
            "{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
        ))
        .await;
    client.head().await;
    assert_eq!(client.exactly(2).await, "ok");
    server.is_gone().await;

    client.send("GET /b HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.target(), "/b");
    server.send(OK).await;
    client.head().await;
    assert_eq!(client.exactly(2).await, "ok");
}
