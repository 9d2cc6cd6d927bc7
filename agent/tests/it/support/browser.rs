//! A real Chromium, driven as a person would.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{PATIENCE, ask};

/// The bar's shadow root, and what it says on its pill.
pub const ROOT: &str = "document.querySelector('edit-bar').shadowRoot";
pub const PILL: &str = "document.querySelector('edit-bar')?.shadowRoot.querySelector('.pill span:last-child')?.textContent";

/// Writes down what the page is in every frame and after every change of its DOM; what stays the same is counted. It goes on
/// where it was when another page is opened, and sees a page before anything of the page's runs.
const RECORDER: &str = r"
(() => {
  if (window !== top) return;
  const KEPT = 'recording';
  let kept = null;
  try { kept = sessionStorage.getItem(KEPT); } catch { return; }
  const recording = kept ? JSON.parse(kept) : { frames: 0, sights: [] };
  const keep = () => sessionStorage.setItem(KEPT, JSON.stringify(recording));
  const look = () => {
    const { body } = document;
    const sight = {
      path: location.pathname,
      title: document.title,
      headline: document.querySelector('h1')?.textContent ?? null,
      overlay: document.querySelector('vite-error-overlay') !== null,
      // A page of which nothing has come yet shows the one before it.
      blank: document.readyState !== 'loading' && (body?.innerText ?? '').trim() === '',
      loading: document.readyState === 'loading',
    };
    const last = recording.sights.at(-1);
    if (last && Object.entries(sight).every(([name, value]) => last[name] === value)) {
      last.until = Date.now();
      return;
    }
    if (recording.sights.length >= 5000) throw new Error('the recording is full');
    recording.sights.push({ ...sight, first: recording.frames, since: Date.now(), until: Date.now() });
    keep();
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
  const frame = () => { recording.frames += 1; look(); requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  addEventListener('pagehide', keep);
  Object.defineProperty(window, 'recorded', { value: () => recording });
})();
";

/// What the page was in every frame up to now.
#[derive(Debug, Clone, Deserialize)]
pub struct Recording {
    pub frames: u64,
    pub sights: Vec<Sight>,
}

/// What the page was for some frames in a row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sight {
    pub path: String,
    pub title: String,
    pub headline: Option<String>,
    /// Whether Vite's error was over it.
    pub overlay: bool,
    /// Whether all of it was there and showed nothing.
    pub blank: bool,
    /// Whether it was still coming.
    pub loading: bool,
    /// The number of frames before it.
    pub first: u64,
    /// Milliseconds since 1970.
    pub since: u64,
    pub until: u64,
}

impl Recording {
    /// What was seen after a moment, that moment included.
    pub fn after(&self, earlier: &Self) -> &[Sight] {
        &self.sights[earlier.sights.len().saturating_sub(1)..]
    }
}

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

    /// Everything from the next page on is recorded.
    pub async fn record(&self) {
        self.command(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": RECORDER }),
        )
        .await;
    }

    /// What was recorded up to now. A page that is being left has nothing to say; the next one has.
    pub async fn recording(&self) -> Recording {
        let mut last = Value::Null;
        let said = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.ask("window.recorded?.()").await;
                if let Ok(recording) = Recording::deserialize(&last) {
                    return recording;
                }
            }
        });
        let said = said.await;
        said.unwrap_or_else(|_| panic!("nothing was recorded; last {last}"))
    }

    /// What the page wrote into its console since the last time: errors, and what was not answered.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.driver("se/log", &json!({ "type": "browser" })).await;
        let entries = log.as_array().expect("a log").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
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

    /// Whether a script says `expected` within a few seconds.
    pub async fn soon(&self, script: &str, expected: &Value) -> bool {
        let said = async { while self.ask(script).await != *expected {} };
        tokio::time::timeout(Duration::from_secs(5), said)
            .await
            .is_ok()
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
        // The driver breaks off what it does when the page loads itself again; then there is another page to take a picture of.
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Ok(png) = self.client.screenshot().await {
                    return png;
                }
            }
        });
        let png = taken.await.expect("a picture");
        std::fs::write(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name), png)
            .expect("written");
    }

    pub async fn close(self) {
        self.client.close().await.expect("closed");
    }
}

impl Browser {
    pub async fn press(&self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code(key) });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.command("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Presses Tab until something of the bar has the focus, and until that is what is wanted.
    pub async fn tab_to(&self, key: &str) {
        let focused = format!(
            "document.querySelector('edit-bar').shadowRoot.activeElement?.matches('{key}') ?? false"
        );
        for _ in 0..100 {
            if self.ask(&focused).await == true {
                return;
            }
            self.press("Tab").await;
        }
        let last = self
            .ask("document.querySelector('edit-bar').shadowRoot.activeElement?.outerHTML")
            .await;
        panic!("{key} cannot be reached by keyboard; last {last}");
    }

    /// Clicks something of the bar's.
    pub async fn bar(&self, selector: &str) {
        self.until(
            &format!("{ROOT}.querySelector('{selector}') !== null"),
            &json!(true),
        )
        .await;
        self.ask(&format!("{ROOT}.querySelector('{selector}').click()"))
            .await;
    }

    /// Clicks something of the bar's with the mouse, where it is.
    pub async fn point(&self, selector: &str) {
        let place = format!(
            "(() => {{ const found = {ROOT}.querySelector('{selector}'); found?.scrollIntoView({{ block: 'nearest' }}); \
             const {{ left, top, width, height }} = found?.getBoundingClientRect() ?? {{}}; \
             const [x, y] = [left + width / 2, top + height / 2]; \
             return width && !found.getAttribute('aria-disabled') && found.contains({ROOT}.elementFromPoint(x, y)) ? {{ x, y }} : null; }})()"
        );
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.ask(&place).await;
                if last.is_object() {
                    return;
                }
            }
        });
        assert!(found.await.is_ok(), "{selector} cannot be clicked");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": last["x"], "y": last["y"], "button": "left", "clickCount": 1 });
            self.command("Input.dispatchMouseEvent", event).await;
        }
    }

    /// A picture of the top of the page, with the bar.
    pub async fn picture_of_the_top(&self, name: &str) {
        self.ask("scrollTo({ top: 0, behavior: 'instant' })").await;
        let still = format!("{ROOT}.querySelector('.panel').getAnimations().length");
        self.until(&still, &json!(0)).await;
        self.picture(name).await;
    }

    pub async fn colours(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features).await;
    }
}

fn code(key: &str) -> u32 {
    match key {
        "Tab" => 9,
        "Enter" => 13,
        "Escape" => 27,
        key => panic!("{key} is not known here"),
    }
}
