//! The function behind a load balancer, without a gateway: what a visitor gets of a session's site, and what nobody gets.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::proof::Proof;
use contract::session::{ProofKey, SiteHealth, Transition};
use contract::{ClientConfig, Generation, Session, SessionId, Timestamp};
use edit_router::assembly::{Assembly, Pace, Ports};
use edit_router::lambda::{Front, Function};
use edit_router::link::LinkKeys;
use edit_router::policy::{Policy, Public};
use platform::local::{LocalStore, QueueSettings};
use platform::{LaunchFailed, Launcher, Order, PortError, Sessions, Task};
use relay::Proto;
use serde_json::{Value, json};

use crate::alb_events::corpus;
use crate::support::alb::{Alb, Invoke, Manner};
use crate::support::http::{Answer, ask};
use crate::support::scribe::{Answers, Asked, Door, Proves};

pub const HOST: &str = "edit.amelia.example.com";
pub const ID: &str = "amelia_a";
/// More than any of these stories takes, and less than anybody would wait for.
const TIME: Duration = Duration::from_secs(20);
pub const MULTI: Manner = Manner {
    multi_value: true,
    https: true,
};
const SINGLE: Manner = Manner {
    multi_value: false,
    https: true,
};

/// Nothing is launched in these stories.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Launcher for Nobody {
    async fn launch(&self, _: &Order) -> Result<Task, LaunchFailed> {
        Err(LaunchFailed::Refused {
            reason: "nothing is launched here".to_owned(),
        })
    }

    async fn task(&self, _: &SessionId, _: Generation) -> Result<Option<Task>, PortError> {
        Ok(None)
    }

    async fn running(&self) -> Result<Vec<Task>, PortError> {
        Ok(Vec::new())
    }

    async fn stop(&self, _: &str, _: &str) -> Result<(), PortError> {
        Ok(())
    }
}

/// One client, one session that is awake, and its door.
struct Town {
    _folder: tempfile::TempDir,
    function: Arc<Function>,
    door: Door,
}

fn key(digits: &str) -> ProofKey {
    ProofKey(digits.repeat(32))
}

pub fn proof(digits: &str) -> Proof {
    let id: SessionId = ID.parse().expect("an id");
    Proof::new(&key(digits), id, Generation(1)).expect("a key")
}

impl Town {
    async fn with(proves: Proves, answers: Answers) -> Self {
        Self::new(proves, answers, true).await
    }

    async fn new(proves: Proves, answers: Answers, forwards: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("store")).expect("a store");
        let config = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../fixtures/clients/amelia.json"
        ));
        let config: ClientConfig =
            serde_json::from_str(&config.expect("a configuration")).expect("a configuration");
        store.clients().put(&config).await.expect("put");
        let door = Door::open(proof("5a"), proves, answers).await;
        awake(&*store.sessions(), &door).await;
        let ports = Ports {
            clients: store.clients(),
            sessions: store.sessions(),
            receipts: store.receipts(),
            queues: store.queues("dead"),
            launcher: Arc::new(Nobody),
            dead: Arc::new(store.queue("dead", QueueSettings::default())),
        };
        let policy = Policy {
            edit_domain: "example.com".to_owned(),
            preview_domain: None,
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            door_port: None,
            public: Public {
                proto: Proto::Https,
                port: None,
            },
        };
        let keys: LinkKeys = format!("a:{}", "0b".repeat(32)).parse().expect("a key");
        let pace = Pace {
            fresh: Duration::from_secs(1),
            claimed_within: Duration::from_secs(60),
            hold: Duration::ZERO,
        };
        let function = Arc::new(Function::new(Front {
            rooms: Assembly::new(&ports, &policy, keys, &pace),
            forwards,
            embedded: None,
        }));
        Self {
            _folder: folder,
            function,
            door,
        }
    }

    fn invoke(&self) -> Invoke {
        let function = Arc::clone(&self.function);
        Arc::new(move |event| {
            let function = Arc::clone(&function);
            let runtime = tokio::runtime::Handle::current();
            // A runtime of Lambda waits for one answer at a time, and what it waits for need not be sendable.
            let answered = tokio::task::spawn_blocking(move || {
                runtime.block_on(async {
                    function
                        .answer(event.as_bytes(), TIME)
                        .await
                        .map_err(|error| error.to_string())
                })
            });
            Box::pin(async move { answered.await.expect("it does not panic") })
        })
    }

    async fn behind(&self, manner: Manner) -> Alb {
        Alb::start(manner, self.invoke()).await
    }
}

