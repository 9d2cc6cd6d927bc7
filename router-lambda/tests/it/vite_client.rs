//! What a page has that gets our client of the dev server instead of the dev server's own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use contract::Timestamp;
use http::{Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::browser::Browser;

const CLIENT: &str = include_str!("../../src/lambda/vite_client.js");

/// A page as Vite and Astro make them.
const PAGE: &str = r#"<!doctype html><html><head><title>Stamps</title>
<style data-vite-dev-id="/src/there.css">i { color: rgb(1, 2, 3) }</style>
<script type="module" src="/@vite/client"></script>
<script type="module" src="/src/module.js"></script></head><body><b>b</b><i>i</i></body></html>"#;

/// A module as Vite makes them.
const MODULE: &str = r"
import { createHotContext, updateStyle, removeStyle, injectQuery, ErrorOverlay } from '/@vite/client';
import.meta.hot = createHotContext('/src/module.js');
import.meta.hot.data.kept = 1;
import.meta.hot.accept(() => {});
import.meta.hot.accept('./other.js', () => {});
import.meta.hot.acceptExports(['a'], () => {});
import.meta.hot.dispose(() => {});
import.meta.hot.prune(() => removeStyle('/src/b.css'));
import.meta.hot.on('vite:beforeUpdate', () => {});
import.meta.hot.off('vite:beforeUpdate', () => {});
import.meta.hot.send('mine', {});
updateStyle('/src/b.css', 'b { color: rgb(255, 0, 0) }');
updateStyle('/src/c.css', 'b { color: rgb(0, 128, 0) }');
updateStyle('/src/b.css', 'b { color: rgb(0, 0, 255) }');
updateStyle('/src/there.css', 'i { color: rgb(4, 5, 6) }');
updateStyle('/src/gone.css', 'b { display: none }');
removeStyle('/src/gone.css');
window.module = {
  again: createHotContext('/src/module.js').data.kept,
  query: injectQuery('/a?b#c', 'import'),
  overlay: customElements.define('vite-error-overlay', ErrorOverlay) ?? 'defined',
  defined: globalThis.__DEFINED__,
};
";

#[derive(Debug, Default)]
struct Scene {
    /// When something was last shown, by the door's clock; none if the door has nothing to say.
    revision: Option<i64>,
    /// By how much the door's clock is ahead of the browser's.
    ahead_ms: i64,
    pages: usize,
    asked: usize,
}

async fn answer(State(scene): State<Arc<Mutex<Scene>>>, request: Request) -> Response<Body> {
    let mut scene = scene.lock().expect("nobody panics");
    let (kind, body) = match request.uri().path() {
        "/" => {
            scene.pages += 1;
            ("text/html", PAGE.to_owned())
        }
        "/@vite/client" => ("text/javascript", CLIENT.to_owned()),
        "/@vite/env" => (
            "text/javascript",
            "globalThis.__DEFINED__ = 'defined';".to_owned(),
        ),
        "/src/module.js" => ("text/javascript", MODULE.to_owned()),
        "/_edit/status" => {
            scene.asked += 1;
            let at = Timestamp::from_unix_ms(Timestamp::now().unix_ms() + scene.ahead_ms);
            (
                "application/json",
                json!({ "state": "ready", "revision": scene.revision, "at": at }).to_string(),
            )
        }
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert("content-type", kind.parse().expect("a value"));
    response
}

async fn open(scene: Scene) -> (SocketAddr, Arc<Mutex<Scene>>, tokio::task::JoinSet<()>) {
    let scene = Arc::new(Mutex::new(scene));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let app = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&scene));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
    (address, scene, server)
}

/// The door's clock is not the browser's: what counts is what happened after the page was asked for, by either of them.
#[tokio::test]
async fn a_page_has_its_styles_and_is_loaded_again_once_when_something_was_shown() {
    const AHEAD_MS: i64 = 3_600_000;
    let now = || Timestamp::now().unix_ms() + AHEAD_MS;
    let (address, scene, _server) = open(Scene {
        // Before the page was asked for.
        revision: Some(now() - 10_000),
        ahead_ms: AHEAD_MS,
        ..Scene::default()
    })
    .await;
    let browser = Browser::start().await;
    // No rounds of two seconds in a test.
    browser
        .before_every_page("{ const later = window.setTimeout; window.setTimeout = (f, ms, ...rest) => later(f, Math.min(ms ?? 0, 50), ...rest); }")
        .await;
    browser.open(&format!("http://{address}/")).await;
    let expected =
        json!({ "again": 1, "query": "/a?import&b#c", "overlay": "defined", "defined": "defined" });
    browser.until("window.module", &expected).await;
    // In the order of their imports, the newest text of each; what the server put there is the same style.
    browser
        .until(
            "getComputedStyle(document.querySelector('b')).color",
            &json!("rgb(0, 128, 0)"),
        )
        .await;
    browser
        .until(
            "getComputedStyle(document.querySelector('i')).color",
            &json!("rgb(4, 5, 6)"),
        )
        .await;
    let ids = "[...document.querySelectorAll('style')].map((style) => style.dataset.viteDevId)";
    assert_eq!(
        browser.ask(ids).await,
        json!(["/src/there.css", "/src/b.css", "/src/c.css"])
    );

    let asked = |scene: &Arc<Mutex<Scene>>| {
        let scene = scene.lock().expect("nobody panics");
        (scene.pages, scene.asked)
    };
    let rounds = async |more: usize| {
        let before = asked(&scene).1;
        let passed = async {
            while asked(&scene).1 < before + more {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(crate::support::PATIENCE, passed).await;
        assert!(waited.is_ok(), "the page asks: {:?}", asked(&scene));
    };
    rounds(5).await;
    assert_eq!(
        asked(&scene).0,
        1,
        "nothing was shown, and the page was loaded again"
    );

    browser.ask("(window.old = true)").await;
    scene.lock().expect("nobody panics").revision = Some(now());
    browser.until("window.old ?? 'new'", &json!("new")).await;
    browser.until("window.module", &expected).await;
    rounds(5).await;
    // It may be loaded once more than it had to, and then it is enough.
    let loaded = asked(&scene).0;
    assert!((2..=3).contains(&loaded), "{loaded} times");

    // A door that says nothing is asked more rarely, and is no reason to load anything.
    scene.lock().expect("nobody panics").revision = None;
    rounds(3).await;
    assert_eq!(asked(&scene).0, loaded);
    // The icon that browsers ask for is not there.
    let complaints = browser.complaints().await;
    assert!(
        complaints.iter().all(|line| line.contains("favicon.ico")),
        "{complaints:?}"
    );
    browser.close().await;
}
