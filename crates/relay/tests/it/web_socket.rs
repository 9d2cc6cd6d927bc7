//! The WebSocket handshake, the tunnel it opens, and its end.

use std::time::Duration;

use axum::body::Body;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request};
use relay::{PoolKey, Refusal, Relay, RelayError, Settings, Violation, Wait};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::task::TaskTracker;

use crate::front::{Front, plain};
use crate::upstream::Upstream;
use crate::wire::{End, Wire, eventually, within};

const HANDSHAKE: &str = "GET /?token=abc HTTP/1.1\r\nHost: site\r\nOrigin: http://site\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: vite-hmr\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: vite-hmr\r\n\r\n";

/// An open tunnel: the client's end and the upstream's.
async fn tunnel(front: &Front, upstream: &Upstream) -> (Wire, Wire) {
    let mut client = front.connect().await;
    client.send(HANDSHAKE).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(SWITCHING).await;
    assert_eq!(client.head().await.status(), 101);
    (client, server)
}

/// Agrees to what Vite agrees to.
struct AsVite;

impl server::Callback for AsVite {
    fn on_request(
        self,
        request: &server::Request,
        mut response: server::Response,
    ) -> Result<server::Response, server::ErrorResponse> {
        assert_eq!(request.uri(), "/?token=abc");
        assert_eq!(request.headers()["sec-websocket-protocol"], "vite-hmr");
        let chosen = HeaderValue::from_static("vite-hmr");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", chosen);
        Ok(response)
    }
}

