//! The status bar, as the person in the browser has it.

use serde_json::{Value, json};

use crate::support::browser::{Browser, PILL, ROOT};
use crate::support::{Repository, Start};

/// The site with a policy on every page, made by the site's own middleware.
const MIDDLEWARE: &str = r"
import { defineMiddleware } from 'astro:middleware';
const POLICIES: Record<string, string> = {
  '/about/': `default-src 'none'; style-src 'unsafe-inline'; img-src 'self'`,
  '/contact/': `script-src 'nonce-abc'; connect-src https://api.example; require-trusted-types-for 'script'`,
  '/journal/': `script-src 'strict-dynamic' 'nonce-abc'; style-src 'none'`,
  '/stamps/': `script-src 'strict-dynamic' 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='; connect-src 'none'`,
};
export const onRequest = defineMiddleware(async (context, next) => {
  const response = await next();
  const policy = POLICIES[context.url.pathname];
  if (policy) response.headers.set('content-security-policy', policy);
  return response;
});
";

/// What the draft's history would be, a page that writes down what is sent, and events that are told by the test.
const STUB: &str = r"
(() => {
  const entry = (instructionId, more) => ({
    instructionId, action: 'edit', commit: '0'.repeat(40), who: 'Amelia', at: new Date(Date.now() - 125000).toISOString(),
    summary: 'Edit src/pages/index.astro', sentence: 'The home page was changed.', files: ['src/pages/index.astro'],
    pages: ['/'], state: 'standing', published: false, counts: true, undoable: true, ...more,
  });
  window.told = {
    entries: [
      entry('three', { at: new Date().toISOString() }),
      entry('two', { who: 'Dora Developer', sentence: 'The page /about/ was changed.', pages: ['/about/'] }),
      entry('one', { state: 'undone', undoneBy: 'zero', undoable: false, counts: false, sentence: 'The text “prices” was changed.' }),
      entry('zero', { action: 'publish', undoable: false, published: true, counts: false, sentence: 'The changes are published: everybody can see them.' }),
    ],
    unpublished: 2, behind: 1, uncommitted: [], publishBlocked: null,
  };
  window.posted = [];
  const fetch = window.fetch;
  window.fetch = async (address, options) => {
    if (String(address).endsWith('/_edit/history')) return new Response(JSON.stringify(window.told));
    if (String(address).endsWith('/_edit/instructions')) {
      window.posted.push(...JSON.parse(options.body));
      return new Response('{}', { status: 202 });
    }
    return fetch(address, options);
  };
  window.EventSource = class extends EventTarget {
    constructor(address) {
      super();
      this.address = address;
      this.readyState = window.deaf ? 2 : 1;
      window.source = this;
      window.listened = (window.listened ?? 0) + 1;
      if (!window.deaf) setTimeout(() => this.onopen?.());
    }
    close() {}
  };
  // What comes round by itself, so that a test need not wait for it.
  window.rounds = {};
  const setInterval = window.setInterval;
  window.setInterval = (round, wait) => setInterval(window.rounds[wait] = round, wait);
  let id = 0;
  window.tell = (name, data) => window.source.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data), lastEventId: String(++id) }));
})();
";

