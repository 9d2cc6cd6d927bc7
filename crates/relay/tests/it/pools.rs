//! Which requests share a connection, and what happens when it dies.

use std::net::SocketAddr;
use std::time::Duration;

use relay::{PoolKey, RelayError, Settings};
use tokio_util::task::TaskTracker;

use crate::front::{Front, plain};
use crate::upstream::Upstream;
use crate::wire::{End, Wire, within};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn pooled_as(key: &str, address: SocketAddr) -> relay::Upstream {
    relay::Upstream {
        pool_key: PoolKey::from(key),
        ..plain(address)
    }
}

async fn ask(relay: &relay::Relay, upstream: &relay::Upstream) -> Result<(), RelayError> {
    let request = http::Request::get("/")
        .header("host", "site")
        .body(axum::body::Body::empty())
        .expect("a request");
    let response = relay.forward(request, upstream).await?;
    axum::body::to_bytes(axum::body::Body::new(response.into_body()), 100)
        .await
        .expect("a body");
    Ok(())
}

/// Plays one request and its answer on this connection.
async fn answer(server: &mut Wire) {
    server.head().await;
    server.send(OK).await;
}

#[tokio::test]
async fn requests_of_one_pool_share_a_connection() {
    let upstream = Upstream::listen().await;
    let relay = relay::Relay::new(Settings::default());
    let to = pooled_as("task-1#1", upstream.address);
    let (asked, mut server) = tokio::join!(ask(&relay, &to), async {
        let mut server = upstream.accept().await;
        answer(&mut server).await;
        server
    });
    asked.expect("an answer");
    let clone = relay.clone();
    let (asked, ()) = tokio::join!(ask(&clone, &to), answer(&mut server));
    asked.expect("an answer over the same connection");
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn another_generation_at_the_same_address_never_gets_a_connection_of_the_former() {
    let upstream = Upstream::listen().await;
    let relay = relay::Relay::new(Settings::default());
    let (former, latter) = (
        pooled_as("task-1#1", upstream.address),
        pooled_as("task-1#2", upstream.address),
    );
    let mut servers = Vec::new();
    for to in [&former, &latter] {
        let (asked, server) = tokio::join!(ask(&relay, to), async {
            let mut server = upstream.accept().await;
            answer(&mut server).await;
            server
        });
        asked.expect("an answer");
        servers.push(server);
    }
    for (to, server) in [&former, &latter].into_iter().zip(&mut servers) {
        let (asked, ()) = tokio::join!(ask(&relay, to), answer(server));
        asked.expect("an answer over its own connection");
    }
}

#[tokio::test]
async fn another_address_under_the_same_key_never_gets_a_connection_of_the_former() {
    let (first, second) = (Upstream::listen().await, Upstream::listen().await);
    let relay = relay::Relay::new(Settings::default());
    for upstream in [&first, &second, &first, &second] {
        let to = pooled_as("site", upstream.address);
        let played = async {
            // Kept connections are not looked for: each is closed once it has served.
            let mut server = upstream.accept().await;
            server.head().await;
            server
                .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                .await;
            server.is_gone().await;
        };
        let (asked, ()) = tokio::join!(ask(&relay, &to), played);
        asked.expect("an answer of this one");
    }
}

#[tokio::test]
async fn forgetting_a_pool_closes_its_unused_connections_and_no_others() {
    let upstream = Upstream::listen().await;
    let relay = relay::Relay::new(Settings::default());
    let mut servers = Vec::new();
    for key in ["task-1#1", "task-2#1"] {
        let to = pooled_as(key, upstream.address);
        let (asked, server) = tokio::join!(ask(&relay, &to), async {
            let mut server = upstream.accept().await;
            answer(&mut server).await;
            server
        });
        asked.expect("an answer");
        servers.push(server);
    }
    relay.forget(&PoolKey::from("task-1#1"));
    relay.forget(&PoolKey::from("never heard of"));
    servers[0].is_gone().await;
    let to = pooled_as("task-2#1", upstream.address);
    let (asked, ()) = tokio::join!(ask(&relay, &to), answer(&mut servers[1]));
    asked.expect("an answer over the kept connection");
}

#[tokio::test]
async fn a_request_in_flight_survives_the_forgetting_of_its_pool() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    front.relay.forget(&plain(upstream.address).pool_key);
    server.send(OK).await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.exactly(2).await, "ok");
    server.is_gone().await;
}