#[tokio::test]
async fn a_vite_hmr_socket_works_from_end_to_end() {
    // A real WebSocket server, in the role of Vite's.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, AsVite)
            .await
            .expect("a handshake");
        socket
            .send(Message::text(r#"{"type":"connected"}"#))
            .await
            .expect("send");
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.expect("echo");
            }
        }
    });

    let front = Front::of(address).await;
    let mut request = front
        .url("/?token=abc")
        .into_client_request()
        .expect("a request");
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static("vite-hmr"),
    );
    let (mut socket, response) = within("the handshake", tokio_tungstenite::connect_async(request))
        .await
        .expect("a handshake");
    assert_eq!(response.headers()["sec-websocket-protocol"], "vite-hmr");
    let mut next = async || {
        within("a message", socket.next())
            .await
            .expect("open")
            .expect("a message")
    };
    assert_eq!(next().await, Message::text(r#"{"type":"connected"}"#));
    let long = Message::binary(vec![7; 1_000_000]);
    for message in [Message::text(r#"{"type":"ping"}"#), long] {
        within("a write", socket.send(message.clone()))
            .await
            .expect("send");
        assert_eq!(
            within("an echo", socket.next())
                .await
                .expect("open")
                .expect("a message"),
            message
        );
    }
    assert_eq!(front.relay.open_tunnels(), 1);
    within("the closing handshake", socket.close(None))
        .await
        .expect("close");
    let last = within("the end", async {
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    assert_eq!(last, ());
    drop(socket);
    eventually("the tunnel's end", || front.relay.open_tunnels() == 0).await;
}

#[tokio::test]
async fn the_handshake_passes_and_nothing_else_that_is_hop_by_hop() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send(HANDSHAKE.replace(
            "Origin:",
            "Keep-Alive: timeout=5\r\nTE: trailers\r\nOrigin:",
        ))
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(request.start, "GET /?token=abc HTTP/1.1");
    assert_eq!(
        request.names(),
        [
            "connection",
            "host",
            "origin",
            "sec-websocket-extensions",
            "sec-websocket-key",
            "sec-websocket-protocol",
            "sec-websocket-version",
            "upgrade"
        ]
    );
    assert_eq!(
        (request.get("connection"), request.get("upgrade")),
        (Some("Upgrade"), Some("websocket"))
    );
    assert_eq!(
        request.get("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert_eq!(request.get("sec-websocket-protocol"), Some("vite-hmr"));
    server.send(SWITCHING).await;
    let response = client.head().await;
    assert_eq!(response.status(), 101);
    assert_eq!(
        (response.get("connection"), response.get("upgrade")),
        (Some("Upgrade"), Some("websocket"))
    );
    assert_eq!(
        response.get("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert_eq!(response.get("sec-websocket-protocol"), Some("vite-hmr"));
    assert_eq!(response.get("content-length"), None);
}

#[tokio::test]
async fn bytes_in_the_same_packet_as_the_101_are_not_lost() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send(HANDSHAKE).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(format!("{SWITCHING}first words")).await;
    assert_eq!(client.head().await.status(), 101);
    assert_eq!(client.exactly(11).await, "first words");
}

#[tokio::test]
async fn bytes_sent_ahead_of_the_101_reach_the_upstream_after_it() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send(format!("{HANDSHAKE}first words")).await;
    let mut server = upstream.accept().await;
    server.head().await;
    upstream.nobody_else_came().await;
    server.send(SWITCHING).await;
    assert_eq!(client.head().await.status(), 101);
    assert_eq!(server.exactly(11).await, "first words");
}

#[tokio::test]
async fn a_refused_handshake_is_an_ordinary_response_and_no_tunnel() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for status in [
        "200 OK",
        "400 Bad Request",
        "403 Forbidden",
        "404 Not Found",
        "426 Upgrade Required",
    ] {
        let mut client = front.connect().await;
        // What follows would be smuggled if bytes flowed before the 101.
        client
            .send(format!(
                "{HANDSHAKE}GET /next HTTP/1.1\r\nHost: site\r\n\r\n"
            ))
            .await;
        let mut server = upstream.accept().await;
        server.head().await;
        server
            .send(format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
            ))
            .await;
        let response = client.head().await;
        assert_eq!(response.start, format!("HTTP/1.1 {status}"));
        assert_eq!(client.exactly(2).await, "no");
        server.is_gone().await;

        let mut server = upstream.accept().await;
        assert_eq!(
            server.head().await.start,
            "GET /next HTTP/1.1",
            "a request of its own, by the same rules"
        );
        server
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(client.head().await.status(), 200);
        assert_eq!(front.relay.open_tunnels(), 0);
    }
}

#[tokio::test]
async fn what_is_not_a_well_formed_handshake_is_passed_on_without_its_upgrade() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for (what, head) in [
        (
            "another protocol",
            HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c"),
        ),
        (
            "two protocols",
            HANDSHAKE.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
        ),
        (
            "two fields",
            HANDSHAKE.replace(
                "Upgrade: websocket",
                "Upgrade: websocket\r\nUpgrade: websocket",
            ),
        ),
        (
            "no option",
            HANDSHAKE.replace("keep-alive, Upgrade", "keep-alive"),
        ),
        ("another method", HANDSHAKE.replace("GET /", "POST /")),
        (
            "an old version of HTTP",
            HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"),
        ),
        ("no key", HANDSHAKE.replace("Sec-WebSocket-Key", "X-Key")),
        (
            "a short key",
            HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ),
        (
            "a key that is none",
            HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!!!!!!"),
        ),
        (
            "two keys",
            HANDSHAKE.replace(
                "Origin: http://site",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ),
        ),
        (
            "a nominated key",
            HANDSHAKE.replace("keep-alive, Upgrade", "Sec-WebSocket-Key, Upgrade"),
        ),
        (
            "no version",
            HANDSHAKE.replace("Sec-WebSocket-Version", "X-Version"),
        ),
        (
            "a body",
            HANDSHAKE
                .replace("Origin: http://site", "Content-Length: 2")
                .replace("\r\n\r\n", "\r\n\r\nhi"),
        ),
    ] {
        let mut client = front.connect().await;
        client.send(head).await;
        let mut server = upstream.accept().await;
        let request = server.head().await;
        assert_eq!(
            (request.get("upgrade"), request.get("connection")),
            (None, None),
            "{what}"
        );
        server
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status(), 200, "{what}");
    }
    assert_eq!(front.relay.open_tunnels(), 0);
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_protocol_error() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: site\r\n\r\n", SWITCHING.to_owned()),
        (HANDSHAKE, SWITCHING.replace("WebSocket\r\n", "h2c\r\n")),
        (HANDSHAKE, SWITCHING.replace("Connection: Upgrade\r\n", "")),
    ] {
        let mut client = front.connect().await;
        client.send(request).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(answer).await;
        assert_eq!(client.head().await.status(), 502);
        let error = front.error().await;
        assert!(
            matches!(
                error,
                RelayError::Protocol {
                    what: Violation::UnaskedUpgrade,
                    ..
                }
            ),
            "{error:?}"
        );
        server.is_gone().await;
        assert_eq!(front.relay.open_tunnels(), 0);
    }
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_is_a_timeout() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        upgrade_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let mut client = front.connect().await;
    client.send(HANDSHAKE).await;
    let mut server = upstream.accept().await;
    server.head().await;
    assert_eq!(client.head().await.status(), 504);
    let error = front.error().await;
    assert!(
        matches!(
            error,
            RelayError::Timeout {
                wait: Wait::Upgrade,
                ..
            }
        ),
        "{error:?}"
    );
    server.is_gone().await;
}