/// A session that is ready at this door.
pub async fn awake(sessions: &dyn Sessions, door: &Door) {
    let now = Timestamp::now();
    let lease_until = now.plus(Duration::from_secs(3600));
    let id: SessionId = ID.parse().expect("an id");
    let session = Session::new(
        id.clone(),
        "amelia".parse().expect("an id"),
        "thread".parse().expect("an id"),
        "amelia".to_owned(),
        now,
    );
    sessions.create(&session).await.expect("created");
    let steps = [
        Transition::Wake {
            seen: Generation(0),
            proof_key: key("5a"),
            lease_until,
        },
        Transition::Claim {
            task: "task".to_owned(),
            lease_until,
        },
        Transition::Register {
            ip: door.address().ip().to_string(),
            port: door.address().port(),
            site: SiteHealth::Ok,
            isolation: None,
            lease_until,
        },
    ];
    for step in steps {
        let taken = sessions.transition(&id, Generation(1), &step, 2, now).await;
        taken.expect("answered").expect("taken");
    }
}

pub fn always(answer: &[u8]) -> Answers {
    let answer = answer.to_vec();
    Arc::new(move |_| answer.clone())
}

pub fn page(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub async fn get(alb: &Alb, target: &str, more: &str) -> Answer {
    let fields = format!("cookie: theme=dark; __Host-edit-session={ID}\r\n{more}");
    ask(alb.address(), HOST, "GET", target, &fields, b"").await
}

#[tokio::test]
async fn a_page_comes_through_a_load_balancer_as_the_door_gave_it() {
    let fields =
        "content-type: text/html\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nvary: origin\r\n";
    let town = Town::with(
        Proves::Well(proof("5a")),
        always(&page(fields, "<p>ü</p>".as_bytes())),
    )
    .await;
    for manner in [MULTI, SINGLE] {
        let alb = town.behind(manner).await;
        let answer = get(
            &alb,
            "/about?raw",
            "x-forwarded-for: 10.9.9.9\r\nedit-proof: v1 forged\r\nx-real-ip: 1.2.3.4\r\n",
        )
        .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), "<p>ü</p>");
        let mut cookies = answer.all("set-cookie");
        cookies.sort_unstable();
        assert_eq!(
            cookies,
            ["a=1", "b=2"],
            "all values: {}",
            manner.multi_value
        );
        assert_eq!(
            answer.one("edit-proof"),
            None,
            "a proof is nobody else's business"
        );
        let asked = town.door.asked();
        let [
            Asked {
                line,
                fields,
                proven,
                ..
            },
        ] = &asked[..]
        else {
            panic!("{asked:?}");
        };
        assert_eq!(line, "GET /about?raw HTTP/1.1");
        assert!(proven);
        let has = |field: &str| fields.iter().any(|line| line == field);
        assert!(has("cookie: theme=dark"), "{fields:?}");
        assert!(
            has("x-forwarded-for: 127.0.0.1")
                && has("x-forwarded-proto: https")
                && has(&format!("host: {HOST}")),
            "{fields:?}"
        );
        assert!(
            !fields.iter().any(|line| line.contains("edit-session")
                || line.contains("10.9.9.9")
                || line.contains("1.2.3.4")),
            "{fields:?}"
        );
    }
}

