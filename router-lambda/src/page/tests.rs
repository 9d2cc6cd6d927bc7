use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use contract::client_config::{Brand, Colours};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;

fn client() -> ClientConfig {
    let config = json!({
        "clientId": "amelia",
        "domains": { "production": "amelia.example", "edit": "edit.amelia.example", "api": "api.amelia.example" },
        "repository": { "url": "git@github.com:amelia/site.git", "branch": "main" },
        "infrastructure": {},
        "settings": { "containerSize": "small", "idleTimeoutMinutes": 5, "maxConcurrentSessions": 2 },
        "status": "active",
        "brand": { "name": "Amelia <Stamps> & \"Coins\"", "colours": { "accent": "#8a1c2b", "background": "#fffaf2", "text": "#20160f" } },
    });
    ClientConfig::parse(&config).expect("valid")
}

fn failure() -> Failure {
    Failure {
        code: "remote_unavailable".to_owned(),
        message: "could not reach git@github.com: timed out".to_owned(),
        retryable: true,
    }
}

fn at<'a>(client: &'a ClientConfig, standing: Standing<'a>) -> Waiting<'a> {
    Waiting {
        client,
        standing,
        elapsed: Some(Duration::from_secs(12)),
        estimate: Some(Duration::from_secs(31)),
        wake: "/_edit/wake?s=amelia_0a&g=3",
        state: "/_edit/session",
        here: "/about/?a=1&b=%3C",
        by_itself: true,
    }
}

fn every_standing(failure: &Failure) -> Vec<Standing<'_>> {
    let mut all = vec![
        Standing::Asleep,
        Standing::Waking { phase: None },
        Standing::Ready,
        Standing::Draining,
        Standing::Full { limit: 2 },
        Standing::Suspended,
        Standing::Held {
            again_in: Duration::from_millis(20_500),
        },
        Standing::RecordsDown,
    ];
    for phase in [
        Phase::Config,
        Phase::Claim,
        Phase::Clone,
        Phase::Install,
        Phase::Serve,
    ] {
        all.push(Standing::Waking { phase: Some(phase) });
    }
    for again_in in [None, Some(Duration::from_secs(15))] {
        all.push(Standing::Failed { failure, again_in });
    }
    all
}

fn body(answer: &Response<Bytes>) -> &str {
    std::str::from_utf8(answer.body()).expect("text")
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().expect("visible"))
}

/// Everything that is answered in words, in every form that it has.
fn everything() -> Vec<Response<Bytes>> {
    let (client, failure) = (client(), failure());
    let mut all = Vec::new();
    for form in [Form::Page, Form::Json, Form::Text] {
        for standing in every_standing(&failure) {
            all.push(waiting(&at(&client, standing), form));
        }
        all.push(not_found(form));
        all.push(unavailable("The records do not answer.", form));
        all.push(too_large(Some(&client), form));
    }
    all.extend([
        state(&at(&client, Standing::Asleep)),
        link(&client, "/new?t=v1.a.b.c", true),
        link_used(),
        link_expired(),
        link_refused(),
        second_session(&client, "/session/amelia_0a/", "/"),
        misdirected(),
        refused(
            StatusCode::BAD_REQUEST,
            "There are two hosts in this request.",
        ),
        wrong_method("GET, HEAD"),
        no_sockets(),
    ]);
    all
}

#[test]
fn nothing_that_the_router_says_is_kept_or_found() {
    for answer in everything() {
        assert_eq!(header(&answer, "cache-control"), "no-store", "{answer:?}");
        assert_eq!(header(&answer, "x-robots-tag"), "noindex", "{answer:?}");
        assert_eq!(header(&answer, "referrer-policy"), "same-origin");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert!(header(&answer, "set-cookie").is_empty());
    }
}

