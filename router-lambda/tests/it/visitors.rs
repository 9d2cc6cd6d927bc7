//! What visitors get, from the head of their request to the answer: the router, whole, without a front end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::session::{State, Transition};
use contract::{ClientId, Generation, Session, SessionId, ThreadId, Timestamp};
use edit_router::ask::Head;
use edit_router::assembly::{Assembly, Pace, Ports};
use edit_router::link::{Link, LinkKeys};
use edit_router::policy::{Policy, Public};
use edit_router::router::{Forward, Outcome, Router};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use platform::{Created, PortError, Removed, Sessions, TransitionFailed};
use relay::Proto;

use crate::house::House;

const EDIT: &str = "edit.amelia.webordinary.com";

/// A router in a house.
struct Reception {
    house: House,
    router: Router,
    keys: LinkKeys,
    records: Arc<Records>,
}

impl Reception {
    async fn new(previews: bool) -> Self {
        let house = House::new().await;
        let records = Arc::new(Records {
            inner: Arc::clone(&house.sessions),
            reads: AtomicUsize::new(0),
            down: AtomicBool::new(false),
        });
        let ports = Ports {
            clients: Arc::clone(&house.clients),
            sessions: Arc::clone(&records) as _,
            receipts: Arc::clone(&house.receipts),
            queues: Arc::clone(&house.queues) as _,
            launcher: Arc::clone(&house.fleet) as _,
            dead: Arc::clone(&house.dead),
        };
        let policy = Policy {
            edit_domain: "webordinary.com".to_owned(),
            preview_domain: previews.then(|| "preview.webordinary.com".to_owned()),
            networks: vec!["10.0.0.0/8".parse().expect("a network")],
            door_port: Some(8080),
            public: Public {
                proto: Proto::Https,
                port: None,
            },
        };
        let keys: LinkKeys = format!("a:{}", "11".repeat(32)).parse().expect("keys");
        let pace = Pace {
            fresh: Duration::from_secs(1),
            claimed_within: Duration::from_secs(60),
            hold: Duration::ZERO,
        };
        let assembly = Assembly::new(&ports, &policy, keys.clone(), &pace);
        Self {
            house,
            router: assembly.router,
            keys,
            records,
        }
    }

    async fn asks(&self, line: &str, fields: &[(&str, &str)]) -> Outcome {
        self.asks_at(Timestamp::now(), line, fields).await
    }

