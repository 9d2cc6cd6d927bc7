use std::time::Duration;

use contract::session::{Failure, ProofKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use relay::Proto;
use serde_json::json;

use super::*;
use crate::host::Host;

const AMELIA: &str = "amelia_aaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "amelia_bbbbbbbbbbbbbbbbbbbbbbbbbb";
const BRUNO: &str = "bruno_cccccccccccccccccccccccccc";
const EDIT: &str = "edit.amelia.example.com";
const PREVIEW: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa--amelia.preview.example.com";

fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_000_000)
}

fn config(client: &str) -> ClientConfig {
    ClientConfig::parse(&json!({
        "clientId": client,
        "domains": { "production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com" },
        "repository": { "url": "https://git.example/amelia.git", "branch": "main" },
        "infrastructure": {},
        "settings": { "containerSize": "small", "idleTimeoutMinutes": 30, "maxConcurrentSessions": 2 },
        "status": "active",
    }))
    .expect("valid")
}

fn session(id: &str, state: State) -> Session {
    let (client, _) = id.split_once('_').expect("a client");
    let mut session = Session::new(
        id.parse().expect("an id"),
        client.parse().expect("an id"),
        "spring".parse().expect("an id"),
        "amelia".to_owned(),
        now(),
    );
    session.state = state;
    session.proof_key = Some(ProofKey("5a".repeat(32)));
    if matches!(state, State::Waking | State::Ready | State::Draining) {
        session.lease_until = Some(now().plus(Duration::from_secs(30)));
    }
    if state == State::Ready {
        session.container_ip = Some("10.0.0.1".to_owned());
        session.port = Some(8080);
    }
    if state == State::Failed {
        session.failure = Some(Failure {
            code: "no_capacity".to_owned(),
            message: "…".to_owned(),
            retryable: true,
        });
    }
    session
}

/// A request, in few words.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    target: String,
    headers: HeaderMap,
}

impl Request {
    /// `GET edit.amelia.example.com/about?x`, and fields: `name: value`.
    fn of(line: &str, fields: &[&str]) -> Self {
        let (method, rest) = line.split_once(' ').expect("a method");
        let slash = rest.find('/').expect("a path");
        let (host, target) = rest.split_at(slash);
        let mut headers = HeaderMap::new();
        if !host.is_empty() {
            headers.append("host", HeaderValue::from_str(host).expect("ASCII"));
        }
        for field in fields {
            let (name, value) = field.split_once(": ").expect("a field");
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("ASCII"));
        }
        Self {
            method: method.parse().expect("a method"),
            target: target.to_owned(),
            headers,
        }
    }
}

struct Town {
    policy: Policy,
    configs: Vec<ClientConfig>,
    sessions: Vec<Session>,
    down: bool,
}

impl Town {
    fn new(previews: bool, sessions: Vec<Session>) -> Self {
        Self {
            policy: Policy {
                preview_domain: previews.then(|| "preview.example.com".to_owned()),
                ..Policy::for_tests()
            },
            configs: vec![config("amelia"), config("bruno")],
            sessions,
            down: false,
        }
    }

    fn gets(&self, line: &str, fields: &[&str]) -> String {
        self.decide(&Request::of(line, fields))
    }

    fn decide(&self, request: &Request) -> String {
        let (path, query) = match request.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (request.target.as_str(), None),
        };
        let head = Head {
            method: &request.method,
            path,
            query,
            headers: &request.headers,
            visitor: None,
            proto: Proto::Https,
        };
        let host = match Host::of(&request.headers) {
            Ok(host) => host,
            Err(refused) => return words(&unread(&head, refused)),
        };
        let asked = Asked::of(&head, &host, &self.policy);
        let client = match asked.place {
            Place::Edit { client } | Place::Preview { client, .. } => self
                .configs
                .iter()
                .find(|config| config.client_id.as_str() == client),
            Place::Named { name } => (name == "edit.ameliastamps.com").then(|| &self.configs[0]),
        };
        let wanted = asked.session();
        let found = wanted.and_then(|id| {
            self.sessions
                .iter()
                .find(|session| session.session_id.as_str() == id.as_str())
        });
        let seen = match found {
            _ if self.down && wanted.is_some() => Seen::Down,
            Some(session) => Seen::Known(session),
            None => Seen::Unknown,
        };
        words(&route(&head, &asked, client, seen, &self.policy, now()))
    }
}

