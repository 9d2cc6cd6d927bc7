//! What breaks, on which side, and who learns of it.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use relay::{Relay, RelayError, Settings, Wait};
use tokio::net::TcpSocket;

use crate::front::{Front, plain};
use crate::upstream::Upstream;
use crate::wire::{End, Wire, within};

/// Long enough for a loaded machine to answer, short enough to wait for.
const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn an_upstream_that_is_down_is_a_connect_error_at_once() {
    let address = Upstream::down().await;
    let front = Front::of(address).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    assert_eq!(client.head().await.status(), 502);
    let error = front.error().await;
    let RelayError::Connect {
        address: named,
        source,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (*named, source.kind()),
        (address, io::ErrorKind::ConnectionRefused)
    );
    assert!(error.never_reached_upstream());
    assert_eq!(
        error.to_string(),
        format!("connecting to upstream {address}")
    );
}

#[tokio::test]
async fn an_upstream_that_takes_no_connection_is_a_timeout() {
    // A full backlog drops connection requests, as an address does that belongs to nobody.
    let socket = TcpSocket::new_v4().expect("socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bind");
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("address");
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SOON, tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream.expect("connect"));
    }

    let relay = Relay::new(Settings {
        connect_timeout: SOON,
        ..Settings::default()
    });
    let request = Request::post("/")
        .header("host", "site")
        .body(Body::from("body"))
        .expect("a request");
    let error = within("the timeout", relay.forward(request, &plain(address)))
        .await
        .expect_err("nobody accepts");
    assert!(
        matches!(
            error,
            RelayError::Timeout {
                wait: Wait::Connect,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.never_reached_upstream());
    assert_eq!(
        error.to_string(),
        format!("connecting took longer than 200ms (upstream {address})")
    );
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_a_timeout_and_is_let_go() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        response_head_timeout: Some(SOON),
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\n\r\nbody")
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(client.head().await.status(), 504);
    let error = front.error().await;
    assert!(
        matches!(
            error,
            RelayError::Timeout {
                wait: Wait::ResponseHead,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.never_reached_upstream());
    assert_eq!(server.exactly(4).await, "body");
    server.is_gone().await;
}

#[tokio::test]
async fn a_client_that_pauses_its_upload_for_too_long_is_named_as_the_one_waited_for() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        response_head_timeout: Some(SOON),
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 8\r\n\r\nhalf")
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(client.head().await.status(), 408);
    let error = front.error().await;
    assert!(
        matches!(
            error,
            RelayError::Timeout {
                wait: Wait::RequestBody,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(server.exactly(4).await, "half");
    server.is_gone().await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_before_it_answers_is_named_and_nothing_is_sent_twice() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for (request, partial) in [
        (
            "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\n\r\nbody",
            "",
        ),
        ("POST / HTTP/1.1\r\nHost: site\r\n\r\n", ""),
        ("GET / HTTP/1.1\r\nHost: site\r\n\r\n", ""),
        (
            "GET / HTTP/1.1\r\nHost: site\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-",
        ),
    ] {
        for reset in [false, true] {
            let mut client = front.connect().await;
            client.send(request).await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send(partial).await;
            if reset {
                server.reset();
            } else {
                drop(server);
            }
            assert_eq!(client.head().await.status(), 502, "{request:?}");
            let error = front.error().await;
            assert!(
                matches!(error, RelayError::Disconnected { sent: true, .. }),
                "{error:?}"
            );
            assert!(!error.never_reached_upstream());
            upstream.nobody_else_came().await;
        }
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_never_looks_complete() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for (head, beginning) in [
        ("Content-Length: 100\r\n", "the beginning"),
        ("Transfer-Encoding: chunked\r\n", "d\r\nthe beginning\r\n"),
        ("Transfer-Encoding: chunked\r\n", "64\r\nthe beginning"),
    ] {
        for reset in [false, true] {
            let mut client = front.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
            let mut server = upstream.accept().await;
            server.head().await;
            server
                .send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{beginning}"))
                .await;
            let response = client.head().await;
            assert_eq!(response.status(), 200);
            client.read_through("the beginning").await;
            if reset {
                server.reset();
            } else {
                drop(server);
            }
            let (rest, _) = client.rest().await;
            assert!(
                !rest.contains("0\r\n\r\n"),
                "{head:?} was completed: {rest:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_response_without_a_length_that_is_reset_never_looks_complete() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\n\r\nthe beginning").await;
    client.read_through("the beginning").await;
    server.reset();
    let (rest, _) = client.rest().await;
    assert!(!rest.contains("0\r\n\r\n"), "completed: {rest:?}");
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for (head, beginning) in [
        ("Content-Length: 100", "half"),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n"),
    ] {
        let mut client = front.connect().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: site\r\n{head}\r\n\r\n{beginning}"
            ))
            .await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.read_through("half").await;
        drop(client);
        let (rest, _) = server.rest().await;
        assert!(
            !rest.contains("0\r\n\r\n"),
            "{head:?} was completed: {rest:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_request_at_the_upstream() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("GET /slow HTTP/1.1\r\nHost: site\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    drop(client);
    server.is_gone().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_answer_ends_it_at_the_upstream() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for head in [
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 100000000\r\n",
        "",
    ] {
        let mut client = front.connect().await;
        client
            .send("GET /events HTTP/1.1\r\nHost: site\r\n\r\n")
            .await;
        let mut server = upstream.accept().await;
        server.head().await;
        server
            .send(format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\nevent\r\n"))
            .await;
        client.read_through("event").await;
        drop(client);
        // Nothing more is written by the upstream: it is the leaving that is noticed, not a failed write.
        server.is_gone().await;
    }
}

#[tokio::test]
async fn dropping_the_future_ends_the_request_at_the_upstream() {
    let upstream = Upstream::listen().await;
    let relay = Relay::new(Settings::default());
    let to = plain(upstream.address);
    let request = Request::get("/")
        .header("host", "site")
        .body(Body::empty())
        .expect("a request");
    let mut server = {
        let request = relay.forward(request, &to);
        let played = async {
            let mut server = upstream.accept().await;
            server.head().await;
            server
        };
        tokio::select! {
            answer = request => panic!("{answer:?}"),
            server = played => server,
        }
    };
    server.is_gone().await;
}

#[tokio::test]
async fn a_cut_connection_says_so_to_a_client_that_counts() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client: Wire = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    assert_eq!(client.head().await.get("content-length"), Some("10"));
    drop(server);
    assert_eq!(
        client.rest().await,
        ("half".to_owned(), End::Closed),
        "six bytes short"
    );
}
