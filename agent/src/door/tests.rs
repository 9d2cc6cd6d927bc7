//! The door as the router meets it: over HTTP, on a port of its own, with a small server in the site's place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response as HttpResponse;
use contract::proof::{HEADER, Nonce};
use contract::session::ProofKey;
use contract::{Generation, Timestamp};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use platform::local::{LocalStore, QueueSettings};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::*;
use crate::kinds::Kinds;
use crate::pipeline::Identity;

const EDIT_DOMAIN: &str = "edit.ameliastamps.com";
const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

fn proof(generation: u64) -> Proof {
    let key = ProofKey("5a".repeat(32));
    let session = "amelia_s1".parse().expect("an id");
    Proof::new(&key, session, Generation(generation)).expect("a key")
}

fn nonce() -> Nonce {
    Nonce::new([9; 16])
}

/// A door that runs, and what it is made of.
struct Scene {
    door: SocketAddr,
    activity: Activity,
    life: Pulse,
    pipeline: watch::Sender<PipelineView>,
    tasks: JoinSet<()>,
    closing: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn begin(proof: Option<Proof>) -> Self {
        let mut tasks = JoinSet::new();
        let site = Site::answering_at(site(&mut tasks).await);
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("state.db")).expect("a store");
        let (closing, activity) = (CancellationToken::new(), Activity::default());
        let (_, stage) = watch::channel(Stage::Serving { site });
        let (pipeline_view, pipeline) = watch::channel(PipelineView::default());
        let life = Pulse::default();
        let events = Events::new();
        let door = Door {
            isolation: Arc::default(),
            life: life.clone(),
            intake: Intake {
                identity: Identity {
                    client_id: "amelia".parse().expect("an id"),
                    session_id: "amelia_s1".parse().expect("an id"),
                    thread_id: "thread".parse().expect("an id"),
                    branch: "edit/thread".to_owned(),
                    preview_url: format!("https://{EDIT_DOMAIN}/"),
                },
                queue: Arc::new(store.queue("edits", QueueSettings::default())),
                receipts: store.receipts(),
                events: events.clone(),
                kinds: Kinds::default(),
            },
            stage,
            pipeline,
            seen_on: SeenOn::default(),
            events,
            visits: Visits::default(),
            opened: Opened::default(),
            hosts: Hosts {
                names: vec![EDIT_DOMAIN.to_owned()],
            },
            shown_root: folder.path().to_owned(),
            relay: Relay::new(relay::Settings::default()),
            bar: Some(Bar::new()),
            developer: false,
            proof,
            activity: activity.clone(),
            idle: None,
            closing: closing.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tasks.spawn(door.serve(listener));
        Self {
            door: address,
            activity,
            life,
            pipeline: pipeline_view,
            tasks,
            closing,
            _folder: folder,
        }
    }