/// Whoever got the address after the container was gone may be another client's environment.
#[tokio::test]
async fn bytes_of_whoever_is_not_the_door_reach_nobody() {
    for proves in [Proves::Not, Proves::As(proof("77"))] {
        let town = Town::with(
            proves.clone(),
            always(&page(
                "content-type: text/html\r\nset-cookie: stolen=1\r\n",
                b"another client's draft",
            )),
        )
        .await;
        let alb = town.behind(MULTI).await;
        for _ in 0..3 {
            let answer = get(&alb, "/", "accept: text/html\r\n").await;
            assert_eq!(answer.status, 503, "{proves:?}");
            assert!(!answer.text().contains("another client"), "{proves:?}");
            assert_eq!(answer.one("set-cookie"), None, "{proves:?}");
            assert!(answer.text().contains("Amelia"), "{}", answer.text());
        }
        assert_eq!(
            town.door.asked().len(),
            1,
            "who is not the door is not asked again and again"
        );
    }
}

#[tokio::test]
async fn large_files_pass_if_they_compress_and_are_told_of_if_they_do_not() {
    let program: Vec<u8> = (0..90_000)
        .flat_map(|number| format!("export const n{number} = {number};\n").into_bytes())
        .collect();
    let mut picture = vec![0; 900_000];
    getrandom::fill(&mut picture).expect("random bytes");
    let (script, webp) = (
        page("content-type: text/javascript\r\n", &program),
        page("content-type: image/webp\r\n", &picture),
    );
    let endless = page("content-type: video/mp4\r\n", &vec![7; 14 * 1024 * 1024]);
    let answers: Answers = Arc::new(move |path| match path {
        "/three.js" => script.clone(),
        "/album.webp" => webp.clone(),
        _ => endless.clone(),
    });
    let town = Town::with(Proves::Well(proof("5a")), answers).await;
    let alb = town.behind(MULTI).await;

    let answer = get(&alb, "/three.js", "accept-encoding: gzip, br\r\n").await;
    assert_eq!(
        (answer.status, answer.one("content-encoding")),
        (200, Some("gzip"))
    );
    assert_eq!(answer.unzipped(), program);

    for target in ["/album.webp", "/film.mp4"] {
        let answer = get(&alb, target, "accept-encoding: gzip, br\r\n").await;
        assert_eq!(answer.status, 507, "{target}");
        let person = get(
            &alb,
            target,
            "accept: text/html\r\nsec-fetch-mode: navigate\r\n",
        )
        .await;
        assert_eq!(person.status, 507, "{target}");
        assert!(person.text().contains("<h1>"), "{}", person.text());
    }
}

#[tokio::test]
async fn what_a_function_cannot_carry_has_something_in_its_place() {
    let town = Town::with(
        Proves::Well(proof("5a")),
        always(&page("content-type: text/event-stream\r\n", b"data: 1\n\n")),
    )
    .await;
    let alb = town.behind(MULTI).await;
    // A browser does not ask again after this.
    assert_eq!(
        get(
            &alb,
            "/_edit/events?after=3",
            "accept: text/event-stream\r\n"
        )
        .await
        .status,
        204
    );
    let client = get(&alb, "/@vite/client", "").await;
    assert_eq!(
        (client.status, client.one("content-type")),
        (200, Some("text/javascript; charset=utf-8"))
    );
    assert!(client.text().contains("export function updateStyle"));
    assert!(town.door.asked().is_empty());
    // A load balancer does not even pass it on.
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let before = alb.invoked();
    assert_eq!(get(&alb, "/", upgrade).await.status, 400);
    assert_eq!(alb.invoked(), before);
    // Who has no session gets none of it.
    let stranger = ask(alb.address(), HOST, "GET", "/@vite/client", "", b"").await;
    assert_eq!(stranger.status, 404);
}

