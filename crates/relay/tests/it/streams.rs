//! Bodies, as they come, in both directions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use relay::Settings;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::TaskTracker;

use crate::front::{Front, forwarded, plain};
use crate::upstream::Upstream;
use crate::wire::End;

#[tokio::test]
async fn an_upload_of_unknown_length_arrives_piece_by_piece() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send(
            "POST /upload HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        )
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(request.get("transfer-encoding"), Some("chunked"));
    assert_eq!(request.get("content-length"), None);
    assert_eq!(
        server.chunk().await,
        "one",
        "before the client has sent the second"
    );
    client.send("3\r\ntwo\r\n").await;
    assert_eq!(server.chunk().await, "two");
    client.send("0\r\n\r\n").await;
    assert_eq!(server.chunked_body().await, "");
    server
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 201);
}

#[tokio::test]
async fn an_upload_of_known_length_keeps_it_and_arrives_piece_by_piece() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("PUT /upload HTTP/1.1\r\nHost: site\r\nContent-Length: 6\r\n\r\none")
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(request.get("content-length"), Some("6"));
    assert_eq!(request.get("transfer-encoding"), None);
    assert_eq!(server.exactly(3).await, "one");
    client.send("two").await;
    assert_eq!(server.exactly(3).await, "two");
}

#[tokio::test]
async fn even_a_get_may_have_a_body() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET /search HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n").await;
    let mut server = upstream.accept().await;
    assert_eq!(
        server.head().await.get("transfer-encoding"),
        Some("chunked")
    );
    assert_eq!(server.chunked_body().await, "query");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: site\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
        )
        .await;
    let mut server = upstream.accept().await;
    let request = server.head().await;
    assert_eq!(
        (request.get("trailer"), request.get("te")),
        (Some("x-sum"), Some("trailers"))
    );
    assert_eq!(server.chunk().await, "hi");
    assert_eq!(server.chunk().await, "");
    assert_eq!(server.read_through("\r\n\r\n").await, "x-sum: 42\r\n\r\n");
    server
        .send(
            "HTTP/1.1 200 OK\r\nTrailer: X-Took\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Took: 7\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.get("trailer"), Some("X-Took"));
    assert_eq!(client.chunk().await, "ok");
    assert_eq!(client.chunk().await, "");
    assert_eq!(client.read_through("\r\n\r\n").await, "x-took: 7\r\n\r\n");
}

#[tokio::test]
async fn what_a_client_may_not_say_in_the_head_it_may_not_say_in_a_trailer_either() {
    let upstream = Upstream::listen().await;
    let telling = relay::Upstream {
        forwarded: forwarded(),
        ..plain(upstream.address)
    };
    let front = Front::with(Settings::default(), telling).await;
    let mut client = front.connect().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Forwarded-For, X-Sum\r\nTrailer: Edit-Proof, Edit_Proof, Content-Length, Host\r\n\r\n\
             0\r\nX-Forwarded-For: 10.0.0.1\r\nEdit-Proof: forged\r\nEdit_Proof: forged\r\n\
             Content-Length: 5\r\nHost: evil\r\nX-Sum: 42\r\nX-Unannounced: 1\r\n\r\n",
        )
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(server.head().await.all("trailer"), ["x-sum"]);
    assert_eq!(server.chunk().await, "");
    assert_eq!(server.read_through("\r\n\r\n").await, "x-sum: 42\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_expects_100_is_asked_for_its_body_once_the_upstream_is_there() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(
        server.head().await.names(),
        ["content-length", "host"],
        "this hop answers it"
    );
    assert_eq!(client.head().await.status(), 100);
    client.send("body").await;
    assert_eq!(server.exactly(4).await, "body");
    server
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.head().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_expects_100_is_never_asked_for_a_body_that_nobody_wants() {
    let front = Front::of(Upstream::down().await).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status(), 502);
}

#[tokio::test]
async fn interim_responses_break_nothing() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server
        .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        .await;
    server
        .send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
        .await;
    server.send("Content-Length: 2\r\n\r\nok").await;
    let response = client.head().await;
    assert_eq!((response.status(), response.get("link")), (200, None));
    assert_eq!(client.exactly(2).await, "ok");
}

#[tokio::test]
async fn a_response_without_a_length_streams_until_the_upstream_ends_it() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    for version in ["1.0", "1.1"] {
        let mut client = front.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server
            .send(format!("HTTP/{version} 200 OK\r\n\r\none"))
            .await;
        let response = client.head().await;
        assert_eq!(response.start, "HTTP/1.1 200 OK");
        assert_eq!(client.chunk().await, "one");
        server.send("two").await;
        assert_eq!(client.chunk().await, "two");
        drop(server);
        assert_eq!(
            client.chunked_body().await,
            "",
            "complete, because its end is all there is"
        );
    }
}

