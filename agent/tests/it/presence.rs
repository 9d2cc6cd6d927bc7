//! Who is there, as the door learns it from a page in a real Chromium.

use serde_json::json;

use crate::support::browser::{Browser, PILL};
use crate::support::{Repository, Start};

#[tokio::test]
async fn whoever_uses_a_page_is_there_and_a_page_that_is_only_open_is_not() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    // This Chromium says that it has no head: that it was given a page is no person's doing.
    let browser = Browser::open(&environment.url()).await;
    browser.until(PILL, &json!("Everything is published")).await;
    let press = async || {
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": 400, "y": 300, "button": "left", "clickCount": 1 });
            browser.command("Input.dispatchMouseEvent", event).await;
        }
    };

    // What the page does by itself, and whatever is done to a tab that nobody sees, says nothing.
    browser
        .ask("(scrollTo(0, 200), dispatchEvent(new PointerEvent('pointerdown')), dispatchEvent(new KeyboardEvent('keydown', { key: 'a' })), 0)")
        .await;
    browser
        .ask("(Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => 'hidden' }), 0)")
        .await;
    press().await;
    // A call that was made after whatever it had to tell has been answered.
    browser
        .ask("(fetch('/_edit/status').then(() => { window.answered = true; }), delete document.visibilityState, 0)")
        .await;
    browser.until("window.answered", &json!(true)).await;
    let told = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/_edit/presence')).length";
    assert_eq!(browser.ask(told).await, 0);
    let status = environment
        .status_when("up", |status| status["state"] == "ready")
        .await;
    assert_eq!(status["lastActivityAt"], json!(null), "{status:#}");

    // A press of the mouse is somebody's; and the next one is not told, because it is known.
    press().await;
    press().await;
    environment
        .status_when("somebody there", |status| {
            status["lastActivityAt"].is_string()
        })
        .await;
    browser.until(told, &json!(1)).await;
    press().await;
    assert_eq!(browser.ask(told).await, 1);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