#[tokio::test]
async fn whoever_hangs_or_breaks_off_is_not_waited_for_for_ever() {
    let answers: Answers = Arc::new(|path| {
        match path {
        "/hangs" => Vec::new(),
        "/breaks-off" => b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 1000\r\n\r\n<p>the beginning".to_vec(),
        _ => b"\x16\x03\x01\r\nnonsense\r\n\r\n".to_vec(),
    }
    });
    let town = Town::with(Proves::Well(proof("5a")), answers).await;
    let event = |path: &str| {
        json!({
            "requestContext": { "elb": {} }, "httpMethod": "GET", "path": path, "body": "", "isBase64Encoded": false,
            "headers": { "host": HOST, "x-forwarded-proto": "https", "cookie": format!("__Host-edit-session={ID}") },
        })
        .to_string()
    };
    for (path, status) in [("/hangs", 504), ("/breaks-off", 502), ("/nonsense", 502)] {
        let answer = town
            .function
            .answer(event(path).as_bytes(), Duration::from_secs(1))
            .await;
        let answer: Value = serde_json::from_str(&answer.expect("answered")).expect("JSON");
        assert_eq!(answer["statusCode"], status, "{path}");
        assert!(
            !answer.to_string().contains("the beginning"),
            "half a page looks like a page"
        );
    }
}

#[tokio::test]
async fn beside_a_gateway_no_byte_of_a_site_comes_this_way() {
    let town = Town::new(
        Proves::Well(proof("5a")),
        always(&page("", b"a page")),
        false,
    )
    .await;
    let alb = town.behind(MULTI).await;
    let answer = get(&alb, "/", "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("wrong target"), "{}", answer.text());
    assert!(town.door.asked().is_empty());
    let entry = ask(
        alb.address(),
        HOST,
        "GET",
        &format!("/session/{ID}/about?raw"),
        "",
        b"",
    )
    .await;
    assert_eq!(
        (entry.status, entry.one("location")),
        (303, Some("/about?raw"))
    );
}

#[tokio::test]
async fn checks_messages_and_schedules_are_answered_in_their_own_way() {
    let town = Town::with(Proves::Not, always(b"")).await;
    let answer = async |event: Value| {
        let answer = town
            .function
            .answer(event.to_string().as_bytes(), TIME)
            .await?;
        Ok::<Value, edit_router::lambda::UnknownEvent>(serde_json::from_str(&answer).expect("JSON"))
    };
    let check = json!({ "requestContext": { "elb": {} }, "httpMethod": "GET", "path": "/", "headers": { "user-agent": "ELB-HealthChecker/2.0" }, "body": "" });
    assert_eq!(answer(check).await.expect("answered")["statusCode"], 200);
    // What will never work is told to those who look after it, and does not come again.
    let nonsense = json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": "m1", "body": "nonsense", "attributes": { "MessageGroupId": "g" } }] });
    assert_eq!(
        answer(nonsense).await.expect("answered"),
        json!({ "batchItemFailures": [] })
    );
    assert_eq!(
        answer(json!({ "sweep": true })).await.expect("answered"),
        json!({})
    );
    let hostile = json!({ "requestContext": { "elb": {} }, "httpMethod": "GET", "path": "/\r\nx", "headers": {}, "body": "" });
    assert_eq!(answer(hostile).await.expect("answered")["statusCode"], 400);
    assert!(
        answer(json!({ "Records": [{ "eventSource": "aws:s3" }] }))
            .await
            .is_err()
    );
}

/// A server that passes everything on as a gateway does.
async fn straight(door: &Door) -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
    use http_body_util::BodyExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    let upstream = door.address();
    let relay = relay::Relay::new(relay::Settings::default());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((connection, peer)) = listener.accept().await {
            let relay = relay.clone();
            let service = hyper::service::service_fn(
                move |mut request: http::Request<hyper::body::Incoming>| {
                    let relay = relay.clone();
                    async move {
                        edit_router::cookie::without_ours(request.headers_mut());
                        let upstream = relay::Upstream {
                            address: upstream,
                            host: relay::HostPolicy::Keep,
                            forwarded: relay::Forwarded {
                                client: Some(peer.ip()),
                                proto: Some(Proto::Https),
                                host: request.headers().get("host").cloned(),
                                headers: http::HeaderMap::new(),
                            },
                            pool_key: "straight".into(),
                        };
                        let response = relay.forward(request, &upstream).await.expect("it answers");
                        let (parts, body) = response.into_parts();
                        let body = body.collect().await.expect("a body").to_bytes();
                        Ok::<_, std::convert::Infallible>(http::Response::from_parts(
                            parts,
                            http_body_util::Full::new(body),
                        ))
                    }
                },
            );
            let io = hyper_util::rt::TokioIo::new(connection);
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(io, service)
                    .await,
            );
        }
    });
    (address, tasks)
}