    /// Asks, and reads the answer to its end.
    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (mut stream, mut answer) = self.open(method, path, headers, body, "close").await;
        stream.read_to_end(&mut answer.body).await.expect("an end");
        answer
    }

    /// Asks, and reads the head of the answer.
    async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        connection: &str,
    ) -> (TcpStream, Answer) {
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: {connection}\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str(&format!("Host: {EDIT_DOMAIN}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("\r\n{body}"));
        let mut stream = TcpStream::connect(self.door).await.expect("the door");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status: u16 = status.and_then(|code| code.parse().ok()).expect("a status");
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").expect("a header");
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers,
            body: Vec::new(),
        };
        (stream, answer)
    }

    async fn end(mut self) {
        self.closing.cancel();
        self.tasks.shutdown().await;
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Exactly one proof, and it is ours.
    fn is_proven(&self) -> bool {
        let proofs: Vec<&HeaderValue> = self.headers.get_all(HEADER).iter().collect();
        let [one] = proofs[..] else { return false };
        let one = one.to_str().expect("text");
        proof(3).verify_answer(one, nonce()).is_ok()
    }
}

/// A server in the site's place, which also pretends to prove something. `/echo` says what it was asked with.
async fn site(tasks: &mut JoinSet<()>) -> SocketAddr {
    let echo = |request: Request| async move {
        let mut said = format!("{}\n", request.uri());
        for (name, value) in request.headers() {
            said.push_str(&format!("{name}: {}\n", value.to_str().expect("text")));
        }
        said
    };
    let page = || async {
        let headers = [
            ("content-type", "text/html"),
            (HEADER, "v1 forged"),
            ("set-cookie", "__Host-edit-session=theirs; Path=/; Secure"),
        ];
        (headers, "<html><head></head><body>Stamps</body></html>").into_response()
    };
    let sockets = TaskTracker::new();
    let socket = move |mut request: Request| {
        let sockets = sockets.clone();
        async move {
            let upgrade = hyper::upgrade::on(&mut request);
            sockets.spawn(async move {
                let mut socket = TokioIo::new(upgrade.await.expect("a socket"));
                socket.write_all(b"hello").await.expect("taken");
            });
            let response = HttpResponse::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header(HEADER, "v1 forged");
            response.body(Body::empty()).expect("a response")
        }
    };
    let site = Router::new()
        .route("/", any(page))
        .route("/about/", any(page))
        .route("/echo", any(echo))
        .route("/socket", any(socket));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move {
        axum::serve(listener, site).await.expect("it serves");
    });
    address
}

#[tokio::test]
async fn a_loop_that_comes_round_no_more_is_unhealthy_though_the_port_answers() {
    let scene = Scene::begin(None).await;
    let health = async || {
        let answer = scene.ask("GET", "/_edit/health", &[], "").await;
        (answer.status.as_u16(), answer.text())
    };
    let well = r#"{"healthy":true,"life":"ok","pipeline":"ok"}"#.to_owned();
    assert_eq!(health().await, (200, well.clone()), "neither has begun");
    scene.life.beat();
    scene
        .pipeline
        .send_modify(|view| view.progressed = Some(Instant::now()));
    assert_eq!(health().await, (200, well.clone()));

    let long_ago = Instant::now().checked_sub(Duration::from_secs(61));
    let long_ago = long_ago.expect("this machine runs for longer");
    scene.life.beat_at(long_ago);
    let lost = r#"{"healthy":false,"life":"stuck","pipeline":"ok"}"#.to_owned();
    assert_eq!(health().await, (503, lost));
    scene.life.rest();
    assert_eq!(health().await, (200, well), "it is over, and not stuck");
    scene
        .pipeline
        .send_modify(|view| view.progressed = Some(long_ago));
    let stuck = r#"{"healthy":false,"life":"ok","pipeline":"stuck"}"#.to_owned();
    assert_eq!(health().await, (503, stuck));
}

#[tokio::test]
async fn only_the_router_is_answered() {
    let scene = Scene::begin(Some(proof(3))).await;
    let now = Timestamp::now();
    let other = proof(2).request(now, nonce());
    let ours = proof(3).request(now, nonce());
    for path in [
        "/",
        "/about/?a=1",
        "/socket",
        "/.git/config",
        "/_edit/",
        "/_edit/status",
        "/_edit/ready",
        "/_edit/events",
        "/_edit/instructions",
    ] {
        for proofs in [
            &[][..],
            &[(HEADER, other.as_str())],
            &[(HEADER, ours.as_str()), (HEADER, &ours)],
        ] {
            // Not even which hosts it has is told.
            for host in [EDIT_DOMAIN, "evil.example"] {
                let headers = [&[("host", host)], proofs].concat();
                let answer = scene.ask("GET", path, &headers, "").await;
                assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{path}");
                assert_eq!(answer.headers["cache-control"], "no-store");
                assert_eq!(answer.text(), "Only the router is answered here.\n");
                assert!(!answer.headers.contains_key(HEADER), "{path}");
            }
        }
    }
    let post = scene.ask("POST", "/_edit/instructions", &[], "[]").await;
    assert_eq!(post.status, StatusCode::MISDIRECTED_REQUEST);
    let health = scene.ask("GET", "/_edit/health", &[], "").await;
    assert_eq!(health.status, StatusCode::OK, "its own container may ask");
    assert!(!health.headers.contains_key(HEADER));
    scene.end().await;
}

