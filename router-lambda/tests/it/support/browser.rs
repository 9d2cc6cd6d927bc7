//! A real Chromium, driven as a person would.

use std::process::Stdio;

use bytes::Bytes;
use fantoccini::{Client, ClientBuilder, Locator};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::PATIENCE;

/// A headless Chromium.
pub struct Browser {
    pub client: Client,
    /// The port of its driver.
    port: String,
    _driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A new one, with nothing open and nothing kept.
    pub async fn start() -> Self {
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
            "--window-size=1280,900",
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
        Self {
            client,
            port,
            _driver: driver,
            _profile: profile,
        }
    }

    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("the page opens");
    }

    /// What a script says; null while a page is being left.
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
        element.click().await.expect("clicked");
    }

    /// Whether its window is the one that a person uses. That of a driver is not, unless it is said to be.
    pub async fn has_focus(&self, has: bool) {
        self.command(
            "Emulation.setFocusEmulationEnabled",
            json!({ "enabled": has }),
        )
        .await;
    }

    /// Presses the mouse where nothing is.
    pub async fn touch(&self) {
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": 5, "y": 5, "button": "left", "clickCount": 1 });
            self.command("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Runs before anything of every page that is opened from now on.
    pub async fn before_every_page(&self, script: &str) {
        let parameters = json!({ "source": script });
        self.command("Page.addScriptToEvaluateOnNewDocument", parameters)
            .await;
    }

    /// Presses a key, without any script.
    pub async fn press(&self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && key == "Enter" {
                event["text"] = json!("\r");
            }
            self.command("Input.dispatchKeyEvent", event).await;
        }
    }

    /// What pages wrote into the console since the last time: errors, and what a policy kept out.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.driver("se/log", &json!({ "type": "browser" })).await;
        let entries = log.as_array().expect("a log").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// A command of Chromium's own.
    pub async fn command(&self, name: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": name, "params": parameters });
        self.driver("goog/cdp/execute", &body).await
    }

    /// Asks the driver for what only Chromium has.
    async fn driver(&self, path: &str, body: &Value) -> Value {
        let session = self.client.session_id().await.expect("a session");
        let session = session.expect("it is open");
        let request = http::Request::post(format!(
            "http://127.0.0.1:{}/session/{session}/{path}",
            self.port
        ))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .build(HttpConnector::new());
        let answer = tokio::time::timeout(PATIENCE, client.request(request))
            .await
            .expect("the driver answers")
            .expect("an answer");
        let status = answer.status();
        let said = answer.into_body().collect().await.expect("a body");
        let mut said: Value = serde_json::from_slice(&said.to_bytes()).expect("JSON");
        assert!(status.is_success(), "{path} {body}: {said}");
        said["value"].take()
    }

    pub async fn close(self) {
        self.client.close().await.expect("closed");
    }
}