    /// `GET edit.amelia.webordinary.com/about?x`.
    async fn asks_at(&self, now: Timestamp, line: &str, fields: &[(&str, &str)]) -> Outcome {
        let (method, rest) = line.split_once(' ').expect("a method");
        let (host, target) = rest.split_at(rest.find('/').expect("a path"));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_str(host).expect("ASCII"));
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("ASCII"));
        }
        let method: Method = method.parse().expect("a method");
        let head = Head {
            method: &method,
            path,
            query,
            headers: &headers,
            visitor: None,
            proto: Proto::Https,
        };
        self.router.handle(&head, now).await
    }

    async fn gets(&self, line: &str, fields: &[(&str, &str)]) -> Response<Bytes> {
        match self.asks(line, fields).await {
            Outcome::Answer(answer) => answer,
            Outcome::Forward(forward) => panic!("{line} was forwarded to {}", forward.address),
        }
    }

    async fn door(&self, line: &str, fields: &[(&str, &str)]) -> Box<Forward> {
        match self.asks(line, fields).await {
            Outcome::Forward(forward) => forward,
            Outcome::Answer(answer) => {
                panic!("{line} was answered {}: {}", answer.status(), text(&answer))
            }
        }
    }

    fn link(&self, client: &str, seconds: i64) -> String {
        let claims = Link {
            client_id: client.parse().expect("an id"),
            thread_id: None,
            user_id: Some("amelia@ameliastamps.com".to_owned()),
            exp: Timestamp::now().unix_ms() / 1000 + seconds,
            nonce: "0123456789".to_owned(),
        };
        format!("{EDIT}/new?t={}", self.keys.sign(&claims))
    }

    /// A session that is ready now, by the clock of this machine.
    async fn ready(&self, number: u8) -> Session {
        let asleep = self.house.sleeper(number).await;
        let now = Timestamp::now();
        let until = now.plus(Duration::from_secs(3600));
        let step = |step: Transition, generation: u64| {
            let sessions = Arc::clone(&self.house.sessions);
            let id = asleep.session_id.clone();
            async move {
                let written = sessions
                    .transition(&id, Generation(generation), &step, 10, now)
                    .await;
                written.expect("answered").expect("taken")
            }
        };
        step(
            Transition::Wake {
                seen: Generation(0),
                proof_key: platform::conformance::records::proof_key(),
                lease_until: until,
            },
            0,
        )
        .await;
        step(
            Transition::Claim {
                task: "task-1".to_owned(),
                lease_until: until,
            },
            1,
        )
        .await;
        step(
            Transition::Register {
                ip: "10.0.0.7".to_owned(),
                port: 8080,
                site: contract::session::SiteHealth::Ok,
                isolation: None,
                lease_until: until,
            },
            1,
        )
        .await
    }

    /// The environment of a session is lost, and the next one is at another address.
    async fn comes_back_elsewhere(&self, session: &Session) {
        let now = Timestamp::now();
        let until = now.plus(Duration::from_secs(3600));
        let failure = contract::session::Failure {
            code: "environment_lost".to_owned(),
            message: "…".to_owned(),
            retryable: true,
        };
        for (generation, step) in [
            (1, Transition::Fail { failure }),
            (
                1,
                Transition::Wake {
                    seen: Generation(1),
                    proof_key: platform::conformance::records::proof_key(),
                    lease_until: until,
                },
            ),
            (
                2,
                Transition::Claim {
                    task: "task-2".to_owned(),
                    lease_until: until,
                },
            ),
            (
                2,
                Transition::Register {
                    ip: "10.0.0.8".to_owned(),
                    port: 8080,
                    site: contract::session::SiteHealth::Ok,
                    isolation: None,
                    lease_until: until,
                },
            ),
        ] {
            let sessions = &self.house.sessions;
            let taken = sessions
                .transition(&session.session_id, Generation(generation), &step, 10, now)
                .await;
            taken.expect("answered").expect("taken");
        }
    }
}

fn text(answer: &Response<Bytes>) -> String {
    String::from_utf8_lossy(answer.body()).into_owned()
}

fn location(answer: &Response<Bytes>) -> &str {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", text(answer));
    answer.headers()["location"].to_str().expect("ASCII")
}

fn cookie(session: &Session) -> String {
    format!("__Host-edit-session={}", session.session_id)
}

/// The table of the sessions, which counts and may be down.
#[derive(Debug)]
struct Records {
    inner: Arc<dyn Sessions>,
    reads: AtomicUsize,
    down: AtomicBool,
}

#[async_trait]
impl Sessions for Records {
    async fn get(&self, id: &SessionId) -> platform::Result<Option<Session>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable {
                operation: "read",
                thing: "a session".to_owned(),
                source: "it is down".into(),
            });
        }
        self.inner.get(id).await
    }

    async fn find(
        &self,
        client: &ClientId,
        thread: &ThreadId,
    ) -> platform::Result<Option<SessionId>> {
        self.inner.find(client, thread).await
    }

    async fn create(&self, session: &Session) -> platform::Result<Created> {
        self.inner.create(session).await
    }

    async fn transition(
        &self,
        id: &SessionId,
        caller: Generation,
        transition: &Transition,
        slots: u32,
        now: Timestamp,
    ) -> platform::Result<Result<Session, TransitionFailed>> {
        self.inner
            .transition(id, caller, transition, slots, now)
            .await
    }

    async fn list(&self, client: &ClientId) -> platform::Result<Vec<Session>> {
        self.inner.list(client).await
    }

    async fn remove(&self, session: &Session) -> platform::Result<Removed> {
        self.inner.remove(session).await
    }

    async fn spend(&self, nonce: &str, until: Timestamp) -> platform::Result<bool> {
        self.inner.spend(nonce, until).await
    }

    async fn changed(&self, patience: Duration) {
        self.inner.changed(patience).await;
    }
}

