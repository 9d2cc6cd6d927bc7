//! What the owner sees in a real Chromium.

use std::path::PathBuf;
use std::process::Stdio;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{PATIENCE, Repository, Start, ask};

/// A headless Chromium, driven as a person would.
pub struct Browser {
    pub client: Client,
    /// The port of its driver.
    port: String,
    _driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub async fn open(url: &str) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver could not be started ({error}): install chromium and chromium-driver"));
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = loop {
            let line = tokio::time::timeout(PATIENCE, lines.next_line())
                .await
                .expect("chromedriver speaks")
                .expect("text")
                .expect("chromedriver says its port");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let profile = tempfile::tempdir().expect("a folder");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1400",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let mut capabilities = serde_json::Map::new();
        capabilities.insert(
            "goog:chromeOptions".to_owned(),
            json!({ "args": arguments }),
        );
        capabilities.insert("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" }));
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium starts");
        client.goto(url).await.expect("the page opens");
        Self {
            client,
            port,
            _driver: driver,
            _profile: profile,
        }
    }

    /// What a script says.
    pub async fn ask(&self, script: &str) -> Value {
        self.client
            .execute(&format!("return {script}"), Vec::new())
            .await
            .unwrap_or(Value::Null)
    }

    /// Waits until a script says `expected`. The page may be loading meanwhile.
    pub async fn until(&self, script: &str, expected: &Value) {
        let mut last = Value::Null;
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.ask(script).await;
                if last == *expected {
                    return;
                }
            }
        });
        assert!(
            seen.await.is_ok(),
            "{script} never was {expected}; last it was {last}"
        );
    }

    pub async fn click(&self, selector: &str) {
        let element = self
            .client
            .wait()
            .at_most(PATIENCE)
            .for_element(Locator::Css(selector))
            .await
            .expect("it is there");
        self.client
            .execute(
                "arguments[0].scrollIntoView({ block: 'center' })",
                vec![serde_json::to_value(&element).expect("a reference")],
            )
            .await
            .expect("scrolled");
        element.click().await.expect("clicked");
    }

    /// Asks the driver for what only Chromium has.
    pub async fn driver(&self, path: &str, body: &Value) -> Value {
        let session = self.client.session_id().await.expect("a session");
        let session = session.expect("it is open");
        let path = format!("/session/{session}/{path}");
        let authority = format!("127.0.0.1:{}", self.port);
        let answer = ask(&authority, "POST", &path, &[], Some(body.to_string())).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
        answer.json()["value"].take()
    }

    /// A command of Chromium's own.
    pub async fn command(&self, name: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.driver("goog/cdp/execute", &body).await
    }

    pub async fn picture(&self, name: &str) {
        let png = self.client.screenshot().await.expect("a picture");
        std::fs::write(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name), png)
            .expect("written");
    }

    pub async fn close(self) {
        self.client.close().await.expect("closed");
    }
}

#[tokio::test]
async fn an_edit_appears_without_anybody_reloading_and_the_islands_keep_their_state() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let browser = Browser::open(&environment.url()).await;
    browser
        .until(
            "document.querySelector('#headline').textContent.includes('Rare stamps')",
            &json!(true),
        )
        .await;
    browser.picture("preview-before.png").await;

    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Rare & old stamps",
        ])
        .await;
    browser
        .until(
            "document.querySelector('#headline').textContent.includes('Rare & old stamps')",
            &json!(true),
        )
        .await;
    browser.picture("preview-after.png").await;

    // An island is alive, through the door, and stays so while a style and its own code change under it.
    browser
        .until(
            "document.querySelector('astro-island')?.hasAttribute('ssr') === false",
            &json!(true),
        )
        .await;
    browser.click("#wishlist-button").await;
    browser.click("#wishlist-button").await;
    browser
        .until(
            "document.querySelector('#wishlist-count').textContent",
            &json!("2"),
        )
        .await;
    browser.ask("(window.notReloaded = true)").await;
    environment
        .lands(&[
            "--replace",
            "src/components/Price.astro",
            "color: var(--accent);",
            "color: rgb(1, 2, 3);",
        ])
        .await;
    browser
        .until(
            "getComputedStyle(document.querySelector('.price:not(.sold)')).color",
            &json!("rgb(1, 2, 3)"),
        )
        .await;
    environment
        .lands(&[
            "--replace",
            "src/components/Wishlist.tsx",
            "<p class=\"wishlist-total\">",
            "<p class=\"wishlist-total\" title=\"edited\">",
        ])
        .await;
    browser
        .until(
            "document.querySelector('.wishlist-total').title",
            &json!("edited"),
        )
        .await;
    assert_eq!(
        browser
            .ask("document.querySelector('#wishlist-count').textContent")
            .await,
        "2"
    );
    assert_eq!(browser.ask("window.notReloaded").await, true);

    // Everything the page asked for was answered, and by us alone.
    let foreign = "performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).host !== location.host).map((entry) => entry.name)";
    assert_eq!(browser.ask(foreign).await, json!([]));
    let failed = "performance.getEntriesByType('resource').filter((entry) => entry.responseStatus >= 400).map((entry) => entry.name)";
    assert_eq!(browser.ask(failed).await, json!([]));
    browser.close().await;
    environment.stop().await;
}

#[tokio::test]
async fn a_broken_page_says_so_and_comes_back_by_itself_when_it_is_repaired() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--on-broken", "keep"])
        .ready()
        .await;
    let browser = Browser::open(&environment.url()).await;
    let id = "document.querySelector('#headline')?.textContent.includes('Rare stamps') ?? false";
    browser.until(id, &json!(true)).await;
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "id=\"headline\"",
            "id=\"headline\" {{{",
        ])
        .await;
    browser
        .until(
            "document.querySelector('vite-error-overlay') !== null",
            &json!(true),
        )
        .await;
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "id=\"headline\" {{{",
            "id=\"headline\"",
        ])
        .await;
    browser.until(id, &json!(true)).await;
    browser
        .until(
            "document.querySelector('vite-error-overlay') === null",
            &json!(true),
        )
        .await;
    browser.close().await;
    environment.stop().await;
}

#[tokio::test]
async fn whoever_comes_early_waits_and_then_sees_the_site() {
    let repository = Repository::amelia();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port();
    let mut environment = Start::of_any_port(&repository.address())
        .with(&["--port", &port.to_string()])
        .spawn();
    // The door opens long before the site answers.
    while environment.event("phase").await["phase"] != "clone" {}
    let browser = Browser::open(&format!("http://127.0.0.1:{port}/")).await;
    browser
        .until(
            "document.querySelector('#headline')?.textContent.includes('Rare stamps') ?? false",
            &json!(true),
        )
        .await;
    let ready = environment.event("ready").await;
    assert_eq!(ready["site"], "ok");
    browser.close().await;
    environment.stop().await;
}