fn words(decision: &Decision<'_>) -> String {
    let of = |session: &Session| session.session_id.redacted()[..1].to_owned();
    match decision {
        Decision::Proxy { session, address } => format!("proxy {} at {address}", of(session)),
        Decision::Wait { session, why } => format!("wait for {}: {}", of(session), why.code()),
        Decision::Wake { session, why } => {
            format!("wake {}: {}", of(session), why.map_or("ready", Why::code))
        }
        Decision::State { session, why } => {
            format!(
                "state of {}: {}",
                of(session),
                why.map_or("ready", Why::code)
            )
        }
        Decision::Settle { session, to, left } => {
            let left = left
                .as_ref()
                .map(|_| " and leaves another")
                .unwrap_or_default();
            format!("settles in {} at {to}{left}", of(session))
        }
        Decision::ToHost { session, host, to } => {
            format!("to {} of {}, {to}", &host[24..], of(session))
        }
        Decision::Second { session, to } => format!("second {} at {to}", of(session)),
        Decision::Enter { session } => format!("enters {}", of(session)),
        Decision::Legacy { away } => format!("away to {}", away.address),
        Decision::Static(name) => format!("static {name}"),
        Decision::Method(allowed) => format!("only {allowed}"),
        Decision::Refused(_) => "refused".to_owned(),
        Decision::Health => "healthy".to_owned(),
        Decision::Misdirected => "misdirected".to_owned(),
        Decision::NotFound => "not found".to_owned(),
        Decision::Foreign => "foreign".to_owned(),
        Decision::RecordsDown => "records down".to_owned(),
        Decision::Link => "link".to_owned(),
        Decision::Make => "make".to_owned(),
    }
}

fn cookie(id: &str) -> String {
    format!("cookie: __Host-edit-session={id}")
}

#[test]
fn the_entry_gives_a_session_to_its_client_and_to_nobody_else() {
    let town = Town::new(
        false,
        vec![
            session(AMELIA, State::Ready),
            session(OTHER, State::Ready),
            session(BRUNO, State::Ready),
        ],
    );
    let entry = |id: &str| format!("GET {EDIT}/session/{id}/about?a&b=");
    assert_eq!(
        town.gets(&entry(AMELIA), &[]),
        "settles in a at /about?a&b="
    );
    assert_eq!(
        town.gets(&entry(AMELIA), &[&cookie(AMELIA)]),
        "settles in a at /about?a&b="
    );
    assert_eq!(
        town.gets(&entry(AMELIA), &[&cookie(OTHER)]),
        "second a at /about?a&b="
    );
    for nobody in [
        BRUNO,
        "amelia_zzzzzzzzzzzzzzzzzzzzzzzzzz",
        "AMELIA",
        "",
        "%61melia_a",
        "..",
        "amelia_a%00",
    ] {
        assert_eq!(town.gets(&entry(nobody), &[]), "not found", "{nobody}");
    }
    assert_eq!(
        town.gets(
            &format!("GET edit.bruno.example.com/session/{AMELIA}/"),
            &[]
        ),
        "not found"
    );
    assert_eq!(
        town.gets(&format!("GET edit.ameliastamps.com/session/{AMELIA}/"), &[]),
        "settles in a at /"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/session/{AMELIA}"), &[]),
        "settles in a at /"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/session/{AMELIA}//evil.com/"), &[]),
        "refused"
    );
    assert_eq!(
        town.gets(&format!("PUT {EDIT}/session/{AMELIA}/"), &[]),
        "only GET, HEAD, POST"
    );
}

#[test]
fn a_second_session_takes_a_persons_word() {
    let town = Town::new(
        false,
        vec![session(AMELIA, State::Ready), session(OTHER, State::Ready)],
    );
    let line = format!("POST {EDIT}/session/{AMELIA}/");
    let own = format!("origin: https://{EDIT}");
    assert_eq!(
        town.gets(&line, &[&cookie(OTHER), &own]),
        "settles in a at / and leaves another"
    );
    assert_eq!(
        town.gets(&line, &[&cookie(OTHER), "origin: https://evil.com"]),
        "foreign"
    );
    assert_eq!(
        town.gets(&line, &[&cookie(OTHER), "sec-fetch-site: cross-site"]),
        "foreign"
    );
    assert_eq!(
        town.gets(&line, &[&cookie(OTHER), "origin: null"]),
        "foreign"
    );
}

