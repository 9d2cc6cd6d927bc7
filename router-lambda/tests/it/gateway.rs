//! What visitors get through the gateway, and what doors hear of them.
#![allow(
    clippy::similar_names,
    reason = "a head, what was heard, a door and what it is asked are called what they are"
)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::support::door::{Door, Manner, Who};
use crate::support::table::{NOTHING, Served, UNPROVEN, UNREACHABLE};
use crate::support::wire::{End, Wire, eventually, within};

const HOST: &str = "edit.amelia.example";
/// A whole id: nothing of it but its first eight characters may be in a log.
const SECRET: &str = "abcdefghijklmnopqrstuvwxyz";

const HANDSHAKE: &str = "GET /?token=abc HTTP/1.1\r\nHost: edit.amelia.example\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The door's first word in a socket.
const HELLO: &str = "\u{1}\u{6}amelia";

fn amelia() -> Who {
    Who::new("amelia", 1)
}

/// A gateway that knows one door.
async fn before(door: &Door) -> Served {
    let served = Served::new().await;
    served.table.leads(HOST, amelia().at(door.address));
    served
}

/// An open socket.
async fn socket(served: &Served) -> Wire {
    let mut wire = served.connect().await;
    wire.send(HANDSHAKE).await;
    assert_eq!(wire.head().await.status(), 101);
    assert_eq!(wire.exactly(HELLO.len()).await, HELLO);
    wire
}

fn going_away() -> String {
    String::from_utf8_lossy(&[0x88, 2, 0x03, 0xe9]).into_owned()
}

#[tokio::test]
async fn a_page_comes_from_its_door_and_shows_no_proof() {
    let door = Door::of(&amelia()).await;
    let served = before(&door).await;
    let (head, body) = served
        .asked(&format!(
            "GET /@vite/client?raw&x= HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nCookie: theme=dark; __Host-edit-session=amelia_{SECRET}\r\n\
             X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nEdit-Proof: v1 mine\r\nEdit_Proof: v1 mine\r\n\r\n",
        ))
        .await;
    assert_eq!((head.status(), body), (200, amelia().page()));
    assert_eq!(head.get("edit-proof"), None);

    let requests = door.heard();
    assert_eq!(door.lines(), ["GET /@vite/client?raw&x= HTTP/1.1"]);
    let one = |name| requests[0].one(name);
    assert_eq!(one("host"), Some(HOST));
    assert_eq!(one("cookie"), Some("theme=dark"));
    assert_eq!(one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(one("x-forwarded-proto"), Some("http"));
    assert!(one("edit-proof").is_some_and(|proof| proof.starts_with("v1 1 ")));
    assert_eq!(one("edit_proof"), None);
}

#[tokio::test]
async fn nothing_of_an_answer_without_its_proof_is_passed_on() {
    for manner in [
        Manner::Unproven,
        Manner::UnprovenLater,
        Manner::Twice,
        Manner::Nominated,
        Manner::Replayed,
    ] {
        let door = Door::with(&amelia(), manner).await;
        let served = before(&door).await;
        let (head, body) = served.get(HOST, "/").await;
        assert_eq!(
            (head.status(), body.as_str()),
            (503, UNPROVEN),
            "{manner:?}"
        );
        assert_eq!(head.get("content-type"), None, "{manner:?}");
    }
    // A door of somebody else, which does not know the key, and one of an earlier generation.
    for who in [Who::new("bertram", 1), Who::new("amelia", 2)] {
        let door = Door::of(&who).await;
        let served = before(&door).await;
        let (head, body) = served.get(HOST, "/").await;
        assert_eq!((head.status(), body.as_str()), (503, UNPROVEN), "{who:?}");
    }
}

#[tokio::test]
async fn a_door_that_answers_no_http_or_not_at_all_is_unreachable() {
    for manner in [Manner::Garbage, Manner::Silent, Manner::Hangs] {
        let door = Door::with(&amelia(), manner).await;
        let served = Served::with(|settings| {
            settings.relay.response_head_timeout = Some(Duration::from_millis(200));
        })
        .await;
        served.table.leads(HOST, amelia().at(door.address));
        let (head, body) = served.get(HOST, "/").await;
        assert_eq!(
            (head.status(), body.as_str()),
            (502, UNREACHABLE),
            "{manner:?}"
        );
    }
    let door = Door::of(&amelia()).await;
    let address = door.address;
    drop(door);
    let served = Served::new().await;
    served.table.leads(HOST, amelia().at(address));
    eventually_unreachable(&served).await;
}

/// A listener that was closed may still take a connection or two.
async fn eventually_unreachable(served: &Served) {
    within("an answer of the router", async {
        while served.get(HOST, "/").await.1 != UNREACHABLE {}
    })
    .await;
}

#[tokio::test]
async fn half_a_page_does_not_look_like_a_page() {
    let door = Door::with(&amelia(), Manner::HalfAPage).await;
    let served = before(&door).await;
    let mut visitor = served.connect().await;
    visitor
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(visitor.head().await.status(), 200);
    let half = visitor.chunk().await;
    assert!(amelia().page().starts_with(&half) && !half.is_empty());
    door.goes_on();
    let (rest, _) = visitor.rest().await;
    assert!(
        !rest.contains("\r\n0\r\n"),
        "the body came to an end: {rest}"
    );
}

#[tokio::test]
async fn an_upload_is_not_sent_to_whoever_is_there() {
    let secret = "a photograph";
    let upload = format!(
        "POST /_edit/instructions HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{secret}",
        secret.len()
    );
    for (who, manner) in [
        (amelia(), Manner::Unproven),
        (Who::new("bertram", 1), Manner::Honest),
    ] {
        let door = Door::with(&who, manner).await;
        let served = before(&door).await;
        let (head, body) = served.asked(&upload).await;
        assert_eq!(
            (head.status(), body.as_str()),
            (503, UNPROVEN),
            "{manner:?}"
        );
        assert_eq!(door.lines(), ["GET /_edit/ready HTTP/1.1"], "{manner:?}");
    }

    let door = Door::of(&amelia()).await;
    let served = before(&door).await;
    let (head, body) = served.asked(&upload).await;
    assert_eq!((head.status(), body), (200, amelia().page()));
    let requests = door.heard();
    assert_eq!(
        door.lines(),
        [
            "GET /_edit/ready HTTP/1.1",
            "POST /_edit/instructions HTTP/1.1"
        ]
    );
    assert_eq!(requests[1].body, secret);
    assert_eq!(requests[0].one("cookie"), None);
}

#[tokio::test]
async fn an_upload_that_is_too_large_is_refused_with_a_sentence() {
    let door = Door::of(&amelia()).await;
    let served = Served::with(|settings| settings.relay.request_body_max = Some(10)).await;
    served.table.leads(HOST, amelia().at(door.address));
    for framed in [
        "Content-Length: 20\r\n\r\n01234567890123456789",
        "Transfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n",
    ] {
        let (head, body) = served
            .asked(&format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{framed}"
            ))
            .await;
        assert_eq!(
            (head.status(), body.as_str()),
            (413, "The body of the request is too large.\n"),
            "{framed}"
        );
    }
}