#[tokio::test]
async fn every_answer_to_the_router_is_proven() {
    let scene = Scene::begin(Some(proof(3))).await;
    let ours = proof(3).request(Timestamp::now(), nonce());
    let asked = [(HEADER, ours.as_str())];
    for (path, expected) in [
        ("/", 200),
        ("/echo", 200),
        ("/missing", 404),
        ("/.git/config", 404),
        ("/_edit/health", 200),
        ("/_edit/status", 200),
        ("/_edit/bar.js", 200),
        ("/_edit/nothing", 404),
        ("/_edit/", 404),
    ] {
        let answer = scene.ask("GET", path, &asked, "").await;
        assert_eq!(answer.status, expected, "{path}");
        assert!(answer.is_proven(), "{path}: {:?}", answer.headers);
    }
    let foreign = [("host", "evil.example"), asked[0]];
    let answer = scene.ask("GET", "/", &foreign, "").await;
    assert_eq!(
        (answer.status, answer.is_proven()),
        (StatusCode::FORBIDDEN, true)
    );

    let (_, events) = scene
        .open("GET", "/_edit/events", &asked, "", "close")
        .await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert!(events.is_proven(), "before the first event");

    let handshake = [
        asked[0],
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "https://edit.ameliastamps.com"),
    ];
    let (mut socket, answer) = scene
        .open("GET", "/socket", &handshake, "", "upgrade")
        .await;
    assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS);
    assert!(answer.is_proven(), "{:?}", answer.headers);
    let mut hello = [0; 5];
    socket
        .read_exact(&mut hello)
        .await
        .expect("the socket carries");
    assert_eq!(&hello, b"hello");
    scene.end().await;
}

#[tokio::test]
async fn the_site_sees_the_visitor_and_not_the_proof() {
    let scene = Scene::begin(Some(proof(3))).await;
    let ours = proof(3).request(Timestamp::now(), nonce());
    let headers = [
        (HEADER, ours.as_str()),
        ("edit_proof", &ours),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("origin", "https://edit.ameliastamps.com"),
        ("cookie", "__Host-edit-session=secret; theme=dark"),
    ];
    let answer = scene.ask("POST", "/echo?a=1", &headers, "x=1").await;
    let said = answer.text();
    assert_eq!(answer.status, StatusCode::OK, "{said}");
    for line in [
        "x-forwarded-for: 203.0.113.7\n",
        "x-forwarded-proto: https\n",
        "x-forwarded-host: edit.ameliastamps.com\n",
        "cookie: theme=dark\n",
    ] {
        assert!(said.contains(line), "{line} {said}");
    }
    assert!(
        !said.contains("proof") && !said.contains("secret"),
        "{said}"
    );
    // What the dev server makes of its own host, so that it takes its own forms.
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    let origin = said.lines().find_map(|line| line.strip_prefix("origin: "));
    assert_eq!(origin, host.map(|host| format!("http://{host}")).as_deref());

    let page = scene.ask("GET", "/", &headers[..1], "").await;
    assert!(
        !page.headers.contains_key("set-cookie"),
        "{:?}",
        page.headers
    );
    let insecure = [
        headers[0],
        headers[3],
        ("origin", "http://edit.ameliastamps.com"),
    ];
    let answer = scene.ask("POST", "/echo", &insecure, "x=1").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    scene.end().await;
}

