//! What the owner sees in a real Chromium.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::{Repository, Start};

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