#[tokio::test]
async fn a_socket_leads_to_its_door_and_no_other() {
    let door = Door::of(&amelia()).await;
    let served = before(&door).await;
    let mut visitor = socket(&served).await;
    visitor.send("said by the visitor").await;
    visitor.finish_sending().await;
    visitor.is_gone().await;
    eventually("what was said", || {
        door.lines().contains(&"SOCKET".to_owned())
    })
    .await;
    let heard = door.heard();
    assert_eq!(heard[2].body, "said by the visitor");
    assert_eq!(heard[0].line, "GET /_edit/ready HTTP/1.1");
    assert_eq!(heard[1].one("upgrade"), Some("websocket"));
    assert_eq!(heard[1].one("host"), Some(HOST));

    for (manner, lines) in [
        (Manner::Unproven, &["GET /_edit/ready HTTP/1.1"][..]),
        (
            Manner::UnprovenLater,
            &[
                "GET /_edit/ready HTTP/1.1",
                "GET /?token=abc HTTP/1.1",
                "SOCKET",
            ],
        ),
    ] {
        let door = Door::with(&amelia(), manner).await;
        let served = before(&door).await;
        let mut visitor = served.connect().await;
        visitor.send(HANDSHAKE).await;
        assert_eq!(visitor.head().await.status(), 503, "{manner:?}");
        assert_eq!(visitor.exactly(UNPROVEN.len()).await, UNPROVEN);
        eventually("the end of what was asked", || door.lines() == lines).await;
        visitor.finish_sending().await;
        assert_eq!(visitor.rest().await.0, "", "no byte of the door's");
        let silent = door.heard().iter().all(|heard| heard.body.is_empty());
        assert!(silent, "nothing was said into it: {:?}", door.heard());
    }
}