#[test]
fn where_sessions_have_hosts_the_entry_leads_there_and_only_its_cookie_opens_it() {
    let town = Town::new(
        true,
        vec![
            session(AMELIA, State::Ready),
            session(BRUNO, State::Ready),
            session("amelia_a_b", State::Ready),
        ],
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/session/{AMELIA}/x?y"), &[]),
        "to aa--amelia.preview.example.com of a, /x?y"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/session/amelia_a_b/"), &[]),
        "settles in a at /",
        "its id fits no host"
    );
    let site = format!("GET {PREVIEW}/about");
    assert_eq!(
        town.gets(&site, &[&cookie(AMELIA)]),
        "proxy a at 10.0.0.1:8080"
    );
    assert_eq!(town.gets(&site, &[]), "not found");
    assert_eq!(town.gets(&site, &[&cookie(BRUNO)]), "not found");
    assert_eq!(
        town.gets(&format!("GET {PREVIEW}/_edit/enter?t=x"), &[]),
        "enters a"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/_edit/enter?t=x"), &[&cookie(AMELIA)]),
        "not found"
    );
    // On a session's own host those are paths of the site.
    assert_eq!(
        town.gets(&format!("GET {PREVIEW}/new"), &[&cookie(AMELIA)]),
        "proxy a at 10.0.0.1:8080"
    );
    assert_eq!(
        town.gets(&format!("GET {PREVIEW}/session/x/"), &[&cookie(AMELIA)]),
        "proxy a at 10.0.0.1:8080"
    );
    let strange = PREVIEW.replace("amelia", "bruno");
    assert_eq!(
        town.gets(&format!("GET {strange}/"), &[&cookie(AMELIA)]),
        "not found"
    );
}

#[test]
fn bytes_flow_only_from_a_session_that_is_ready_under_a_living_lease_where_containers_are() {
    let line = format!("GET {EDIT}/@vite/client");
    let get = |session: Session| Town::new(false, vec![session]).gets(&line, &[&cookie(AMELIA)]);
    for (state, expected) in [
        (State::Dormant, "wait for a: asleep"),
        (State::Waking, "wait for a: waking"),
        (State::Ready, "proxy a at 10.0.0.1:8080"),
        (State::Draining, "wait for a: draining"),
        (State::Failed, "wait for a: failed"),
    ] {
        assert_eq!(get(session(AMELIA, state)), expected);
    }
    for state in [State::Waking, State::Ready, State::Draining] {
        let over = Session {
            lease_until: Some(now()),
            ..session(AMELIA, state)
        };
        assert_eq!(get(over), "wait for a: lost");
        let none = Session {
            lease_until: None,
            ..session(AMELIA, state)
        };
        assert_eq!(get(none), "wait for a: lost");
    }
    for (ip, port) in [
        (Some("169.254.169.254"), Some(80)),
        (Some("127.0.0.1"), Some(8080)),
        (Some("10.1.0.1"), Some(8080)),
        (Some("10.0.0.1"), Some(22)),
        (Some("metadata.internal"), Some(8080)),
        (Some("10.0.0.1"), None),
        (None, Some(8080)),
    ] {
        let poisoned = Session {
            container_ip: ip.map(str::to_owned),
            port,
            ..session(AMELIA, State::Ready)
        };
        assert_eq!(get(poisoned), "wait for a: nowhere", "{ip:?}:{port:?}");
    }
    let mut town = Town::new(false, vec![session(AMELIA, State::Ready)]);
    town.configs[0].status = ClientStatus::Suspended;
    assert_eq!(
        town.gets(&line, &[&cookie(AMELIA)]),
        "wait for a: suspended"
    );
    let foreign = Session {
        client_id: "bruno".parse().expect("an id"),
        ..session(AMELIA, State::Ready)
    };
    assert_eq!(get(foreign), "not found", "a row that says another client");
}