#[tokio::test]
async fn a_connection_that_cannot_be_upgraded_is_refused_before_anything_is_sent() {
    let upstream = Upstream::listen().await;
    let relay = Relay::new(Settings::default());
    let request = Request::get("/")
        .header("host", "site")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let request = request.body(Body::empty()).expect("a request");
    let error = relay
        .forward(request, &plain(upstream.address))
        .await
        .expect_err("nothing to upgrade");
    assert!(
        matches!(error, RelayError::Refused(Refusal::NotUpgradable)),
        "{error:?}"
    );
    upstream.nobody_else_came().await;
}

#[tokio::test]
async fn a_client_that_has_said_all_still_hears_the_rest() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    client.send("last words").await;
    client.finish_sending().await;
    assert_eq!(server.exactly(10).await, "last words");
    server.is_gone().await;
    server.send("the answer").await;
    assert_eq!(client.exactly(10).await, "the answer");
    assert_eq!(front.relay.open_tunnels(), 1);
    drop(server);
    client.is_gone().await;
    eventually("the tunnel's end", || front.relay.open_tunnels() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_has_said_all_still_hears_the_rest() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    server.send("last words").await;
    server.finish_sending().await;
    assert_eq!(client.exactly(10).await, "last words");
    client.is_gone().await;
    client.send("the answer").await;
    assert_eq!(server.exactly(10).await, "the answer");
    assert_eq!(front.relay.open_tunnels(), 1);
    drop(client);
    server.is_gone().await;
    eventually("the tunnel's end", || front.relay.open_tunnels() == 0).await;
}

#[tokio::test]
async fn a_side_that_breaks_ends_the_other() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, server) = tunnel(&front, &upstream).await;
    server.reset();
    client.is_gone().await;

    let (client, mut server) = tunnel(&front, &upstream).await;
    client.reset();
    server.is_gone().await;
    eventually("the tunnels' ends", || front.relay.open_tunnels() == 0).await;
}

#[tokio::test]
async fn there_are_only_so_many_tunnels_and_an_ended_one_makes_room() {
    let upstream = Upstream::listen().await;
    let front = Front::with(
        Settings {
            tunnels_max: 2,
            ..Settings::default()
        },
        plain(upstream.address),
    )
    .await;
    let first = tunnel(&front, &upstream).await;
    let _second = tunnel(&front, &upstream).await;
    assert_eq!(front.relay.open_tunnels(), 2);

    let mut third = front.connect().await;
    third.send(HANDSHAKE).await;
    assert_eq!(third.head().await.status(), 503);
    let error = front.error().await;
    assert!(
        matches!(error, RelayError::TooManyTunnels { limit: 2 }),
        "{error:?}"
    );
    assert!(error.never_reached_upstream());
    upstream.nobody_else_came().await;

    drop(first);
    eventually("the tunnel's end", || front.relay.open_tunnels() == 1).await;
    let _third = tunnel(&front, &upstream).await;
    assert_eq!(front.relay.open_tunnels(), 2);
}