#[tokio::test]
async fn a_socket_of_a_session_that_has_ended_is_closed() {
    let door = Door::of(&amelia()).await;
    let served = Served::with(|settings| settings.look_again = Duration::from_millis(50)).await;
    served.table.leads(HOST, amelia().at(door.address));
    let mut visitor = socket(&served).await;
    // Looked at several times, and kept.
    for word in 0..3 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        visitor.send(word.to_string()).await;
    }
    eventually("what is said", || door.said() == "012").await;
    served.table.all_have_ended();
    visitor.is_gone().await;
    eventually("what was said", || {
        door.lines().contains(&"SOCKET".to_owned())
    })
    .await;
    assert_eq!(door.heard()[2].body, "012");
}

#[tokio::test]
async fn a_session_has_only_so_many_sockets() {
    let door = Door::of(&amelia()).await;
    let served = Served::with(|settings| settings.sockets_per_session_max = 2).await;
    served.table.leads(HOST, amelia().at(door.address));
    let (first, _second) = (socket(&served).await, socket(&served).await);
    let mut third = served.connect().await;
    third.send(HANDSHAKE).await;
    let head = third.head().await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (503, Some("close"))
    );
    let words = "Too many sockets are open already. Close other tabs of this page.\n";
    assert_eq!(third.rest().await.0, words);
    drop(first);
    within("a place", async {
        loop {
            let mut wire = served.connect().await;
            wire.send(HANDSHAKE).await;
            if wire.head().await.status() == 101 {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_answered_by_nobody() {
    let door = Door::of(&amelia()).await;
    let served = before(&door).await;
    let giant = "x".repeat(70_000);
    let many = (0..101).fold(String::new(), |all, number| {
        format!("{all}X-{number}: 1\r\n")
    });
    for (request, expected) in [
        (
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            200,
        ),
        (
            format!("GET http://edit.bertram.example/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: edit.bertram.example\r\n\r\n"),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"),
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: user@{HOST}\r\n\r\n"), 400),
        (format!("OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
        (
            format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            405,
        ),
        (
            format!("GET /{giant} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            414,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {giant}\r\n\r\n"),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{many}\r\n"), 431),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12"
            ),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: +1\r\n\r\n1"),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: gzip\r\n\r\n"),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX : 1\r\n\r\n"),
            400,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: 1\0\r\n\r\n"),
            400,
        ),
        (format!("GET /\0 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
        (format!("GET / x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
    ] {
        let shown: String = request.chars().take(80).collect();
        let mut visitor = served.connect().await;
        visitor.send(&request).await;
        let head = visitor.head().await;
        assert_eq!(head.status(), expected, "{shown:?}");
        if expected != 200 {
            assert_eq!(head.get("connection"), Some("close"), "{shown:?}");
        }
    }
    // What begins as HTTP/2 would understand no answer.
    let mut visitor = served.connect().await;
    visitor.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    visitor.is_gone().await;
    assert_eq!(
        door.lines(),
        ["GET / HTTP/1.1"],
        "only the first one came to the door"
    );
}

#[tokio::test]
async fn a_head_that_does_not_come_to_an_end_is_answered_408() {
    let served = Served::with(|settings| settings.head_timeout = Duration::from_millis(200)).await;
    let mut visitor = served.connect().await;
    visitor.send("GET / HTTP/1.1\r\nHost: ").await;
    let head = visitor.head().await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (408, Some("close"))
    );
    assert_eq!(visitor.rest().await, (String::new(), End::Closed));

    // Byte by byte is no faster.
    let mut visitor = served.connect().await;
    let mut drips = tokio::time::interval(Duration::from_millis(20));
    let head = loop {
        tokio::select! {
            head = visitor.head() => break head,
            _ = drips.tick() => {}
        }
        visitor.send("G").await;
    };
    assert_eq!(head.status(), 408);
}

#[tokio::test]
async fn a_quiet_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let door = Door::of(&amelia()).await;
    let served = Served::with(|settings| {
        settings.quiet_timeout = Duration::from_millis(200);
        settings.head_timeout = Duration::from_millis(200);
    })
    .await;
    served.table.leads(HOST, amelia().at(door.address));
    let mut visitor = served.connect().await;
    visitor
        .send(format!("GET /later HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    let head = visitor.head().await;
    assert_eq!(head.status(), 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    door.goes_on();
    let page = amelia().page();
    assert_eq!(visitor.exactly(page.len()).await, page);
    assert_eq!(
        visitor.rest().await,
        (String::new(), End::Closed),
        "after a while"
    );
}

#[tokio::test]
async fn whoever_comes_when_all_places_are_taken_is_told_so() {
    let served = Served::with(|settings| settings.connections_max = 1).await;
    let mut first = served.connect().await;
    first.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").await;
    assert_eq!(first.head().await.status(), 404);
    assert_eq!(first.exactly(NOTHING.len()).await, NOTHING);
    let (head, body) = served.get("nobody", "/").await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (503, Some("close"))
    );
    assert_eq!(body, "Too many visitors. Come again in a moment.\n");
    drop(first);
    within("a place", async {
        while served.get("nobody", "/").await.0.status() != 404 {}
    })
    .await;
}

#[tokio::test]
async fn what_a_visitor_says_of_itself_is_believed_only_if_a_trusted_hop_says_it() {
    let claims = "GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 10.0.0.1, 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n";
    let served = Served::new().await;
    assert_eq!(served.asked(claims).await.1, "Some(127.0.0.1) http\n");
    let served = Served::with(|settings| {
        settings.trusted_hops = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    assert_eq!(served.asked(claims).await.1, "Some(203.0.113.9) https\n");
}

#[tokio::test]
async fn a_load_balancer_is_told_that_the_gateway_is_well() {
    let served = Served::new().await;
    let host = served.address.to_string();
    let (head, body) = served.get(&host, "/_edit/health").await;
    assert_eq!((head.status(), body.as_str()), (200, "ok\n"));
    let (head, body) = served.get("edit.nobody.example", "/_edit/health").await;
    assert_eq!(
        (head.status(), body.as_str()),
        (404, NOTHING),
        "a client's is its door's"
    );
}

#[tokio::test]
async fn stopping_lets_what_is_under_way_come_to_its_end() {
    let door = Door::of(&amelia()).await;
    let served = before(&door).await;
    let mut quiet = served.connect().await;
    quiet.send("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").await;
    assert_eq!(quiet.head().await.get("connection"), None);
    assert_eq!(quiet.exactly(NOTHING.len()).await, NOTHING);
    let mut sockets = socket(&served).await;
    let mut under_way = served.connect().await;
    under_way
        .send(format!("GET /later HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(under_way.head().await.status(), 200);

    served.stops();
    assert_eq!(quiet.rest().await, (String::new(), End::Closed));
    assert_eq!(sockets.rest().await, (going_away(), End::Closed));
    let address = served.address;
    door.goes_on();
    assert_eq!(under_way.rest().await, (amelia().page(), End::Closed));
    assert_eq!(served.stopped().await.connections_cut, 0);
    tokio::net::TcpStream::connect(address)
        .await
        .expect_err("nobody listens any more");
}

#[tokio::test]
async fn what_does_not_come_to_its_end_is_cut() {
    let door = Door::of(&amelia()).await;
    let served = Served::with(|settings| settings.drain = Duration::from_millis(200)).await;
    served.table.leads(HOST, amelia().at(door.address));
    let mut under_way = served.connect().await;
    under_way
        .send(format!("GET /later HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(under_way.head().await.status(), 200);
    assert_eq!(served.stopped().await.connections_cut, 1);
    let (rest, _) = under_way.rest().await;
    assert!(rest.len() < amelia().page().len());
}

#[tokio::test]
async fn a_request_makes_one_line_that_opens_nothing() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .without_time()
        .with_writer(log.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let door = Door::of(&amelia()).await;
    let served = before(&door).await;
    let (head, _) = served
        .asked(&format!(
            "GET /about?t={SECRET} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nCookie: __Host-edit-session=amelia_{SECRET}\r\n\r\n"
        ))
        .await;
    assert_eq!(head.status(), 200);
    served
        .get("nobody", &format!("/session/amelia_{SECRET}/"))
        .await;
    served.get(&format!("{SECRET}--amelia.example"), "/").await;
    let mut refused = served.connect().await;
    refused.send("GET / HTTP/1.1\r\n\r\n").await;
    refused.rest().await;

    let text = log.text();
    assert!(!text.contains(SECRET), "{text}");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &serde_json::Value| line["target"] == "access")
        .map(|mut line| {
            line["ms"] = "some".into();
            line
        })
        .collect();
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"bytes":1400,"client":"amelia","host":"edit.amelia.example","level":"INFO","method":"GET","ms":"some","path":"/about","session":"aha4dqob","status":200,"target":"access","why":""}
    {"bytes":25,"client":"","host":"nobody","level":"INFO","method":"GET","ms":"some","path":"/session/abcdefgh…/","session":"","status":404,"target":"access","why":""}
    {"bytes":25,"client":"","host":"abcdefgh…--amelia.example","level":"INFO","method":"GET","ms":"some","path":"/","session":"","status":404,"target":"access","why":""}
    {"bytes":34,"client":"","host":"","level":"INFO","method":"GET","ms":"some","path":"/","session":"","status":400,"target":"access","why":"A request names exactly one host."}
    "#);
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("whole").clone()).expect("text")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