#[test]
fn nothing_wakes_but_the_pages_own_post() {
    let town = Town::new(false, vec![session(AMELIA, State::Dormant)]);
    let own = format!("origin: https://{EDIT}");
    let cookie = cookie(AMELIA);
    let wake = format!("POST {EDIT}/_edit/wake");
    assert_eq!(town.gets(&wake, &[&cookie, &own]), "wake a: asleep");
    assert_eq!(
        town.gets(&wake, &[&cookie, "sec-fetch-site: same-origin"]),
        "wake a: asleep"
    );
    assert_eq!(town.gets(&wake, &[&own]), "not found", "without the cookie");
    assert_eq!(
        town.gets(&wake, &[&cookie, "origin: https://evil.com"]),
        "foreign"
    );
    assert_eq!(
        town.gets(&wake, &[&cookie, "sec-fetch-site: same-site"]),
        "foreign"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/_edit/wake"), &[&cookie]),
        "only POST"
    );
    let vite = [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-protocol: vite-ping",
    ];
    let ping: Vec<&str> = vite
        .iter()
        .copied()
        .chain([cookie.as_str(), own.as_str()])
        .collect();
    assert_eq!(
        town.gets(&format!("GET {EDIT}/"), &ping),
        "wait for a: asleep"
    );
    for line in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
        assert_eq!(
            town.gets(&format!("{line} {EDIT}/about"), &[&cookie]),
            "wait for a: asleep"
        );
    }
    assert_eq!(
        town.gets(&format!("GET {EDIT}/_edit/session?seen=asleep"), &[&cookie]),
        "state of a: asleep"
    );
    assert_eq!(
        town.gets(&format!("POST {EDIT}/_edit/session"), &[&cookie]),
        "only GET, HEAD"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/_edit/status"), &[&cookie]),
        "wait for a: asleep"
    );
}

#[test]
fn a_socket_is_for_pages_of_its_own_host() {
    let town = Town::new(false, vec![session(AMELIA, State::Ready)]);
    let line = format!("GET {EDIT}/?token=x");
    let cookie = cookie(AMELIA);
    let gets = |origin: Option<&str>| {
        let origin = origin.map(|origin| format!("origin: {origin}"));
        let mut fields = vec!["upgrade: websocket", cookie.as_str()];
        fields.extend(origin.as_deref());
        town.gets(&line, &fields)
    };
    assert_eq!(
        gets(Some(&format!("https://{EDIT}"))),
        "proxy a at 10.0.0.1:8080"
    );
    for origin in [
        None,
        Some("https://evil.com"),
        Some("http://edit.amelia.example.com"),
        Some("https://edit.amelia.example.com.evil.com"),
        Some("null"),
    ] {
        assert_eq!(gets(origin), "foreign", "{origin:?}");
    }
    assert_eq!(
        town.gets(
            &line,
            &["upgrade: websocket", &format!("origin: https://{EDIT}")]
        ),
        "not found",
        "without the cookie"
    );
}

#[test]
fn unknown_and_forbidden_are_one_answer_and_a_host_that_is_not_ours_is_another() {
    let town = Town::new(true, vec![session(AMELIA, State::Ready)]);
    for line in [
        format!("GET {EDIT}/"),
        format!("GET {EDIT}/_edit/session"),
        format!("GET {EDIT}/_edit/instructions"),
        "GET edit.nobody.example.com/".to_owned(),
        format!("GET edit.nobody.example.com/session/{AMELIA}/"),
        "GET edit.nobody.example.com/new?t=x".to_owned(),
        "GET x--nobody.preview.example.com/".to_owned(),
    ] {
        assert_eq!(town.gets(&line, &[]), "not found", "{line}");
    }
    for line in [
        "GET evil.com/",
        "GET example.com/",
        "GET 10.0.0.1:8080/",
        "GET [::1]/",
        "GET edit.amelia.example.com./",
    ] {
        assert_eq!(town.gets(line, &[]), "misdirected", "{line}");
    }
    assert_eq!(town.gets("GET /", &[]), "refused");
    assert_eq!(
        town.gets(&format!("GET {EDIT}/"), &["host: evil.com"]),
        "refused"
    );
    let agent = "user-agent: ELB-HealthChecker/2.0";
    assert_eq!(town.gets("GET /", &[agent]), "healthy");
    assert_eq!(town.gets("GET 10.0.0.1:8080/", &[agent]), "healthy");
    assert_eq!(
        town.gets(&format!("GET {EDIT}/_edit/static/x.css"), &[]),
        "static x.css"
    );
}

#[test]
fn a_link_is_shown_by_get_and_used_by_post() {
    let town = Town::new(true, Vec::new());
    let own = format!("origin: https://{EDIT}");
    assert_eq!(town.gets(&format!("GET {EDIT}/new?t=x"), &[]), "link");
    assert_eq!(town.gets(&format!("POST {EDIT}/new?t=x"), &[&own]), "make");
    assert_eq!(
        town.gets(
            &format!("POST {EDIT}/new?t=x"),
            &["origin: https://evil.com"]
        ),
        "foreign"
    );
    assert_eq!(
        town.gets(&format!("DELETE {EDIT}/new"), &[]),
        "only GET, HEAD, POST"
    );
}