#[tokio::test]
async fn a_link_makes_one_session_for_a_person_and_nothing_for_whoever_looks_at_it() {
    let reception = Reception::new(false).await;
    let link = reception.link("amelia", 60);
    for _ in 0..3 {
        let shown = reception
            .gets(&format!("GET {link}"), &[("accept", "text/html")])
            .await;
        assert_eq!(shown.status(), StatusCode::OK);
    }
    assert_eq!(
        reception
            .house
            .sessions
            .list(&reception.house.amelia.client_id)
            .await
            .expect("listed"),
        []
    );

    let own = format!("https://{EDIT}");
    let post = format!("POST {link}");
    let foreign = reception
        .gets(&post, &[("origin", "https://evil.com")])
        .await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let made = reception.gets(&post, &[("origin", &own)]).await;
    let session = reception
        .house
        .sessions
        .list(&reception.house.amelia.client_id)
        .await
        .expect("listed")
        .remove(0);
    assert_eq!(location(&made), format!("/session/{}/", session.session_id));
    assert_eq!(
        (session.state, session.user_id.as_str()),
        (State::Waking, "amelia@ameliastamps.com")
    );
    assert_eq!(
        reception.house.fleet.orders(),
        1,
        "whoever pressed the button is a person"
    );

    let again = reception.gets(&post, &[("origin", &own)]).await;
    assert_eq!(again.status(), StatusCode::GONE, "{}", text(&again));
    let old = reception
        .gets(
            &format!("POST {}", reception.link("amelia", -1)),
            &[("origin", &own)],
        )
        .await;
    assert_eq!(old.status(), StatusCode::GONE);
    let others = reception
        .gets(
            &format!("POST {}", reception.link("bruno", 60)),
            &[("origin", &own)],
        )
        .await;
    assert_eq!(others.status(), StatusCode::FORBIDDEN);
    let forged = reception.gets(&format!("GET {link}x"), &[]).await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        reception
            .house
            .sessions
            .list(&reception.house.amelia.client_id)
            .await
            .expect("listed")
            .len(),
        1
    );
}