#[tokio::test]
async fn an_early_answer_to_an_upload_reaches_the_client() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: site\r\nContent-Length: 1000000\r\n\r\nthe beginning")
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\nContent-Length: 8\r\n\r\ntoo much").await;
    assert_eq!(client.head().await.status(), 413);
    assert_eq!(client.exactly(8).await, "too much");
}

#[tokio::test]
async fn a_slow_client_slows_the_upstream_down() {
    const OFFERED: usize = 256 * 1024 * 1024;
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {OFFERED}\r\n\r\n"
        ))
        .await;
    let taken = server
        .send_until_stuck(OFFERED, Duration::from_millis(300))
        .await;
    assert!(taken < OFFERED / 4, "{taken} bytes are buffered somewhere");
}

#[tokio::test]
async fn a_slow_upstream_slows_the_client_down() {
    const OFFERED: usize = 48 * 1024 * 1024;
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: site\r\nContent-Length: {OFFERED}\r\n\r\n"
        ))
        .await;
    let mut server = upstream.accept().await;
    server.head().await;
    let taken = client
        .send_until_stuck(OFFERED, Duration::from_millis(300))
        .await;
    assert!(taken < OFFERED / 2, "{taken} bytes are buffered somewhere");
}

/// A real server instead of a played one: what Node or hyper would make of the relay's requests.
async fn serve(router: Router) -> (std::net::SocketAddr, TaskTracker) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let tasks = TaskTracker::new();
    tasks.spawn(async move { axum::serve(listener, router).await });
    (address, tasks)
}

type Events = Arc<Mutex<mpsc::Receiver<&'static str>>>;

/// Server-sent events, written when the test says so.
async fn event_stream(State(source): State<Events>) -> Response {
    let stream = futures_util::stream::unfold(source, async |source| {
        let event = source.lock().await.recv().await?;
        Some((Ok::<_, Infallible>(event), source))
    });
    let body = Body::from_stream(stream);
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(body)
        .expect("a response")
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (events, source) = mpsc::channel(1);
    let router = Router::new()
        .route("/events", get(event_stream))
        .with_state(Arc::new(Mutex::new(source)));
    let (address, _upstream) = serve(router).await;
    let front = Front::of(address).await;
    let mut client = front.connect().await;
    client
        .send("GET /events HTTP/1.1\r\nHost: site\r\n\r\n")
        .await;
    assert_eq!(
        client.head().await.get("content-type"),
        Some("text/event-stream")
    );
    for event in [
        "id: 1\ndata: waking\n\n",
        ": still here\n\n",
        "id: 2\ndata: ready\n\n",
    ] {
        events.send(event).await.expect("somebody listens");
        assert_eq!(client.chunk().await, event, "at once, not with the next");
    }
    drop(events);
    assert_eq!(client.chunked_body().await, "");
}

#[tokio::test]
async fn megabytes_come_back_as_they_were_sent() {
    let router = Router::new().route(
        "/echo",
        post(async |request: axum::extract::Request| {
            Response::new(Body::from_stream(request.into_body().into_data_stream()))
        }),
    );
    let (address, _upstream) = serve(router).await;
    let front = Front::of(address).await;
    let sent: Vec<u8> = (0..8 * 1024 * 1024_u32)
        .map(|index| u8::try_from(index % 251).expect("small"))
        .collect();

    let upstream = plain(address);
    let pieces = sent
        .chunks(70_001)
        .map(|piece| Ok::<_, Infallible>(bytes::Bytes::copy_from_slice(piece)));
    let body = Body::from_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>()));
    let request = http::Request::post("/echo")
        .header("host", "site")
        .body(body)
        .expect("a request");
    let response = front
        .relay
        .forward(request, &upstream)
        .await
        .expect("an answer");
    let mut received = Vec::new();
    let mut stream = Body::new(response.into_body()).into_data_stream();
    while let Some(piece) = stream.next().await {
        received.extend_from_slice(&piece.expect("a piece"));
    }
    assert!(
        received == sent,
        "{} bytes of {}, or other ones",
        received.len(),
        sent.len()
    );
}

#[tokio::test]
async fn a_finished_response_leaves_both_connections_open() {
    let upstream = Upstream::listen().await;
    let front = Front::of(upstream.address).await;
    let mut client = front.connect().await;
    let mut server = None;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: site\r\n\r\n").await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(upstream.accept().await),
        };
        server.head().await;
        server
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
        client.head().await;
        assert_eq!(client.chunked_body().await, "ok");
    }
    client.finish_sending().await;
    assert_eq!(client.rest().await, (String::new(), End::Closed));
    upstream.nobody_else_came().await;
}