#[tokio::test]
async fn a_developers_door_asks_for_nothing_and_believes_nobody() {
    let scene = Scene::begin(None).await;
    let headers = [
        (HEADER, "v1 anything"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
    ];
    let answer = scene.ask("GET", "/echo", &headers, "").await;
    assert_eq!(answer.status, StatusCode::OK);
    let said = answer.text();
    assert!(said.contains("x-forwarded-for: 127.0.0.1\n"), "{said}");
    assert!(said.contains("x-forwarded-proto: http\n"), "{said}");
    assert!(!said.contains("proof"), "{said}");
    let page = scene.ask("GET", "/", &[], "").await;
    assert!(!page.headers.contains_key(HEADER), "{:?}", page.headers);
    scene.end().await;
}

#[tokio::test]
async fn what_a_person_opens_counts_and_what_machines_ask_for_does_not() {
    let scene = Scene::begin(None).await;
    let navigation = [
        ("user-agent", CHROME),
        ("accept", "text/html,*/*;q=0.8"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-site", "none"),
    ];
    let and = |more: (&'static str, &'static str)| [&navigation[..], &[more]].concat();
    let nobody = [("user-agent", "curl/8.14"), ("accept", "text/html")];
    for (method, path, headers) in [
        ("GET", "/_edit/health", &navigation[..]),
        ("GET", "/_edit/status", &navigation),
        ("GET", "/_edit/bar.js", &navigation),
        // What is no page, and what is not there.
        ("GET", "/echo", &navigation),
        ("GET", "/missing/", &navigation),
        ("HEAD", "/", &navigation),
        ("GET", "/", &and(("sec-purpose", "prefetch"))),
        ("GET", "/", &nobody),
        (
            "GET",
            "/",
            &[
                ("user-agent", CHROME),
                ("accept", "*/*"),
                ("sec-fetch-mode", "cors"),
            ],
        ),
    ] {
        scene.ask(method, path, headers, "").await;
        assert_eq!(
            scene.activity.last().activity(),
            None,
            "{method} {path} {headers:?}"
        );
    }
    let page = scene
        .ask("GET", "/about/?token=secret", &navigation, "")
        .await;
    assert_eq!(page.status, StatusCode::OK);
    let seen = scene
        .activity
        .last()
        .navigation
        .expect("somebody was there");
    assert_eq!(&*seen.path, "/about/", "without the query");
    let status = scene.ask("GET", "/_edit/status", &[], "").await.text();
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["lastActivityAt"], seen.at.at.to_string());
    assert_eq!(
        status["awake"],
        serde_json::json!([{ "reason": "developer" }])
    );
    scene.end().await;
}

#[tokio::test]
async fn presence_is_taken_from_our_own_pages_only() {
    let scene = Scene::begin(None).await;
    let here = format!("https://{EDIT_DOMAIN}");
    let own = [("origin", here.as_str()), ("sec-fetch-site", "same-origin")];
    let used = r#"{"visible": true, "used": true}"#;
    let long = format!("{used}{}", " ".repeat(1024));
    let cases = [
        (&own[..], r#"{"visible": true, "used": false}"#, 204),
        (&own, r#"{"visible": false, "used": true}"#, 204),
        (&own, r#"{"visible": true}"#, 400),
        (&own, "true", 400),
        (&own, "", 400),
        (&own, &long, 400),
        (&[], used, 403),
        (&[("sec-fetch-site", "none")], used, 403),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("origin", "https://evil.example"),
            ],
            used,
            403,
        ),
        (&[("origin", "https://evil.example")], used, 403),
        (&[("origin", "null")], used, 403),
    ];
    for (headers, body, expected) in cases {
        let answer = scene.ask("POST", "/_edit/presence", headers, body).await;
        assert_eq!(answer.status, expected, "{headers:?} {body}");
        assert_eq!(scene.activity.last().presence, None, "{headers:?} {body}");
    }
    let read = scene.ask("GET", "/_edit/presence", &own, "").await;
    assert_eq!(read.status, StatusCode::METHOD_NOT_ALLOWED);
    // A browser that says nothing of where it asks from names the page's origin all the same.
    for headers in [&own[..], &own[..1]] {
        let answer = scene.ask("POST", "/_edit/presence", headers, used).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    assert!(scene.activity.last().presence.is_some());
    scene.end().await;
}