#[test]
fn what_is_not_known_because_the_records_are_down_is_said_so() {
    let mut town = Town::new(false, Vec::new());
    town.down = true;
    assert_eq!(
        town.gets(&format!("GET {EDIT}/"), &[&cookie(AMELIA)]),
        "records down"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/"), &[]),
        "not found",
        "nothing had to be asked"
    );
}

#[test]
fn a_share_of_the_sessions_is_with_the_old_system() {
    let mut town = Town::new(true, vec![session(AMELIA, State::Ready)]);
    let rollout = |value: serde_json::Value| serde_json::from_value(value).expect("a rollout");
    town.configs[0].rollout = Some(rollout(
        json!({ "mode": "legacy", "legacyOrigin": "https://old.example.org" }),
    ));
    let entry = format!("GET {EDIT}/session/{AMELIA}/x");
    assert_eq!(
        town.gets(&entry, &[]),
        format!("away to https://old.example.org/session/{AMELIA}/")
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/session/old-1/"), &[]),
        "away to https://old.example.org/session/old-1/"
    );
    assert_eq!(
        town.gets("GET edit.ameliastamps.com/session/old-1/", &[]),
        "away to https://old.example.org/session/old-1/"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/new?t=x"), &[]),
        "away to https://old.example.org/"
    );
    town.configs[0].rollout = Some(rollout(
        json!({ "mode": "new", "legacyOrigin": "https://old.example.org" }),
    ));
    assert_eq!(
        town.gets(&entry, &[]),
        "to aa--amelia.preview.example.com of a, /x"
    );
    assert_eq!(
        town.gets(&format!("GET {EDIT}/session/old-1/"), &[]),
        "not found"
    );
}

fn any_request() -> impl Strategy<Value = Request> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "CONNECT", "PROPFIND"]);
    let host = prop::sample::select(vec![
        EDIT,
        PREVIEW,
        "edit.bruno.example.com",
        "edit.ameliastamps.com",
        "evil.com",
        "",
    ]);
    let path = prop_oneof![
        Just(format!("/session/{AMELIA}/")),
        Just(format!("/session/{BRUNO}/x")),
        Just("/new?t=x".to_owned()),
        Just("/_edit/wake".to_owned()),
        Just("/_edit/session".to_owned()),
        Just("/_edit/enter?t=x".to_owned()),
        "/[ -~]{0,20}",
    ];
    let fields = prop::collection::vec(
        prop_oneof![
            Just(cookie(AMELIA)),
            Just(cookie(BRUNO)),
            Just(format!("origin: https://{EDIT}")),
            Just("origin: https://evil.com".to_owned()),
            Just("upgrade: websocket".to_owned()),
            Just("sec-fetch-mode: navigate".to_owned()),
            "[a-z]{1,6}: [!-~]{0,12}",
        ],
        0..5,
    );
    (method, host, path, fields).prop_map(|(method, host, path, fields)| {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        Request::of(&format!("{method} {host}{path}"), &fields)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is asked, a client's session is served on hosts of that client, and to whoever has its id.
    #[test]
    fn nobody_gets_what_is_anothers(request in any_request(), previews: bool, state in prop::sample::select(vec![State::Dormant, State::Ready])) {
        let town = Town::new(previews, vec![session(AMELIA, state), session(BRUNO, state)]);
        let decision = town.decide(&request);
        let host = request.headers.get("host").map_or("", |host| host.to_str().expect("ASCII"));
        let knows = |id: &str| {
            request.target.contains(id) || request.headers.get_all("cookie").iter().any(|line| line.to_str().is_ok_and(|line| line.contains(id)))
        };
        let touched = |letter: &str| ["proxy", "wait for", "wake", "state of", "settles in", "second", "enters"].iter().any(|word| decision.starts_with(&format!("{word} {letter}")));
        if touched("a") {
            prop_assert!(host == EDIT || host == PREVIEW || host == "edit.ameliastamps.com", "{} {}", host, decision);
            prop_assert!(knows(AMELIA) || decision.starts_with("enters"), "{}", decision);
        }
        if touched("c") {
            prop_assert_eq!(host, "edit.bruno.example.com");
            prop_assert!(knows(BRUNO));
        }
        if decision.starts_with("wake") {
            prop_assert_eq!(request.method, Method::POST);
            prop_assert!(!request.headers.get_all("origin").iter().any(|origin| origin == "https://evil.com"));
        }
    }
}