#[tokio::test]
async fn a_pool_has_only_so_many_tunnels_and_others_have_theirs() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        tunnels_per_pool_max: 1,
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let key = plain(upstream.address).pool_key;
    assert_eq!(front.relay.open_tunnels_of(&key), 0);
    let first = tunnel(&front, &upstream).await;
    assert_eq!(front.relay.open_tunnels_of(&key), 1);
    let mut second = front.connect().await;
    second.send(HANDSHAKE).await;
    assert_eq!(second.head().await.status(), 503);
    let error = front.error().await;
    assert!(
        matches!(error, RelayError::TooManyTunnels { limit: 1 }),
        "{error:?}"
    );
    drop(first);
    eventually("the tunnel's end", || {
        front.relay.open_tunnels_of(&key) == 0
    })
    .await;
    let _third = tunnel(&front, &upstream).await;
}

#[tokio::test]
async fn a_refused_handshake_gives_its_place_back() {
    let upstream = Upstream::listen().await;
    let front = Front::with(
        Settings {
            tunnels_max: 1,
            ..Settings::default()
        },
        plain(upstream.address),
    )
    .await;
    for _ in 0..3 {
        let mut client = front.connect().await;
        client.send(HANDSHAKE).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server
            .send("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status(), 404);
    }
    let _tunnel = tunnel(&front, &upstream).await;
}

#[tokio::test]
async fn closing_the_tunnels_ends_them_all_and_waits() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        tunnels.push(tunnel(&front, &upstream).await);
    }
    front.relay.close_tunnels(Duration::from_secs(10)).await;
    assert_eq!(front.relay.open_tunnels(), 0);
    for (client, server) in &mut tunnels {
        hears_of_the_end(client, "").await;
        server.is_gone().await;
    }

    let (mut client, mut server) = tunnel(&front, &upstream).await;
    client.send("again").await;
    assert_eq!(server.exactly(5).await, "again", "later ones are new ones");
    assert_eq!(front.relay.open_tunnels(), 1);
}

/// What still comes is `rest`, the frame that says that the server goes away, and the end.
async fn hears_of_the_end(client: &mut Wire, rest: &str) {
    let going_away = String::from_utf8_lossy(&[0x88, 2, 0x03, 0xe9]).into_owned();
    assert_eq!(
        client.rest().await,
        (format!("{rest}{going_away}"), End::Closed)
    );
}

/// Begins to close, and lets the tunnels notice. What is closed then ends in its own time.
async fn closing(front: &Front, tasks: &TaskTracker) {
    let relay = front.relay.clone();
    tasks.spawn(async move { relay.close_tunnels(Duration::from_secs(10)).await });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_frame_that_has_begun_is_finished_before_the_farewell() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    // A text frame of five bytes, of which three have come.
    server.send("\u{1}\u{5}abc").await;
    assert_eq!(client.exactly(5).await, "\u{1}\u{5}abc");
    let tasks = TaskTracker::new();
    closing(&front, &tasks).await;
    server.send("de\u{1}\u{1}x").await;
    hears_of_the_end(&mut client, "de").await;
}

#[tokio::test]
async fn the_clients_own_farewell_still_reaches_the_upstream() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    let tasks = TaskTracker::new();
    closing(&front, &tasks).await;
    hears_of_the_end(&mut client, "").await;
    client.send("farewell").await;
    client.finish_sending().await;
    assert_eq!(server.exactly(8).await, "farewell");
    server.is_gone().await;
    eventually("the tunnel's end", || front.relay.open_tunnels() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_has_said_its_own_farewell_is_not_spoken_for() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    // A close frame without a status.
    server.send([0x88, 0]).await;
    client.exactly(2).await;
    front.relay.close_tunnels(Duration::from_secs(10)).await;
    client.is_gone().await;
    server.is_gone().await;
}

