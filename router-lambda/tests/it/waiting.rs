//! What the router's own pages do in a real browser. A small server stands where the router is, and shows the real pages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use contract::ClientConfig;
use contract::session::{Failure, Phase};
use edit_router::page::{self, Form, Standing, Waiting};
use http::{Method, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::PATIENCE;
use crate::support::browser::Browser;

/// How the session of the story stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Asleep,
    Waking(Option<Phase>),
    Ready,
    /// Tried again by itself at once.
    Failed,
    /// What a wake is told; the record says nothing of it.
    Full,
    /// Nothing is known of what became of a wake.
    Unknown,
}

/// What the server knows, and what it was asked.
#[derive(Debug)]
struct Scene {
    stand: Stand,
    /// What a POST makes of it.
    woken: Stand,
    /// What the next answer says instead.
    told: Option<Stand>,
    /// Whether the site is shown when it is ready.
    shows: bool,
    by_itself: bool,
    posts: usize,
    /// Requests for `/_edit/session`, and how many of them at once.
    looks: usize,
    looking: usize,
    looking_most: usize,
    /// What was asked for, raw, that is not ours.
    visits: Vec<String>,
    /// Told of every request.
    asked: Arc<Notify>,
}

/// A server that shows the pages of the router.
struct Stage {
    address: SocketAddr,
    scene: Arc<Mutex<Scene>>,
    _server: tokio::task::JoinSet<()>,
}

