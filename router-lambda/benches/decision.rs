//! What a decision costs: from a raw head to a `Decision`, with the session looked up among as many as there are.
//!
//! Printed as nanoseconds of one run, and as a ratio between a hundred sessions and a million: it is to be flat. Allocations are
//! counted, because a hit is to make none.

#![allow(
    clippy::print_stdout,
    reason = "a benchmark's figures are for whoever runs it"
)]
#![allow(unsafe_code, reason = "an allocator that counts has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use contract::session::{ProofKey, State};
use contract::{ClientConfig, Session, SessionId, Timestamp};
use edit_router::ask::Head;
use edit_router::host::Host;
use edit_router::policy::{Policy, Public};
use edit_router::route::{Asked, Decision, Seen, route};
use http::{HeaderMap, HeaderValue, Method};
use relay::Proto;
use serde_json::json;

/// Decisions of one measurement.
const DECISIONS: u32 = 200_000;
/// Measurements; the middle one counts.
const ROUNDS: usize = 9;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: it is the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what the caller promises is what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Town {
    policy: Policy,
    config: ClientConfig,
    sessions: HashMap<SessionId, Arc<Session>>,
    requests: Vec<HeaderMap>,
    now: Timestamp,
}

impl Town {
    fn of(number: u64) -> Self {
        let now = Timestamp::from_unix_ms(1_000_000);
        let config = ClientConfig::parse(&json!({
            "clientId": "amelia",
            "domains": { "production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com" },
            "repository": { "url": "https://git.example/amelia.git", "branch": "main" },
            "infrastructure": {},
            "settings": { "containerSize": "small", "idleTimeoutMinutes": 30, "maxConcurrentSessions": 2 },
            "status": "active",
        }))
        .expect("valid");
        let mut sessions = HashMap::new();
        let mut requests = Vec::new();
        for index in 0..number {
            // Spread as random ids are.
            let mixed =
                (u128::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let id = SessionId::new(&config.client_id, mixed.to_be_bytes());
            let mut session = Session::new(
                id.clone(),
                config.client_id.clone(),
                "spring".parse().expect("an id"),
                "amelia".to_owned(),
                now,
            );
            session.state = State::Ready;
            session.lease_until = Some(now.plus(Duration::from_secs(30)));
            session.container_ip = Some("10.0.0.1".to_owned());
            session.port = Some(8080);
            session.proof_key = Some(ProofKey("5a".repeat(32)));
            if index % (number / 100) == 0 {
                requests.push(request(&id));
            }
            sessions.insert(id, Arc::new(session));
        }
        Self {
            policy: Policy {
                edit_domain: "webordinary.com".to_owned(),
                preview_domain: Some("preview.webordinary.com".to_owned()),
                networks: vec!["10.0.0.0/16".parse().expect("a network")],
                door_port: Some(8080),
                public: Public {
                    proto: Proto::Https,
                    port: None,
                },
            },
            config,
            sessions,
            requests,
            now,
        }
    }

    fn decide(&self, headers: &HeaderMap) -> bool {
        let head = Head {
            method: &Method::GET,
            path: "/src/components/Header.astro",
            query: Some("astro&type=style&index=0&lang.css"),
            headers,
            visitor: None,
            proto: Proto::Https,
        };
        let host = Host::of(headers).expect("a host");
        let asked = Asked::of(&head, &host, &self.policy);
        let found = asked
            .session()
            .and_then(|id| self.sessions.get(id.as_str()));
        let seen = found.map_or(Seen::Unknown, |session| Seen::Known(session));
        let decision = route(
            &head,
            &asked,
            Some(&self.config),
            seen,
            &self.policy,
            self.now,
        );
        matches!(black_box(decision), Decision::Proxy { .. })
    }

    /// Nanoseconds of a decision, and the allocations of one.
    fn measure(&self) -> (f64, f64) {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let began = Instant::now();
        let mut proxied = 0;
        for headers in self.requests.iter().cycle().take(DECISIONS as usize) {
            proxied += u32::from(self.decide(black_box(headers)));
        }
        let took = began.elapsed();
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(
            proxied, DECISIONS,
            "every request is one for a site that is there"
        );
        let each = |number: f64| number / f64::from(DECISIONS);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let figures = (each(took.as_nanos() as f64), each(allocations as f64));
        figures
    }
}

/// What a browser sends for a module of the site.
fn request(session: &SessionId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let cookie = format!("theme=dark; __Host-edit-session={session}");
    for (name, value) in [
        ("host", format!("{}--amelia.preview.webordinary.com", session.label())),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36".to_owned()),
        ("accept", "*/*".to_owned()),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.8".to_owned()),
        ("accept-encoding", "gzip, deflate, br, zstd".to_owned()),
        ("sec-fetch-dest", "script".to_owned()),
        ("sec-fetch-mode", "cors".to_owned()),
        ("sec-fetch-site", "same-origin".to_owned()),
        ("cookie", cookie),
    ] {
        headers.insert(name, HeaderValue::from_str(&value).expect("ASCII"));
    }
    headers
}

fn main() {
    let towns: Vec<(u64, Town)> = [100, 100_000, 1_000_000]
        .into_iter()
        .map(|number| (number, Town::of(number)))
        .collect();
    // In turns, so that whatever else the machine does falls on all of them.
    let mut figures: Vec<Vec<(f64, f64)>> = vec![Vec::new(); towns.len()];
    for _ in 0..ROUNDS {
        for (place, (_, town)) in towns.iter().enumerate() {
            figures[place].push(town.measure());
        }
    }
    let middle = |place: usize| -> (f64, f64) {
        let mut all = figures[place].clone();
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        all[ROUNDS / 2]
    };
    println!("route decision, from a raw head, the session looked up among:");
    for (place, (number, _)) in towns.iter().enumerate() {
        let (nanoseconds, allocations) = middle(place);
        println!(
            "  {number:>9} sessions   {nanoseconds:>6.0} ns (<= 1000 ns)   {allocations:.1} allocations"
        );
    }
    println!(
        "  a million against a hundred   {:.2} x",
        middle(2).0 / middle(0).0
    );
}