/// What a dev server sees of a request, but for what load balancers add.
fn seen(door: &Door) -> (String, Vec<String>, Vec<u8>) {
    let mut asked = door.asked();
    // What is sent to a door comes after its proof.
    asked.retain(|asked| !asked.line.starts_with("GET /_edit/ready "));
    assert_eq!(asked.len(), 1, "{asked:?}");
    let Asked {
        line, fields, body, ..
    } = asked.remove(0);
    let fields = fields
        .into_iter()
        .filter(|line| !line.starts_with("x-amzn-trace-id"))
        .collect();
    (line, fields, body)
}

#[tokio::test]
async fn a_dev_server_sees_the_same_bytes_through_a_load_balancer_and_without_one() {
    let town = Town::with(
        Proves::Well(proof("5a")),
        always(&page("content-type: text/plain\r\n", b"ok")),
    )
    .await;
    let (straight, _server) = straight(&town.door).await;
    let (all, one) = (town.behind(MULTI).await, town.behind(SINGLE).await);
    let fields = format!(
        "cookie: __Host-edit-session={ID}; theme=dark\r\naccept: */*\r\naccept-encoding: gzip, deflate, br\r\nreferer: https://{HOST}/\r\n\
         sec-fetch-dest: script\r\nif-none-match: W/\"1\"\r\nuser-agent: Mozilla/5.0 (X11; Linux)\r\n"
    );
    for target in corpus() {
        if target == "/@vite/client" {
            continue;
        }
        let mut through = Vec::new();
        for address in [straight, all.address(), one.address()] {
            let answer = ask(address, HOST, "GET", &target, &fields, b"").await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "ok"),
                "{target}"
            );
            through.push(seen(&town.door));
        }
        assert_eq!(through[0].0, format!("GET {target} HTTP/1.1"));
        assert_eq!(through[0], through[1], "{target}");
        // With one value a key, a key that is there twice is there once.
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let mut keys: Vec<&str> = query
            .split('&')
            .map(|pair| pair.split('=').next().unwrap_or_default())
            .collect();
        keys.sort_unstable();
        if keys.windows(2).all(|pair| pair[0] != pair[1]) {
            assert_eq!(through[0], through[2], "{target}");
        }
    }
    for (kind, body) in [
        ("application/json", &b"{\"a\":\"\xc3\xbc\"}"[..]),
        ("application/octet-stream", b"\0\xff\xfe"),
        ("text/plain", b""),
    ] {
        let fields = format!(
            "{fields}content-type: {kind}\r\ncontent-length: {}\r\n",
            body.len()
        );
        let mut through = Vec::new();
        for address in [straight, all.address(), one.address()] {
            assert_eq!(
                ask(address, HOST, "POST", "/_edit/instructions", &fields, body)
                    .await
                    .status,
                200
            );
            through.push(seen(&town.door));
        }
        assert_eq!(through[0].2, body);
        assert_eq!(through[0], through[1]);
        assert_eq!(through[0], through[2]);
    }
}