#[tokio::test]
async fn a_tunnel_that_cannot_say_farewell_is_cut() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    server.send("\u{1}\u{5}abc").await;
    assert_eq!(client.exactly(5).await, "\u{1}\u{5}abc");
    front.relay.close_tunnels(Duration::from_secs(10)).await;
    assert_eq!(front.relay.open_tunnels(), 0);
    client.is_gone().await;
    server.is_gone().await;
}

#[tokio::test]
async fn a_real_client_is_told_that_the_server_goes_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let tasks = TaskTracker::new();
    let server = tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let mut socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("a handshake");
        let mut last = None;
        while let Some(Ok(message)) = socket.next().await {
            last = Some(message);
        }
        last
    });
    let front = Front::of(address).await;
    let (mut socket, _) = within(
        "the handshake",
        tokio_tungstenite::connect_async(front.url("/")),
    )
    .await
    .expect("a handshake");
    closing(&front, &tasks).await;
    let told = within("the farewell", socket.next()).await;
    let Some(Ok(Message::Close(Some(told)))) = told else {
        panic!("{told:?}")
    };
    assert_eq!(u16::from(told.code), 1001);
    within("the end", async {
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let heard = within("the server's end", server).await.expect("no panic");
    let Some(Message::Close(Some(heard))) = heard else {
        panic!("{heard:?}")
    };
    assert_eq!(u16::from(heard.code), 1001, "the client's answer passes");
}

#[tokio::test]
async fn closing_no_tunnels_takes_no_time() {
    let relay = Relay::new(Settings::default());
    within("nothing", relay.close_tunnels(Duration::MAX)).await;
}

#[tokio::test]
async fn forgetting_a_pool_ends_its_tunnels_and_no_others() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    front.relay.forget(&PoolKey::from("another"));
    client.send("still here").await;
    assert_eq!(server.exactly(10).await, "still here");
    front.relay.forget(&plain(upstream.address).pool_key);
    client.is_gone().await;
    server.is_gone().await;
}

#[tokio::test]
async fn a_tunnel_that_carries_nothing_for_too_long_is_ended() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        tunnel_idle_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    client.is_gone().await;
    server.is_gone().await;
}

#[tokio::test]
async fn a_half_closed_tunnel_that_carries_nothing_is_ended_sooner() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        tunnel_half_closed_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let front = Front::with(settings, plain(upstream.address)).await;
    let (mut client, mut server) = tunnel(&front, &upstream).await;
    client.finish_sending().await;
    server.is_gone().await;
    client.is_gone().await;
    assert_eq!(front.relay.open_tunnels(), 0);
}

#[tokio::test]
async fn a_101_that_the_caller_does_not_pass_on_ends_at_the_upstream_at_once() {
    let upstream = Upstream::listen().await;
    let settings = Settings {
        upgrade_timeout: Duration::from_mins(10),
        ..Settings::default()
    };
    let front = Front::that_vetoes(settings, plain(upstream.address)).await;
    let mut client = front.connect().await;
    client.send(HANDSHAKE).await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send(format!("{SWITCHING}secret")).await;
    let response = client.head().await;
    assert_eq!(response.status(), 403);
    assert_eq!(client.exactly(10).await, "not proven");
    server.is_gone().await;
    assert_eq!(front.relay.open_tunnels(), 0);
    client.finish_sending().await;
    assert_eq!(client.rest().await.0, "", "no byte of the upstream's");
}

#[tokio::test]
async fn a_tungstenite_client_sees_a_refusal_as_one() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let connecting = tokio_tungstenite::connect_async(front.url("/nowhere"));
    let played = async {
        let mut server = upstream.accept().await;
        server.head().await;
        server
            .send("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
            .await;
        server
    };
    let (connected, _server) = tokio::join!(within("an answer", connecting), played);
    let Err(Error::Http(response)) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!(response.status(), 404);
}