#[tokio::test]
async fn the_bar_is_a_guest_that_moves_nothing_and_says_what_happens() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let browser = Browser::open(&environment.url()).await;
    browser.until(PILL, &json!("Everything is published")).await;

    // It is beside the page, not in it; and its tag is gone.
    let last = "document.documentElement.lastElementChild.localName";
    assert_eq!(browser.ask(last).await, "edit-bar");
    let tags = "document.querySelectorAll('script[src*=_edit]').length";
    assert_eq!(browser.ask(tags).await, 0);
    // A scrollbar that comes while the page still does would move it, and is not ours.
    browser
        .command("Emulation.setScrollbarsHidden", json!({ "hidden": true }))
        .await;
    // The site's own height, with and without it.
    let height = "document.documentElement.scrollHeight";
    let with = browser.ask(height).await;
    let without =
        "(document.querySelector('edit-bar').remove(), document.documentElement.scrollHeight)";
    assert_eq!(browser.ask(without).await, with);
    browser.client.refresh().await.expect("loaded");
    browser.until(PILL, &json!("Everything is published")).await;

    // Nothing moves; the site's own first load is behind us.
    let shifts = "const done = arguments[0];\
        new PerformanceObserver((list) => done(list.getEntries().map((entry) => [entry.value, entry.startTime, ...entry.sources.map((source) => source.node?.outerHTML?.slice(0, 200))]))).observe({ type: 'layout-shift', buffered: true });\
        setTimeout(() => done([]), 500);";
    let shifts = browser.client.execute_async(shifts, Vec::new()).await;
    assert_eq!(shifts.expect("observed"), json!([]));

    // By keyboard alone: open, close, and the focus is where it was.
    browser.tab_to(".pill").await;
    browser.press("Enter").await;
    browser
        .until(&format!("{ROOT}.activeElement?.id"), &json!("title"))
        .await;
    browser.tab_to("textarea").await;
    browser.press("Escape").await;
    let closed =
        format!("{ROOT}.querySelector('.panel').hidden && {ROOT}.activeElement?.className");
    assert_eq!(browser.ask(&closed).await, "pill");

    // An instruction from the box in it; the page changes, is loaded again, and the bar goes on where it was.
    browser.press("Enter").await;
    browser.tab_to("textarea").await;
    let action = json!({ "type": "edit", "changes": [{ "op": "replace", "path": "src/pages/index.astro", "find": "Rare stamps", "replace": "Old stamps" }] });
    browser
        .command("Input.insertText", json!({ "text": action.to_string() }))
        .await;
    browser.bar("[data-key=send]").await;
    browser
        .until(
            "document.querySelector('#headline')?.textContent.includes('Old stamps') ?? false",
            &json!(true),
        )
        .await;
    let news = "document.querySelector('edit-bar')?.shadowRoot.querySelector('.now')?.innerText.replace(/\\n+/g, '\\n') ?? ''";
    browser
        .until(
            news,
            &json!("The home page was changed.\nYour change is live on this page."),
        )
        .await;
    browser.picture_of_the_top("bar-live.png").await;

    // What is refused is said in words.
    let action = json!({ "type": "edit", "changes": [{ "op": "replace", "path": "src/pages/index.astro", "find": "Rare stamps", "replace": "x" }] });
    browser
        .ask(&format!(
            "({ROOT}.querySelector('textarea').value = {})",
            json!(action.to_string())
        ))
        .await;
    browser.bar("[data-key=send]").await;
    browser
        .until(news, &json!("The text has changed meanwhile. Please look at the page as it is now and ask again."))
        .await;
    browser.close().await;
    environment.stop().await;
}

#[tokio::test]
async fn no_policy_of_a_site_keeps_the_bar_out_or_is_loosened_for_more() {
    let repository = Repository::amelia();
    repository.write("src/middleware.ts", MIDDLEWARE);
    repository.commit_all("A policy");
    let environment = Start::of(&repository.address()).ready().await;
    let browser = Browser::open(&environment.url()).await;
    for path in ["/about/", "/contact/", "/journal/", "/stamps/"] {
        browser
            .client
            .goto(&format!("{}{path}", environment.url()))
            .await
            .expect("the page opens");
        // It runs, asks, and is styled.
        browser.until(PILL, &json!("Everything is published")).await;
        let styled = format!("getComputedStyle({ROOT}.querySelector('.pill')).position");
        assert_eq!(browser.ask(&styled).await, "fixed", "{path}");
        // What the site's policy forbids is as forbidden as before.
        let inline = "(() => { const button = document.createElement('button'); \
            try { button.setAttribute('onclick', 'window.ran = true'); } catch { return false; } \
            document.body.append(button); button.click(); button.remove(); return window.ran ?? false; })()";
        assert_eq!(browser.ask(inline).await, false, "{path}");
    }
    let log = browser
        .driver("se/log", &json!({ "type": "browser" }))
        .await;
    // What was refused stands in quotes; that a policy is quoted, which names us, is no matter.
    let ours = format!("'{}/_edit/", environment.url());
    let of_ours: Vec<&Value> = log
        .as_array()
        .expect("a log")
        .iter()
        .filter(|entry| {
            entry["message"]
                .as_str()
                .unwrap_or_default()
                .contains(&ours)
        })
        .filter(|entry| entry["level"] == "SEVERE")
        .collect();
    assert!(of_ours.is_empty(), "{of_ours:#?}");
    // Something was forbidden, or this test shows nothing.
    assert!(
        log.to_string().contains("Content Security Policy"),
        "{log:#}"
    );
    browser.close().await;
    environment.stop().await;
}