impl Stage {
    async fn open(stand: Stand, by_itself: bool) -> Self {
        let scene = Arc::new(Mutex::new(Scene {
            stand,
            woken: Stand::Waking(None),
            told: None,
            shows: true,
            by_itself,
            posts: 0,
            looks: 0,
            looking: 0,
            looking_most: 0,
            visits: Vec::new(),
            asked: Arc::default(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&scene));
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self {
            address,
            scene,
            _server: server,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn look<T>(&self, look: impl FnOnce(&Scene) -> T) -> T {
        look(&self.scene.lock().expect("nobody panicked"))
    }

    fn set(&self, change: impl FnOnce(&mut Scene)) {
        change(&mut self.scene.lock().expect("nobody panicked"));
    }

    /// Waits until the scene is as it is to be.
    async fn until(&self, what: &str, is: impl Fn(&Scene) -> bool) {
        let asked = self.look(|scene| Arc::clone(&scene.asked));
        let reached = tokio::time::timeout(PATIENCE, async {
            loop {
                // Registered before the scene is looked at, so that no request comes between.
                let next = asked.notified();
                if self.look(&is) {
                    return;
                }
                next.await;
            }
        });
        assert!(
            reached.await.is_ok(),
            "{what}: never; last {:?}",
            self.scene.lock().expect("nobody panicked")
        );
    }

    /// Waits until the page has asked so many times more: it had the time to do something else, and did not.
    async fn after_looks(&self, more: usize) {
        let now = self.look(|scene| scene.looks);
        self.until("the page goes on asking", |scene| scene.looks >= now + more)
            .await;
    }
}

fn client() -> ClientConfig {
    ClientConfig::parse(&json!({
        "clientId": "amelia",
        "domains": { "production": "amelia.example", "edit": "edit.amelia.example", "api": "api.amelia.example" },
        "repository": { "url": "git@github.com:amelia/site.git", "branch": "main" },
        "infrastructure": {},
        "settings": { "containerSize": "small", "idleTimeoutMinutes": 5, "maxConcurrentSessions": 2 },
        "status": "active",
        "brand": { "name": "Amelia’s Stamps" },
    }))
    .expect("valid")
}

async fn answer(State(scene): State<Arc<Mutex<Scene>>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let here = request
        .uri()
        .path_and_query()
        .expect("a path")
        .as_str()
        .to_owned();
    let form = Form::of(request.headers());
    let answer = if let Some(asset) = page::asset(&path) {
        asset
    } else if path == "/_edit/session" {
        {
            let mut scene = scene.lock().expect("nobody panicked");
            scene.looks += 1;
            scene.looking += 1;
            scene.looking_most = scene.looking_most.max(scene.looking);
        }
        let answer = shown(&scene, "/", |waiting| page::state(&waiting));
        scene.lock().expect("nobody panicked").looking -= 1;
        answer
    } else if path == "/_edit/wake" && *request.method() == Method::POST {
        {
            let mut scene = scene.lock().expect("nobody panicked");
            scene.posts += 1;
            // That there is no room, or that nobody knows, stands in no record.
            let told = scene.woken;
            scene.told = matches!(told, Stand::Full | Stand::Unknown).then_some(told);
            if scene.told.is_none() {
                scene.stand = told;
            }
        }
        if form == Form::Json {
            shown(&scene, "/", |waiting| page::state(&waiting))
        } else {
            redirect("/about/")
        }
    } else if path == "/new" && *request.method() == Method::POST {
        scene.lock().expect("nobody panicked").posts += 1;
        // The session's own host is another one.
        let port = request.headers()["host"]
            .to_str()
            .expect("visible")
            .rsplit(':')
            .next()
            .expect("a port")
            .to_owned();
        redirect(&format!("http://localhost:{port}/about/"))
    } else if path == "/new" {
        page::link(&client(), "/new?t=x", true)
    } else if path == "/favicon.ico" {
        page::not_found(form)
    } else {
        let ready = {
            let mut scene = scene.lock().expect("nobody panicked");
            scene.visits.push(here.clone());
            scene.stand == Stand::Ready && scene.shows
        };
        if ready {
            let mut site = Response::new(Bytes::from_static(
                b"<!doctype html><link rel=icon href=data:,><h1>Stamps from everywhere</h1>",
            ));
            site.headers_mut()
                .insert("content-type", "text/html".parse().expect("a type"));
            site
        } else {
            shown(&scene, &here, |waiting| page::waiting(&waiting, form))
        }
    };
    scene
        .lock()
        .expect("nobody panicked")
        .asked
        .notify_waiters();
    answer.map(Body::from)
}

fn redirect(to: &str) -> Response<Bytes> {
    Response::builder()
        .status(StatusCode::SEE_OTHER)
        .header("location", to)
        .body(Bytes::new())
        .expect("an answer")
}

fn shown(
    scene: &Mutex<Scene>,
    here: &str,
    show: impl FnOnce(Waiting<'_>) -> Response<Bytes>,
) -> Response<Bytes> {
    let mut scene = scene.lock().expect("nobody panicked");
    let stand = scene.told.take().unwrap_or(scene.stand);
    let client = client();
    let failure = Failure {
        code: "no_capacity".to_owned(),
        message: "there is no capacity".to_owned(),
        retryable: true,
    };
    show(Waiting {
        client: &client,
        standing: match stand {
            Stand::Full => Standing::Full { limit: 2 },
            Stand::Unknown => Standing::RecordsDown,
            Stand::Asleep => Standing::Asleep,
            Stand::Waking(phase) => Standing::Waking { phase },
            Stand::Ready => Standing::Ready,
            Stand::Failed => Standing::Failed {
                failure: &failure,
                again_in: Some(Duration::ZERO),
            },
        },
        elapsed: Some(Duration::from_secs(3)),
        estimate: Some(Duration::from_secs(30)),
        wake: "/_edit/wake",
        state: "/_edit/session",
        here,
        by_itself: scene.by_itself,
    })
}

const HEADLINE: &str = "document.querySelector('h1')?.textContent";
const WORDS: &str = "document.getElementById('words')?.textContent";
const NOW: &str = "document.querySelector('[aria-current=step]')?.textContent";
/// Nobody sees the page, until `see()` is called.
const UNSEEN: &str = "
  let seen = false;
  Object.defineProperty(document, 'visibilityState', { get: () => (seen ? 'visible' : 'hidden') });
  Object.defineProperty(document, 'hidden', { get: () => !seen });
  window.see = (now) => { seen = now; document.dispatchEvent(new Event('visibilitychange')); };
";

#[tokio::test]
async fn a_person_wakes_it_once_sees_what_is_done_and_is_taken_to_the_page_once() {
    let stage = Stage::open(Stand::Asleep, true).await;
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.open(&stage.url("/about/?raw&a=%3C")).await;

    browser
        .until(HEADLINE, &json!("The preview is starting"))
        .await;
    browser.until(NOW, &json!("Getting ready")).await;
    stage.set(|scene| scene.stand = Stand::Waking(Some(Phase::Install)));
    browser
        .until(NOW, &json!("Putting its building blocks in place"))
        .await;
    browser
        .until(
            WORDS,
            &json!("Putting the site’s building blocks in place."),
        )
        .await;
    let done = browser
        .ask("document.querySelectorAll('li.done').length")
        .await;
    assert_eq!(done, json!(2));
    browser
        .until(
            "document.title",
            &json!("The preview is starting · Amelia’s Stamps"),
        )
        .await;

    stage.set(|scene| scene.stand = Stand::Ready);
    browser
        .until(HEADLINE, &json!("Stamps from everywhere"))
        .await;
    stage.set(|scene| {
        assert_eq!(scene.posts, 1, "it was woken once");
        assert_eq!(
            scene.visits,
            ["/about/?raw&a=%3C", "/about/?raw&a=%3C"],
            "one visit to the waiting page, one to the site, at the same address"
        );
        assert_eq!(scene.looking_most, 1, "one question at a time");
    });
    // What waits answers 503, which a browser notes of the page itself; anything else is a complaint.
    let complaints = browser.complaints().await;
    let others: Vec<_> = complaints
        .iter()
        .filter(|complaint| !complaint.contains("/about/?raw"))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
    browser.close().await;
}

#[tokio::test]
async fn a_page_that_nobody_sees_wakes_nobody_and_asks_nothing() {
    let stage = Stage::open(Stand::Asleep, true).await;
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.before_every_page(UNSEEN).await;
    browser.open(&stage.url("/")).await;
    browser
        .until(HEADLINE, &json!("The preview is asleep"))
        .await;
    // The script has run: it has drawn, and would have asked.
    browser
        .until(
            "document.getElementById('button').getAttribute('aria-disabled')",
            &json!("false"),
        )
        .await;
    assert_eq!(stage.look(|scene| (scene.posts, scene.looks)), (0, 0));

    browser.ask("see(true)").await;
    browser.until(NOW, &json!("Getting ready")).await;
    assert_eq!(stage.look(|scene| scene.posts), 1);
    stage.after_looks(1).await;

    // Whoever leaves it is not waited for; whoever comes back finds it as it is.
    browser.ask("see(false)").await;
    let looks = stage.look(|scene| scene.looks);
    stage.set(|scene| scene.stand = Stand::Waking(Some(Phase::Serve)));
    // Longer than between two questions, by the page's own clock: that nothing happens is the story.
    let later = browser.ask("performance.now() + 1500").await;
    browser
        .until(&format!("performance.now() > {later}"), &json!(true))
        .await;
    assert!(
        stage.look(|scene| scene.looks) <= looks + 1,
        "at most the question that was on its way"
    );
    browser.ask("see(true)").await;
    browser.until(NOW, &json!("Opening the first page")).await;
    assert_eq!(stage.look(|scene| scene.posts), 1);

    // The page behind a link likewise.
    browser.open(&stage.url("/new?t=x")).await;
    browser.until(HEADLINE, &json!("Your preview")).await;
    assert_eq!(stage.look(|scene| scene.posts), 1);
    browser.close().await;
}

#[tokio::test]
async fn a_page_without_the_focus_wakes_when_it_is_touched() {
    let stage = Stage::open(Stand::Asleep, true).await;
    stage.set(|scene| scene.woken = Stand::Full);
    let browser = Browser::start().await;
    browser.has_focus(false).await;
    browser.open(&stage.url("/")).await;
    stage.after_looks(2).await;
    assert_eq!(stage.look(|scene| scene.posts), 0);

    browser.touch().await;
    browser
        .until(HEADLINE, &json!("All previews are in use"))
        .await;
    // The record goes on saying that it sleeps, and the page goes on saying why.
    stage.after_looks(1).await;
    assert_eq!(browser.ask(HEADLINE).await, "All previews are in use");
    assert_eq!(stage.look(|scene| scene.posts), 1);

    // What nobody knows anything of is asked again, when it is known to sleep still.
    stage.set(|scene| scene.woken = Stand::Unknown);
    browser.click("#button").await;
    stage.until("it was asked", |scene| scene.posts == 2).await;
    stage.set(|scene| scene.woken = Stand::Waking(None));
    browser
        .until(HEADLINE, &json!("The preview is starting"))
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 3);
    browser.close().await;
}

#[tokio::test]
async fn where_the_script_may_not_wake_a_person_does() {
    let stage = Stage::open(Stand::Asleep, false).await;
    let browser = Browser::start().await;
    browser.open(&stage.url("/")).await;
    browser
        .until(HEADLINE, &json!("The preview is asleep"))
        .await;
    stage.after_looks(1).await;
    assert_eq!(stage.look(|scene| scene.posts), 0);
    browser.click("#button").await;
    browser
        .until(HEADLINE, &json!("The preview is starting"))
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 1);

    // The same without a script: a form.
    stage.set(|scene| scene.stand = Stand::Asleep);
    browser
        .command(
            "Emulation.setScriptExecutionDisabled",
            json!({ "value": true }),
        )
        .await;
    browser.open(&stage.url("/about/")).await;
    browser.press("Tab", 9).await;
    browser.press("Enter", 13).await;
    stage
        .until("the button wakes it", |scene| scene.posts == 2)
        .await;
    // It is shown again until it is ready, without being woken.
    stage.set(|scene| scene.stand = Stand::Ready);
    let visits = stage.look(|scene| scene.visits.len());
    stage
        .until("the page looks again by itself", |scene| {
            scene.visits.len() > visits
        })
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 2);
    browser.close().await;
}

#[tokio::test]
async fn nobody_is_sent_round_in_a_circle() {
    let stage = Stage::open(Stand::Ready, true).await;
    stage.set(|scene| scene.shows = false);
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.open(&stage.url("/about/")).await;
    let link = "document.getElementById('open')?.hidden === false && document.readyState === 'complete' && document.getElementById('link').pathname";
    browser.until(link, &json!("/about/")).await;
    stage
        .until("it went on once", |scene| scene.visits.len() == 2)
        .await;
    // It is still there when it has nothing left to do but to ask.
    assert_eq!(
        stage.look(|scene| (scene.visits.len(), scene.posts)),
        (2, 0)
    );
    stage.set(|scene| scene.shows = true);
    browser.click("#link").await;
    browser
        .until(HEADLINE, &json!("Stamps from everywhere"))
        .await;
    assert_eq!(stage.look(|scene| scene.visits.clone()), ["/about/"; 3]);

    // An address that looks like one of another host stays on this one.
    stage.set(|scene| scene.shows = false);
    browser.ask("sessionStorage.clear()").await;
    browser.open(&stage.url("//evil.example/x")).await;
    stage
        .until("it went on to the same address", |scene| {
            scene.visits[3..] == ["//evil.example/x", "//evil.example/x"]
        })
        .await;
    browser
        .until("location.host", &json!(stage.address.to_string()))
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_wake_that_fails_is_tried_again_five_times_and_then_by_a_person() {
    let stage = Stage::open(Stand::Asleep, true).await;
    stage.set(|scene| scene.woken = Stand::Failed);
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.open(&stage.url("/")).await;
    stage
        .until("it is tried again", |scene| scene.posts == 6)
        .await;
    browser
        .until(HEADLINE, &json!("The preview did not start"))
        .await;
    stage.after_looks(1).await;
    assert_eq!(stage.look(|scene| scene.posts), 6);

    stage.set(|scene| scene.woken = Stand::Waking(None));
    browser.click("#button").await;
    browser
        .until(HEADLINE, &json!("The preview is starting"))
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 7);
    browser.close().await;
}

#[tokio::test]
async fn a_link_opens_the_session_on_its_own_host_once() {
    let stage = Stage::open(Stand::Ready, true).await;
    let browser = Browser::start().await;
    browser.has_focus(true).await;
    browser.open(&stage.url("/new?t=x")).await;
    browser
        .until(HEADLINE, &json!("Stamps from everywhere"))
        .await;
    browser
        .until("location.hostname", &json!("localhost"))
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 1);
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:#?}");

    // The press on the button brings the focus as well: still it is used once.
    browser.has_focus(false).await;
    browser.open(&stage.url("/new?t=y")).await;
    browser.click("button").await;
    browser
        .until(HEADLINE, &json!("Stamps from everywhere"))
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 2);

    // Whoever goes back to the link does not use it once more.
    browser.has_focus(true).await;
    browser.client.back().await.expect("back");
    browser.until(HEADLINE, &json!("Your preview")).await;
    browser
        .until("document.readyState", &json!("complete"))
        .await;
    assert_eq!(stage.look(|scene| scene.posts), 2);
    browser.close().await;
}