#[test]
fn a_page_runs_nothing_and_asks_nobody_that_is_not_of_this_host() {
    let pages = everything().into_iter().filter(|answer| {
        answer.headers()[CONTENT_TYPE]
            .to_str()
            .is_ok_and(|kind| kind.starts_with("text/html"))
    });
    for page in pages {
        let policy = header(&page, CONTENT_SECURITY_POLICY.as_str());
        for rule in [
            "default-src 'none';",
            "style-src 'self' 'sha256-",
            "script-src 'self';",
            "connect-src 'self';",
            "frame-ancestors 'self';",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        let html = body(&page);
        for never in [
            "://",
            " onclick",
            " onload",
            " onerror",
            "style=",
            "javascript:",
            "<img",
            "<iframe",
            "<script>",
            "unsafe",
        ] {
            assert!(!html.contains(never), "{never}: {html}");
        }
        assert_eq!(html.matches("<h1").count(), 1, "{html}");
        assert!(html.contains("<html lang=\"en\">") && html.contains("name=\"robots\""));
        // The style in the page is the one that the policy lets in.
        let style = html
            .split_once("<style>")
            .and_then(|(_, rest)| rest.split_once("</style>"))
            .expect("a style")
            .0;
        let digest = BASE64.encode(Sha256::digest(style.as_bytes()));
        assert!(policy.contains(&digest), "{policy} {style}");
    }
}

#[test]
fn a_visitor_who_waits_is_told_when_to_come_back() {
    let (client, failure) = (client(), failure());
    for standing in every_standing(&failure) {
        for form in [Form::Page, Form::Json, Form::Text] {
            let answer = waiting(&at(&client, standing), form);
            if standing == Standing::Ready && form == Form::Json {
                assert_eq!(answer.status(), StatusCode::OK);
                continue;
            }
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let expected = match standing {
                Standing::Waking { .. } | Standing::Draining => "2",
                Standing::Ready => "1",
                Standing::RecordsDown => "5",
                Standing::Held { .. } => "21",
                Standing::Failed {
                    again_in: Some(_), ..
                } => "15",
                Standing::Failed { .. } | Standing::Asleep | Standing::Full { .. } => "30",
                Standing::Suspended => "3600",
            };
            assert_eq!(header(&answer, "retry-after"), expected, "{standing:?}");
        }
    }
}

#[test]
fn the_waiting_page_is_small() {
    let page = waiting(&at(&client(), Standing::Waking { phase: None }), Form::Page);
    let html = body(&page);
    let mut bytes = html.len();
    for part in html
        .split('"')
        .filter(|part| part.starts_with("/_edit/static/"))
    {
        bytes += asset(part).expect("it is there").body().len();
    }
    assert!(
        bytes > html.len() + 5_000,
        "the assets are counted: {bytes}"
    );
    assert!(bytes <= 20 * 1024, "{bytes} bytes");
}

#[test]
fn the_waiting_page_reads_well_without_its_styles() {
    let client = client();
    let page = waiting(
        &at(
            &client,
            Standing::Waking {
                phase: Some(Phase::Install),
            },
        ),
        Form::Page,
    );
    let hashed = body(&page);
    let mut html = hashed.to_owned();
    for name in hashed
        .split('"')
        .filter(|part| part.starts_with("/_edit/static/"))
    {
        let (before, extension) = name.rsplit_once('.').expect("an extension");
        let (before, _) = before.rsplit_once('.').expect("a hash");
        html = html.replace(name, &format!("{before}.HASH.{extension}"));
    }
    insta::assert_snapshot!(html, @r#"
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width,initial-scale=1">
    <meta name="robots" content="noindex">
    <meta name="color-scheme" content="light dark">
    <title>The preview is starting · Amelia &lt;Stamps&gt; &amp; &quot;Coins&quot;</title>
    <link rel="stylesheet" href="/_edit/static/page.HASH.css">
    <style>:root{--ground:#fffaf2;--text:#20160f;--quiet:#5e554e;--line:#dbd5cd;--accent:#8a1c2b;--on-accent:#ffffff}@media(prefers-color-scheme:dark){:root{--ground:#17191c;--text:#eceff2;--quiet:#b0b3b6;--line:#393b3e;--accent:#8ab8ff;--on-accent:#000000}}</style>
    <noscript><meta http-equiv="refresh" content="3"></noscript><script src="/_edit/static/page.HASH.js" defer></script>
    </head>
    <body>
    <header><p><bdi>Amelia &lt;Stamps&gt; &amp; &quot;Coins&quot;</bdi></p></header>
    <main data-role="waiting" data-now="{&quot;state&quot;:&quot;waking&quot;,&quot;phase&quot;:&quot;install&quot;,&quot;elapsedMs&quot;:12000,&quot;estimateMs&quot;:31000,&quot;headline&quot;:&quot;The preview is starting&quot;,&quot;words&quot;:&quot;Putting the site’s building blocks in place.&quot;,&quot;expectation&quot;:&quot;It usually takes about 30 seconds.&quot;,&quot;step&quot;:2,&quot;mark&quot;:&quot;waking.install&quot;}" data-wake="/_edit/wake?s=amelia_0a&amp;g=3" data-state="/_edit/session" data-here="/about/?a=1&amp;b=%3C" data-by-itself="yes" data-offline="This page does not get an answer at the moment. It keeps trying." data-reference="If you ask for help, please say: {code}">
    <h1 id="headline">The preview is starting</h1>
    <p id="words" role="status" aria-live="polite">Putting the site’s building blocks in place.</p>
    <div id="progress">
    <progress id="bar" max="100" value="38" aria-label="How far it is"></progress>
    <ol id="steps" aria-label="What is done">
    <li class="done"><span>Getting ready</span></li>
    <li class="done"><span>Fetching the site</span></li>
    <li aria-current="step"><span>Putting its building blocks in place</span></li>
    <li><span>Opening the first page</span></li>
    </ol>
    <p id="expectation" class="quiet">It usually takes about 30 seconds.</p>
    </div>
    <form id="wake" method="post" action="/_edit/wake?s=amelia_0a&amp;g=3" hidden><button id="button">Wake it up</button></form>
    <p id="open" hidden><a class="button" id="link" href="/./about/?a=1&amp;b=%3C">Open the page</a></p>
    <p id="reference" class="quiet" hidden></p>
    </main>
    </body>
    </html>
    "#);
}

#[test]
fn a_program_gets_the_same_as_the_page_says() {
    let (client, failure) = (client(), failure());
    let told = |standing| {
        let answer = waiting(&at(&client, standing), Form::Json);
        assert_eq!(header(&answer, "content-type"), "application/json");
        assert_eq!(
            answer.body(),
            state(&at(&client, standing)).body(),
            "the script is told the same"
        );
        serde_json::from_slice::<Value>(answer.body()).expect("JSON")
    };
    assert_eq!(
        told(Standing::Waking {
            phase: Some(Phase::Clone)
        }),
        json!({
            "state": "waking",
            "phase": "clone",
            "elapsedMs": 12000,
            "estimateMs": 31000,
            "headline": "The preview is starting",
            "words": "Fetching the site.",
            "expectation": "It usually takes about 30 seconds.",
            "step": 1,
            "mark": "waking.clone",
        })
    );
    assert_eq!(
        told(Standing::Failed {
            failure: &failure,
            again_in: Some(Duration::from_secs(15))
        }),
        json!({
            "state": "failed",
            "elapsedMs": 12000,
            "estimateMs": 31000,
            "failure": { "code": "remote_unavailable", "message": "could not reach git@github.com: timed out", "retryable": true },
            "againMs": 15000,
            "headline": "The preview did not start",
            "words": "The place where the site is kept does not answer at the moment. It is tried again in a moment.",
            "button": "Try again",
            "mark": "failed",
        })
    );
    assert_eq!(
        told(Standing::Ready)["state"],
        "ready",
        "what the script goes on at"
    );
}

#[test]
fn a_module_and_an_image_get_one_line() {
    let answer = waiting(&at(&client(), Standing::Asleep), Form::Text);
    assert_eq!(
        body(&answer),
        "The preview is asleep. It wakes up when you want to see it.\n"
    );
}

#[test]
fn without_a_script_a_page_looks_again_and_never_wakes() {
    let (client, failure) = (client(), failure());
    for standing in every_standing(&failure) {
        let page = waiting(&at(&client, standing), Form::Page);
        let html = body(&page);
        let looks_again = html.contains("http-equiv=\"refresh\"");
        assert_eq!(looks_again, standing.passes(), "{standing:?}");
        if looks_again {
            let (_, rest) = html.split_once("<noscript>").expect("only there");
            let (inside, _) = rest.split_once("</noscript>").expect("it ends");
            assert!(inside.starts_with("<meta http-equiv=\"refresh\" content=\""));
            assert!(
                !inside.contains("url") && !inside.contains("wake"),
                "the same address again: {inside}"
            );
        }
        // The button is there for whoever can wake it, and is a form.
        let form = "<form id=\"wake\" method=\"post\" action=\"/_edit/wake?s=amelia_0a&amp;g=3\">";
        assert_eq!(html.contains(form), standing.can_be_woken(), "{html}");
    }
}

#[test]
fn what_the_record_says_of_a_failure_is_not_on_the_page() {
    let (client, failure) = (client(), failure());
    let standing = Standing::Failed {
        failure: &failure,
        again_in: None,
    };
    let page = waiting(&at(&client, standing), Form::Page);
    let visible = body(&page).split_once("<body>").expect("a body").1;
    let visible = visible
        .split_once("data-now=")
        .map_or(visible, |(_, rest)| {
            rest.split_once("data-wake=").expect("it follows").1
        });
    assert!(!visible.contains("github.com"), "{visible}");
    assert!(visible.contains("If you ask for help, please say: remote_unavailable"));
}

#[test]
fn whatever_is_not_for_a_visitor_is_not_found_in_the_same_words() {
    let page = not_found(Form::Page);
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
    assert_eq!(page.body(), not_found(Form::Page).body());
    let html = body(&page);
    for theirs in ["Amelia", "amelia", "#8a1c2b", "<script"] {
        assert!(!html.contains(theirs), "{html}");
    }
    insta::assert_snapshot!(body(&not_found(Form::Text)), @"There is nothing here. Please check the address, or open the link again that you were sent.");
    insta::assert_snapshot!(body(&not_found(Form::Json)), @r#"{"headline":"There is nothing here","words":"Please check the address, or open the link again that you were sent."}"#);
}

#[test]
fn every_refusal_has_its_status() {
    let client = client();
    for (answer, status) in [
        (link(&client, "/new?t=x", false), 200),
        (link_used(), 410),
        (link_expired(), 410),
        (link_refused(), 403),
        (second_session(&client, "/session/a/", "/"), 409),
        (misdirected(), 421),
        (no_sockets(), 501),
        (wrong_method("POST"), 405),
        (too_large(Some(&client), Form::Page), 507),
        (too_large(None, Form::Text), 507),
        (unavailable("x", Form::Page), 503),
    ] {
        assert_eq!(answer.status().as_u16(), status, "{}", body(&answer));
    }
    assert_eq!(header(&wrong_method("POST"), "allow"), "POST");
}

#[test]
fn the_form_of_an_answer_is_what_was_asked_for() {
    let of = |fields: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Form::of(&headers)
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
    for (fields, form) in [
        (vec![], Form::Text),
        (vec![("accept", "*/*")], Form::Text),
        (vec![("accept", browser)], Form::Page),
        (vec![("accept", "TEXT/HTML;q=1")], Form::Page),
        (
            vec![("sec-fetch-mode", "navigate"), ("accept", browser)],
            Form::Page,
        ),
        (vec![("sec-fetch-mode", "navigate")], Form::Page),
        // A script that fetches a part of a page: nobody would see ours.
        (
            vec![("sec-fetch-mode", "cors"), ("accept", "text/html")],
            Form::Text,
        ),
        (vec![("accept", "application/json")], Form::Json),
        (
            vec![
                ("sec-fetch-mode", "same-origin"),
                ("accept", "application/json, */*"),
            ],
            Form::Json,
        ),
        (
            vec![("accept", "image/png"), ("accept", "application/json")],
            Form::Json,
        ),
        (vec![("accept", "application/jsonp")], Form::Text),
    ] {
        assert_eq!(of(&fields), form, "{fields:?}");
    }
}

proptest! {
    /// Whatever is put in, it is text: no name, no path and no failure adds an element or an attribute.
    #[test]
    fn nothing_that_comes_from_outside_is_markup(
        name in "[^\\p{C}]{1,80}", here in "/[!-~]{0,60}", code in "[ -~]{0,40}", action in "[!-~]{0,60}",
    ) {
        let mut client = client();
        client.brand = Some(Brand { name: Some(name), colours: Some(Colours::default()), ..Brand::default() });
        let plain = {
            let mut client = client.clone();
            client.brand = Some(Brand { name: Some("x".to_owned()), colours: Some(Colours::default()), ..Brand::default() });
            client
        };
        let shape = |client: &ClientConfig, here: &str, code: &str, action: &str| {
            let failure = Failure { code: code.to_owned(), message: code.to_owned(), retryable: true };
            let standing = Standing::Failed { failure: &failure, again_in: None };
            let page = waiting(&Waiting { here, wake: action, state: action, ..at(client, standing) }, Form::Page);
            let link = link(client, action, true);
            let second = second_session(client, action, here);
            let count = |mark: char| [&page, &link, &second].map(|answer| body(answer).matches(mark).count());
            [count('<'), count('>'), count('"')]
        };
        prop_assert_eq!(shape(&client, &here, &code, &action), shape(&plain, "/", "x", "/"));
    }

    /// A browser takes `//name` and `/\name` for another host; ours begins with what makes it a path.
    #[test]
    fn no_link_leads_to_another_host(here in "[/\\\\][!-~]{0,60}") {
        let link = of_this_host(&here);
        prop_assert!(link.starts_with("/./"), "{}", link);
        prop_assert!(link.ends_with(&here));
    }
}