#[tokio::test]
async fn every_change_has_its_undo_and_publishing_is_asked_for_twice() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let browser = Browser::open("about:blank").await;
    browser
        .command(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": STUB }),
        )
        .await;
    browser
        .client
        .goto(&environment.url())
        .await
        .expect("the page opens");
    browser
        .until(PILL, &json!("2 changes are not published yet"))
        .await;
    browser.picture_of_the_top("bar-pill.png").await;
    browser.tab_to(".pill").await;
    browser.press("Enter").await;
    browser
        .until(&format!("{ROOT}.activeElement?.id"), &json!("title"))
        .await;
    browser.picture_of_the_top("bar-panel.png").await;

    // What a screen reader is told.
    let tree = browser
        .command("Accessibility.getFullAXTree", json!({}))
        .await;
    let named: Vec<String> = tree["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter(|node| node["ignored"] == false)
        .filter(|node| {
            ["button", "textbox", "dialog", "list"]
                .contains(&node["role"]["value"].as_str().unwrap_or_default())
        })
        .map(|node| {
            format!(
                "{}: {}",
                node["role"]["value"].as_str().unwrap_or_default(),
                node["name"]["value"].as_str().unwrap_or_default()
            )
        })
        .collect();
    for expected in [
        "dialog: Your draft",
        "button: Close",
        "textbox: What should be changed?",
        "button: Send",
        "button: Publish 2 changes",
        "button: Discard all",
        "button: Bring in",
        "list: Last changes",
        "button: Undo: The page /about/ was changed.",
    ] {
        assert!(
            named.iter().any(|name| name == expected),
            "{expected}: {named:#?}"
        );
    }
    assert!(
        !named
            .iter()
            .any(|name| name != "list: " && name.ends_with(": ")),
        "{named:#?}"
    );

    // Undo, by keyboard.
    browser.tab_to("[data-key=undo-two]").await;
    browser.press("Enter").await;
    browser.until("window.posted.length", &json!(1)).await;
    let sent = browser.ask("window.posted[0]").await;
    assert_eq!(
        sent["action"],
        json!({ "type": "undo", "instructionId": "two" })
    );
    assert_eq!(
        sent["clientId"],
        environment.get("/_edit/status").await.json()["clientId"]
    );
    // A later change is in the way: both are offered.
    let refused = json!({
        "instructionId": sent["instructionId"], "status": "rejected", "sentence": "A later change is in the way.", "livePages": [],
        "error": { "code": "undo_overlaps", "conflicts": [{ "path": "x", "ours": { "instructionId": "three" } }] },
    });
    browser
        .ask(&format!("window.tell('receipt', {refused})"))
        .await;
    browser.tab_to("[data-key=both]").await;
    browser.press("Enter").await;
    browser.until("window.posted.length", &json!(3)).await;
    let undone = "window.posted.slice(1).map((sent) => sent.action.instructionId)";
    assert_eq!(browser.ask(undone).await, json!(["three", "two"]));

    // Several are: all of them are offered, each once, the newest first, as the list has them.
    let overlaps = |id: &str, ours: Value| {
        let conflicts: Vec<Value> = ours
            .as_array()
            .expect("parties")
            .iter()
            .map(|ours| json!({ "path": "x", "ours": ours }))
            .collect();
        json!({
            "instructionId": id, "status": "rejected", "sentence": format!("In the way of {id}."), "livePages": [],
            "error": { "code": "undo_overlaps", "conflicts": conflicts },
        })
    };
    browser.tab_to("[data-key=undo-two]").await;
    browser.press("Enter").await;
    browser.until("window.posted.length", &json!(4)).await;
    let id = browser.ask("window.posted[3].instructionId").await;
    let id = id.as_str().expect("an id");
    let party = |id: &str| json!({ "instructionId": id, "at": "2026-11-22T09:30:00.000Z" });
    let ours = json!([party("one"), party("three"), party("one")]);
    browser
        .ask(&format!("window.tell('receipt', {})", overlaps(id, ours)))
        .await;
    let all = format!("{ROOT}.querySelector('[data-key=both]')?.innerText");
    browser.until(&all, &json!("Undo all 3")).await;
    browser.tab_to("[data-key=both]").await;
    browser.press("Enter").await;
    browser.until("window.posted.length", &json!(7)).await;
    let undone = "window.posted.slice(4).map((sent) => sent.action.instructionId)";
    assert_eq!(browser.ask(undone).await, json!(["three", "one", "two"]));
    // What somebody pushed has no name, and cannot be taken back here: nothing is offered.
    browser.tab_to("[data-key=undo-two]").await;
    browser.press("Enter").await;
    browser.until("window.posted.length", &json!(8)).await;
    let id = browser.ask("window.posted[7].instructionId").await;
    let id = id.as_str().expect("an id");
    let ours = json!([party("three"), { "name": "Dora Developer" }]);
    browser
        .ask(&format!("window.tell('receipt', {})", overlaps(id, ours)))
        .await;
    let said = format!("{ROOT}.querySelector('.now').innerText");
    browser
        .until(&said, &json!(format!("In the way of {id}.")))
        .await;
    assert_eq!(browser.ask(&all).await, Value::Null);

    // Publishing says what, and is a decision.
    browser.tab_to("[data-key=publish]").await;
    browser.press("Enter").await;
    let question = format!("{ROOT}.querySelector('.ask').innerText.replace(/\\n+/g, '\\n')");
    browser
        .until(&question, &json!("Publish these 2 changes?\nEverybody who visits your site will see it.\nThe home page was changed.\nThe page /about/ was changed.\nPublish now\nNot yet"))
        .await;
    browser.picture_of_the_top("bar-publish.png").await;
    browser.press("Escape").await;
    browser
        .until(
            &format!("{ROOT}.activeElement?.dataset.key"),
            &json!("publish"),
        )
        .await;
    browser.press("Enter").await;
    browser
        .until(&format!("{ROOT}.activeElement?.dataset.key"), &json!("yes"))
        .await;
    // What lands meanwhile was not read, and is not published with it.
    browser
        .ask("(window.told.entries.unshift({ ...window.told.entries[0], instructionId: 'four', sentence: 'The page /late/ was changed.' }), window.told.unpublished = 3, window.tell('draft', { event: 'draft', tip: '' }))")
        .await;
    let listed = format!("{ROOT}.querySelector('ol').innerText.includes('/late/')");
    browser.until(&listed, &json!(true)).await;
    let asked = browser.ask(&question).await;
    let asked = asked.as_str().expect("a question");
    assert!(
        asked.starts_with("Publish these 2 changes?") && !asked.contains("/late/"),
        "{asked}"
    );
    browser.press("Enter").await;
    browser
        .until(
            "window.posted[8]?.action",
            &json!({ "type": "publish", "upTo": "three" }),
        )
        .await;
    // What somebody pushed has no name to publish up to.
    browser
        .ask("(delete window.told.entries[0].instructionId, window.tell('draft', { event: 'draft', tip: '' }))")
        .await;
    let named = format!("{ROOT}.querySelector('[data-key=undo-four]')");
    browser
        .until(&format!("{named} === null"), &json!(true))
        .await;
    browser.tab_to("[data-key=publish]").await;
    browser.press("Enter").await;
    browser
        .until(&format!("{ROOT}.activeElement?.dataset.key"), &json!("yes"))
        .await;
    browser.press("Enter").await;
    browser
        .until("window.posted[9]?.action", &json!({ "type": "publish" }))
        .await;

    // A change of another page has a link to it.
    let landed = json!({ "instructionId": "x", "status": "pushed", "sentence": "The page /about/ was changed.", "livePages": ["/about/"] });
    browser
        .ask(&format!("window.tell('receipt', {landed})"))
        .await;
    browser
        .until(
            &format!("{ROOT}.querySelector('.now a')?.innerText"),
            &json!("See it on the page /about/"),
        )
        .await;

    // Work by hand is in the way, and says so.
    browser
        .ask("(window.told.publishBlocked = 'Somebody is working on the site by hand.', window.tell('draft', { event: 'draft', tip: '' }))")
        .await;
    browser
        .until(
            &format!("{ROOT}.querySelector('#blocked')?.innerText"),
            &json!("Somebody is working on the site by hand."),
        )
        .await;
    let off = format!("{ROOT}.querySelector('[data-key=publish]').getAttribute('aria-disabled')");
    assert_eq!(browser.ask(&off).await, "true");

    // Where events do not pass, it asks.
    browser
        .ask("(window.source.onerror(), window.told.unpublished = 1)")
        .await;
    let publish = format!("{ROOT}.querySelector('[data-key=publish]').innerText");
    browser.until(&publish, &json!("Publish 1 change")).await;
    // And whether they pass again it looks ever more rarely: behind a function they never do. All in one turn, so that no round
    // of the page's own comes between.
    let rounds = "(() => {
        window.deaf = true;
        window.source.readyState = 2;
        const before = window.listened;
        return Array.from({ length: 15 }, () => (window.rounds[3000](), window.listened - before));
    })()";
    assert_eq!(
        browser.ask(rounds).await,
        json!([1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4])
    );
    let again = "(window.deaf = false, window.source.readyState = 1, window.source.onopen())";
    browser.ask(again).await;

    browser.colours("dark").await;
    browser.picture_of_the_top("bar-dark.png").await;
    browser.colours("light").await;
    let phone = json!({ "width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": true });
    browser
        .command("Emulation.setDeviceMetricsOverride", phone)
        .await;
    let width = format!("{ROOT}.querySelector('.panel').getBoundingClientRect().width");
    browser.until(&width, &json!(390)).await;
    browser.picture_of_the_top("bar-phone.png").await;
    let small = format!(
        "[...{ROOT}.querySelectorAll('button')].filter((button) => button.offsetParent !== null || button.getClientRects().length).map((button) => button.getBoundingClientRect()).filter(({{ width, height }}) => width && (width < 44 || height < 44)).length"
    );
    assert_eq!(
        browser.ask(&small).await,
        0,
        "a target is too small for a thumb"
    );
    browser.close().await;
    environment.stop().await;
}