#[tokio::test]
async fn an_unused_connection_is_closed_before_node_would_close_it() {
    assert!(Settings::default().pool_idle_timeout < Duration::from_secs(5));
    let upstream = Upstream::listen().await;
    let settings = Settings {
        pool_idle_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let relay = relay::Relay::new(settings);
    let to = pooled_as("site", upstream.address);
    let (asked, mut server) = tokio::join!(ask(&relay, &to), async {
        let mut server = upstream.accept().await;
        answer(&mut server).await;
        server
    });
    asked.expect("an answer");
    assert_eq!(server.rest().await, (String::new(), End::Closed));
}

#[tokio::test]
async fn a_request_of_which_nothing_was_sent_is_sent_on_a_new_connection_whatever_it_is() {
    let upstream = Upstream::listen().await;
    let relay = relay::Relay::new(Settings::default());
    let to = pooled_as("site", upstream.address);
    // Both ends of a connection beside the point: what is written into one is ready in the other together with the end
    // of the kept connection, and then this task runs before the connection's own, which is the moment in question.
    let beside = Upstream::listen().await;
    let (mut bell, mut rope) = tokio::join!(Wire::connect(beside.address), beside.accept());
    for _ in 0..20 {
        let (asked, server) = tokio::join!(ask(&relay, &to), async {
            let mut server = upstream.accept().await;
            answer(&mut server).await;
            server
        });
        asked.expect("an answer");

        drop(server);
        rope.send("!").await;
        bell.exactly(1).await;
        let body = axum::body::Body::from("body");
        let post = http::Request::post("/")
            .header("host", "site")
            .body(body)
            .expect("a request");
        let (asked, ()) = tokio::join!(relay.forward(post, &to), async {
            let mut server = upstream.accept().await;
            assert_eq!(server.head().await.get("content-length"), Some("4"));
            assert_eq!(server.exactly(4).await, "body");
            server
                .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .await;
            server.is_gone().await;
        });
        asked.expect("an answer");
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_at_that_moment_is_nobodys_error() {
    let upstream = Upstream::listen().await;
    let relay = relay::Relay::new(Settings::default());
    let to = pooled_as("site", upstream.address);
    for round in 0..100 {
        let (asked, server) = tokio::join!(ask(&relay, &to), async {
            let mut server = upstream.accept().await;
            answer(&mut server).await;
            server
        });
        asked.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        drop(server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_is_it_one_when_threads_race() {
    let upstream = Upstream::listen().await;
    let address = upstream.address;
    let tasks = TaskTracker::new();
    let connections = tasks.clone();
    // Keeps no connection, and says so of none.
    tasks.spawn(async move {
        loop {
            let mut server = upstream.accept().await;
            connections.spawn(async move {
                if server.head_or_end().await.is_some() {
                    server.send(OK).await;
                }
            });
        }
    });
    let relay = relay::Relay::new(Settings::default());
    let to = pooled_as("site", address);
    for round in 0..1_000 {
        let asked = within("an answer", ask(&relay, &to)).await;
        asked.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_closes_in_the_very_moment_of_a_request_is_an_error_and_no_wait() {
    let upstream = Upstream::listen().await;
    let address = upstream.address;
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        loop {
            drop(upstream.accept().await);
        }
    });
    let relay = relay::Relay::new(Settings::default());
    let to = pooled_as("site", address);
    for _ in 0..2_000 {
        let asked = within("an answer", ask(&relay, &to)).await;
        let error = asked.expect_err("nobody answers");
        assert!(
            matches!(error, RelayError::Disconnected { .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_idempotent_request_that_a_dying_connection_swallowed_is_sent_once_more() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    for reset in [false, true] {
        client.send("GET /a HTTP/1.1\r\nHost: site\r\n\r\n").await;
        let mut server = upstream.accept().await;
        answer(&mut server).await;
        client.head().await;
        client.exactly(2).await;

        client
            .send("GET /b?c HTTP/1.1\r\nHost: site\r\nX-Mine: 1\r\n\r\n")
            .await;
        let first = server.head().await;
        if reset {
            server.reset();
        } else {
            drop(server);
        }
        let mut server = upstream.accept().await;
        let second = server.head().await;
        assert_eq!(
            (&first.start, first.names()),
            (&second.start, second.names()),
            "the same request"
        );
        server
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(client.exactly(2).await, "ok");
    }
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn it_is_sent_only_once_more() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    answer(&mut server).await;
    client.head().await;
    client.exactly(2).await;

    client.send("GET /b HTTP/1.1\r\nHost: site\r\n\r\n").await;
    server.head().await;
    drop(server);
    let mut server = upstream.accept().await;
    server.head().await;
    drop(server);
    assert_eq!(client.head().await.status(), 502);
    let error = front.error().await;
    assert!(
        matches!(error, RelayError::Disconnected { sent: true, .. }),
        "{error:?}"
    );
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn what_is_not_idempotent_or_has_a_body_is_never_sent_twice() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: site\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\n\r\nbody",
        "PUT / HTTP/1.1\r\nHost: site\r\nContent-Length: 4\r\n\r\nbody",
        "PATCH / HTTP/1.1\r\nHost: site\r\n\r\n",
    ] {
        let mut client = front.connect().await;
        client.send("GET /a HTTP/1.1\r\nHost: site\r\n\r\n").await;
        let mut server = upstream.accept().await;
        answer(&mut server).await;
        client.head().await;
        client.exactly(2).await;

        client.send(request).await;
        server.head().await;
        drop(server);
        assert_eq!(client.head().await.status(), 502, "{request:?}");
        let error = front.error().await;
        assert!(
            matches!(error, RelayError::Disconnected { sent: true, .. }),
            "{error:?}"
        );
        upstream.nobody_else_came().await;
    }
}