#[tokio::test]
async fn the_way_onto_a_sessions_own_host_is_gone_once() {
    let reception = Reception::new(true).await;
    let session = reception.ready(1).await;
    let entry = reception
        .gets(
            &format!("GET {EDIT}/session/{}/about?a=1", session.session_id),
            &[],
        )
        .await;
    let step = location(&entry)
        .strip_prefix("https://")
        .expect("absolute")
        .to_owned();
    assert!(
        entry.headers().get("set-cookie").is_none(),
        "the edit host keeps nothing"
    );
    let entered = reception.gets(&format!("GET {step}"), &[]).await;
    assert_eq!(location(&entered), "/about?a=1");
    let set = entered.headers()["set-cookie"].to_str().expect("ASCII");
    assert!(
        set.starts_with(&cookie(&session)) && set.contains("; HttpOnly; SameSite=Lax; Secure"),
        "{set}"
    );
    let again = reception.gets(&format!("GET {step}"), &[]).await;
    assert_eq!(
        again.status(),
        StatusCode::GONE,
        "a step that somebody overheard"
    );

    let host = step.split('/').next().expect("a host");
    let forward = reception
        .door(
            &format!("GET {host}/@vite/client"),
            &[("cookie", &cookie(&session))],
        )
        .await;
    assert_eq!(forward.address.to_string(), "10.0.0.7:8080");
    let stranger = reception
        .gets(&format!("GET {host}/@vite/client"), &[])
        .await;
    let nobody = reception
        .gets("GET x--amelia.preview.webordinary.com/", &[])
        .await;
    assert_eq!(
        (stranger.status(), stranger.body()),
        (StatusCode::NOT_FOUND, nobody.body())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_visitors_of_a_session_that_sleeps_start_one_task() {
    let reception = Arc::new(Reception::new(false).await);
    let asleep = reception.house.sleeper(1).await;
    let (own, cookie) = (format!("https://{EDIT}"), cookie(&asleep));
    let mut visitors = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (reception, own, cookie) = (Arc::clone(&reception), own.clone(), cookie.clone());
        visitors.spawn(async move {
            let fields = [
                ("origin", own.as_str()),
                ("cookie", cookie.as_str()),
                ("accept", "application/json"),
            ];
            let told = reception
                .gets(&format!("POST {EDIT}/_edit/wake"), &fields)
                .await;
            serde_json::from_slice::<serde_json::Value>(told.body()).expect("JSON")["state"].clone()
        });
    }
    let told = visitors.join_all().await;
    assert!(told.iter().all(|state| state == "waking"), "{told:?}");
    assert_eq!(
        (
            reception.house.fleet.orders(),
            reception.house.fleet.tasks()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_page_of_fifty_requests_reads_the_record_once() {
    let reception = Reception::new(false).await;
    let session = reception.ready(1).await;
    for number in 0..50 {
        reception
            .door(
                &format!("GET {EDIT}/src/{number}.ts"),
                &[("cookie", &cookie(&session))],
            )
            .await;
    }
    let reads = reception.records.reads.load(Ordering::SeqCst);
    assert!(
        reads <= 3,
        "{reads} reads within what is at most a few seconds"
    );
}

#[tokio::test]
async fn when_the_records_are_down_what_is_warm_is_served_and_the_rest_is_said() {
    let reception = Reception::new(false).await;
    let (warm, cold) = (reception.ready(1).await, reception.house.sleeper(2).await);
    let line = format!("GET {EDIT}/");
    reception.door(&line, &[("cookie", &cookie(&warm))]).await;
    reception.records.down.store(true, Ordering::SeqCst);
    // What is remembered is not fresh for ever; so it is asked for until it has been read in vain.
    let before = reception.records.reads.load(Ordering::SeqCst);
    while reception.records.reads.load(Ordering::SeqCst) == before {
        reception.door(&line, &[("cookie", &cookie(&warm))]).await;
    }
    reception.door(&line, &[("cookie", &cookie(&warm))]).await;
    let said = reception
        .gets(
            &line,
            &[("cookie", &cookie(&cold)), ("accept", "text/html")],
        )
        .await;
    assert_eq!(said.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(said.headers().contains_key("retry-after"));
    // Once its lease is over nobody knows whose address it is.
    let later = Timestamp::now().plus(Duration::from_secs(3601));
    let outcome = reception
        .asks_at(later, &line, &[("cookie", &cookie(&warm))])
        .await;
    let Outcome::Answer(said) = outcome else {
        panic!("a lease that is over was served");
    };
    assert_eq!(said.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_address_that_did_not_prove_itself_is_not_asked_again_and_the_next_generation_is() {
    let reception = Reception::new(false).await;
    let session = reception.ready(1).await;
    let line = format!("GET {EDIT}/");
    let cookie = cookie(&session);
    let forward = reception.door(&line, &[("cookie", &cookie)]).await;
    let headers: HeaderMap = [("host", EDIT), ("cookie", &cookie), ("accept", "text/html")]
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("ASCII"),
            )
        })
        .collect();
    let head = Head {
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        visitor: None,
        proto: Proto::Https,
    };
    let told = reception
        .router
        .unproven(&head, &forward, Timestamp::now())
        .await;
    assert_eq!(told.status(), StatusCode::SERVICE_UNAVAILABLE);
    let told = reception.gets(&line, &[("cookie", &cookie)]).await;
    assert_eq!(
        told.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "it is not asked again at once"
    );
    assert!(
        !reception
            .router
            .still(&forward, Timestamp::now().plus(Duration::from_secs(3601)))
            .await
    );

    // Its lease is over, and somebody wakes it: another generation, at another address.
    reception.comes_back_elsewhere(&session).await;
    let again = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            if let Outcome::Forward(forward) = reception.asks(&line, &[("cookie", &cookie)]).await {
                return forward;
            }
            tokio::task::yield_now().await;
        }
    });
    let again = again.await.expect("the new one is asked");
    assert_eq!(
        (again.generation, again.address.to_string()),
        (Generation(2), "10.0.0.8:8080".to_owned())
    );
    assert_ne!(
        again.pool, forward.pool,
        "no connection is shared with what was there before"
    );
}

/// Time passes only where the story says so.
#[tokio::test(start_paused = true)]
async fn an_environment_that_is_there_and_cannot_be_reached_is_no_eternal_spinner() {
    let reception = Reception::new(false).await;
    let session = reception.ready(1).await;
    let (line, cookie, own) = (
        format!("GET {EDIT}/"),
        cookie(&session),
        format!("https://{EDIT}"),
    );
    let headers: HeaderMap = [("host", EDIT), ("cookie", &cookie)]
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("ASCII"),
            )
        })
        .collect();
    let head = Head {
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        visitor: None,
        proto: Proto::Https,
    };
    for _ in 0..2 {
        let forward = reception.door(&line, &[("cookie", &cookie)]).await;
        reception
            .router
            .unproven(&head, &forward, Timestamp::now())
            .await;
        tokio::time::advance(Duration::from_secs(61)).await;
    }
    let json = [
        ("cookie", cookie.as_str()),
        ("accept", "application/json"),
        ("origin", own.as_str()),
    ];
    let told = reception
        .gets(&format!("GET {EDIT}/_edit/session"), &json)
        .await;
    assert!(
        text(&told).contains(r#""code":"unreachable""#),
        "{}",
        text(&told)
    );

    // A person wants another one: the one that cannot be reached is given up, though it renews its lease.
    let told = reception
        .gets(&format!("POST {EDIT}/_edit/wake"), &json)
        .await;
    assert!(
        text(&told).contains(r#""state":"waking""#),
        "{}",
        text(&told)
    );
    assert_eq!(
        reception.house.now(&session.session_id).await.generation,
        Generation(2)
    );
    assert_eq!(reception.house.fleet.orders(), 1);
}

#[tokio::test]
async fn whoever_wakes_without_a_script_goes_back_to_the_page_he_wanted() {
    let reception = Reception::new(false).await;
    let asleep = reception.house.sleeper(1).await;
    let own = format!("https://{EDIT}");
    let (cookie, page) = (cookie(&asleep), ("accept", "text/html"));
    let waiting = reception
        .gets(
            &format!("GET {EDIT}/about?a=1"),
            &[("cookie", &cookie), page, ("sec-fetch-mode", "navigate")],
        )
        .await;
    assert_eq!(waiting.status(), StatusCode::SERVICE_UNAVAILABLE);
    let html = text(&waiting);
    let action = html
        .split("action=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a form")
        .replace("&amp;", "&");
    assert_eq!(reception.house.fleet.orders(), 0, "a GET wakes nothing");
    let fields = [
        ("cookie", cookie.as_str()),
        ("origin", own.as_str()),
        page,
        ("sec-fetch-mode", "navigate"),
    ];
    let sent = reception
        .gets(&format!("POST {EDIT}{action}"), &fields)
        .await;
    assert_eq!(location(&sent), "/about?a=1");
    assert_eq!(reception.house.fleet.orders(), 1);
}
