//! The door: who is let in, what they are shown, and what they are told while there is nothing to see.

use std::time::Duration;

use serde_json::json;

use crate::support::{Environment, PATIENCE, Repository, Start, ask, free_port, instruction};

#[tokio::test]
async fn a_visitor_who_comes_too_early_is_told_and_nothing_is_lost() {
    let repository = Repository::amelia();
    let port = free_port();
    let authority = format!("127.0.0.1:{port}");
    let mut environment = Start::of_any_port(&repository.address())
        .with(&["--port", &port.to_string()])
        .spawn();
    let mut clock = tokio::time::interval(Duration::from_millis(5));
    let open = async {
        while tokio::net::TcpStream::connect(&authority).await.is_err() {
            clock.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, open)
        .await
        .expect("the door opens");

    let page = ask(
        &authority,
        "GET",
        "/",
        &[("accept", "text/html,*/*;q=0.8")],
        None,
    )
    .await;
    assert_eq!(page.status, 503);
    assert_eq!(page.headers["retry-after"], "2");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(
        page.text().contains("The preview is starting"),
        "{}",
        page.text()
    );
    let status = ask(&authority, "GET", "/_edit/status", &[], None)
        .await
        .json();
    assert_eq!(status["state"], "waking");
    assert_eq!(
        ask(&authority, "GET", "/_edit/health", &[], None)
            .await
            .status,
        200
    );
    let ready = ask(&authority, "GET", "/_edit/ready", &[], None).await;
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({ "ready": false }))
    );
    // What is no page waits for the site, and so does an instruction.
    let changes = json!([{ "op": "write", "path": "src/pages/early.astro", "content": "<html><body>Early</body></html>" }]);
    environment.ready = json!({ "port": port });
    let early = instruction(&environment, &status, "early", &changes);
    let sent = ask(
        &authority,
        "POST",
        "/_edit/instructions",
        &[],
        Some(early.to_string()),
    )
    .await;
    assert_eq!(
        (sent.status, sent.json()),
        (202, json!({ "instructionIds": ["early"] }))
    );
    let picture = ask(&authority, "GET", "/favicon.svg", &[], None).await;
    assert_eq!(picture.status, 200);
    assert_eq!(picture.headers["content-type"], "image/svg+xml");

    environment.ready = environment.event("ready").await;
    assert_eq!(
        environment.get("/_edit/ready").await.json(),
        json!({ "ready": true })
    );
    assert_eq!(environment.event("receipt").await["status"], "pushed");
    environment.page_with("/early/", "Early").await;

    // Who listens later hears everything from the beginning, and whoever comes back what was missed.
    let mut events = environment.events(Some(0)).await;
    let (first, event) = events.next().await.expect("an event");
    assert_eq!(
        (&event["event"], &event["phase"]),
        (&json!("phase"), &json!("config"))
    );
    let (second, event) = events.next().await.expect("an event");
    assert_eq!((second, &event["state"]), (first + 1, &json!("done")));
    let mut again = environment.events(Some(first)).await;
    assert_eq!(again.next().await.expect("an event"), (second, event));
    let receipt = loop {
        let (_, event) = again.next().await.expect("an event");
        if event["event"] == "receipt" {
            break event;
        }
    };
    assert_eq!(receipt["instructionId"], "early");

    // An agent that begins anew on the same port counts on: a listener that comes back by itself misses nothing.
    let (last, _) = (again, environment.stop().await);
    drop(last);
    let environment = Start::of_any_port(&repository.address())
        .with(&["--port", &port.to_string()])
        .ready()
        .await;
    let mut events = environment.events(Some(second)).await;
    let (number, event) = events.next().await.expect("an event");
    assert_eq!((number > second, &event["phase"]), (true, &json!("config")));
}

#[tokio::test]
async fn the_door_shows_the_site_and_nothing_else_of_the_machine() {
    let repository = Repository::amelia();
    repository.write(".env", "SECRET=of-the-site\n");
    repository.write(
        "src/pages/away.astro",
        "---\nreturn Astro.redirect(new URL('/about/', Astro.url).href);\n---\n",
    );
    repository.commit_all("A secret");
    let environment = Start::of(&repository.address()).ready().await;
    only_files_of_the_site_are_shown(&environment).await;
    only_our_own_names_and_pages_are_answered(&environment).await;
    pictures_come_whole_and_in_part(&environment, &repository).await;
    a_redirect_stays_at_the_door(&environment).await;
    the_doors_own_addresses_are_never_the_sites(&environment).await;
    instructions_are_taken_several_at_a_time_or_not_at_all(&environment).await;
}

/// The status of an answer that gives nothing away.
async fn status_of(environment: &Environment, path: &str, headers: &[(&str, &str)]) -> u16 {
    let answer = environment.request("GET", path, headers, None).await;
    let text = answer.text();
    assert!(
        !text.contains("root:") && !text.contains("of-the-site"),
        "{path}: {text}"
    );
    answer.status
}

async fn only_files_of_the_site_are_shown(environment: &Environment) {
    let tree = environment.work_tree().display().to_string();
    for (path, expected) in [
        ("/@fs/etc/passwd", 403),
        ("/@fs/etc/passwd?raw", 403),
        ("/@fs/etc/passwd?import&raw??", 403),
        ("/@fs//etc/passwd", 403),
        ("/%40fs/etc/passwd", 403),
        ("/@fs%2fetc%2fpasswd", 403),
        ("/%2540fs%252fetc%252fpasswd", 403),
        ("/x/@fs/etc/passwd", 403),
        ("/@fs/%2e%2e/etc/passwd", 403),
        ("/..%2f..%2f..%2fetc/passwd", 400),
        ("/.git/config", 404),
        ("/.env", 404),
        ("/.env?raw", 404),
        ("/.env?import&url", 404),
        ("/%2eenv?raw", 404),
        (&format!("/@fs{tree}/.env?raw"), 404),
        ("/__edit-agent/boot", 404),
    ] {
        assert_eq!(status_of(environment, path, &[]).await, expected, "{path}");
    }
    for path in [
        "/_image?href=/@fs/etc/passwd&f=svg",
        "/_image?href=%2F%40fs%2Fetc%2Fpasswd&w=100&f=png",
        &format!("/_image?href=/@fs{tree}/.env&f=svg"),
        "/etc/passwd?raw",
        "/etc/passwd?import&raw",
        "//etc/passwd?raw",
    ] {
        assert_ne!(status_of(environment, path, &[]).await, 200, "{path}");
    }
    // What is part of it, though it is asked for in the same way.
    assert_eq!(
        status_of(environment, &format!("/@fs{tree}/src/lib/format.ts"), &[]).await,
        200
    );
}

async fn only_our_own_names_and_pages_are_answered(environment: &Environment) {
    let authority = environment.authority();
    let own_origin = format!("http://{authority}");
    let port = environment.ready["port"].to_string();
    for (headers, expected) in [
        (&[("host", "evil.example")][..], 403),
        (&[("host", &format!("localhost:{port}"))], 200),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", own_origin.as_str())], 200),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "no-cors"),
                ("sec-fetch-dest", "script"),
            ],
            403,
        ),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            200,
        ),
    ] {
        assert_eq!(
            status_of(environment, "/", headers).await,
            expected,
            "{headers:?}"
        );
    }
    environment.hot_reload(&[]).await.expect("our own page");
    let localhost = format!("localhost:{port}");
    environment
        .hot_reload(&[
            ("host", &localhost),
            ("origin", &format!("http://{localhost}")),
        ])
        .await
        .expect("our own page by its other name");
    for headers in [
        [
            ("host", authority.as_str()),
            ("origin", "https://evil.example"),
        ],
        [("host", "evil.example"), ("origin", "http://evil.example")],
    ] {
        assert_eq!(
            environment.hot_reload(&headers).await.expect_err("refused"),
            403,
            "{headers:?}"
        );
    }
}

async fn pictures_come_whole_and_in_part(environment: &Environment, repository: &Repository) {
    let picture = std::fs::read(repository.path().join("public/images/album.jpg")).expect("there");
    let length = picture.len().to_string();
    let whole = environment.get("/images/album.jpg").await;
    assert_eq!((whole.status, whole.body == picture), (200, true));
    let head = environment
        .request("HEAD", "/images/album.jpg", &[], None)
        .await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], length);
    let slice = environment
        .request(
            "GET",
            "/images/album.jpg",
            &[("range", "bytes=100-199")],
            None,
        )
        .await;
    assert_eq!(slice.status, 206);
    assert_eq!(
        slice.headers["content-range"],
        format!("bytes 100-199/{length}")
    );
    assert_eq!(slice.body, picture[100..200]);
    let none = environment
        .request(
            "GET",
            "/images/album.jpg",
            &[("range", "bytes=99999999-")],
            None,
        )
        .await;
    assert_eq!(none.status, 416);
}

async fn a_redirect_stays_at_the_door(environment: &Environment) {
    // Astro makes it of the address under which it is asked, which is its own.
    let away = environment.get("/away/").await;
    assert_eq!(away.status, 302);
    let location = away.headers["location"].to_str().expect("text");
    assert!(
        location == "/about/" || location == format!("{}/about/", environment.url()),
        "{location}"
    );
}

async fn the_doors_own_addresses_are_never_the_sites(environment: &Environment) {
    assert_eq!(
        environment.get("/_edit/health").await.json(),
        json!({ "healthy": true, "pipeline": "ok", "life": "ok" })
    );
    assert_eq!(
        environment.get("/_edit/ready").await.json(),
        json!({ "ready": true })
    );
    let status = environment.status().await;
    assert_eq!(
        (
            &status["state"],
            &status["site"]["state"],
            &status["site"]["health"]
        ),
        (&json!("ready"), &json!("serving"), &json!("ok"))
    );
    for path in [
        "/_edit/x",
        "/_edit",
        "/_edit/",
        "/_edit/instructions/never-sent",
    ] {
        let answer = environment.get(path).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (404, Some("not_found")),
            "{path}"
        );
    }
    assert_eq!(environment.get("/_edit/instructions").await.status, 405);
}

async fn instructions_are_taken_several_at_a_time_or_not_at_all(environment: &Environment) {
    let status = environment.status().await;
    let write = |id: &str, path: &str| {
        let changes = json!([{ "op": "write", "path": path, "content": format!("<html><body>{id}</body></html>") }]);
        instruction(environment, &status, id, &changes)
    };
    let refused = environment
        .post(
            "/_edit/instructions",
            &json!([
                write("good", "src/pages/good.astro"),
                write("bad", "../bad.astro")
            ]),
        )
        .await;
    assert_eq!(refused.status, 422);
    let path = refused.json()["errors"][0]["path"].clone();
    assert_eq!(path, "$[1].action.changes[0].path");
    let accepted = environment
        .post(
            "/_edit/instructions",
            &json!([
                write("one", "src/pages/one.astro"),
                write("two", "src/pages/two.astro")
            ]),
        )
        .await;
    assert_eq!(
        (accepted.status, accepted.json()),
        (202, json!({ "instructionIds": ["one", "two"] }))
    );
    environment.page_with("/one/", "one").await;
    environment.page_with("/two/", "two").await;
    assert_eq!(
        environment.get("/_edit/instructions/good").await.status,
        404
    );
    // A call that is too large is told so, and not cut off while it is still being written.
    for mebibytes in [10, 40] {
        let large = environment
            .request(
                "POST",
                "/_edit/instructions",
                &[],
                Some(" ".repeat(mebibytes * 1024 * 1024)),
            )
            .await;
        assert_eq!(
            (large.status, large.json()["code"].as_str()),
            (413, Some("message_too_large"))
        );
    }
}

/// Between the page and its socket there is a moment in which nobody can be told anything.
#[tokio::test]
async fn a_page_that_listens_only_after_a_change_is_told_of_it() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let loads = [("accept", "text/html"), ("user-agent", "a browser")];
    let page = environment.request("GET", "/", &loads, None).await;
    assert!(page.text().contains("Rare stamps"));
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Old stamps",
        ])
        .await;
    let mut late = environment
        .hot_reload(&[("user-agent", "a browser")])
        .await
        .expect("accepted");
    late.message("full-reload").await;
}

/// Astro tells of what is wrong a moment after the page has failed. Whoever's browser is slower, while somebody else is listening, would see
/// an empty page and never learn why.
#[tokio::test]
async fn a_page_that_listens_only_after_it_was_said_what_is_wrong_is_told_of_it() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--on-broken", "keep"])
        .ready()
        .await;
    let mut somebody = environment
        .hot_reload(&[("user-agent", "somebody else")])
        .await
        .expect("accepted");
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "id=\"headline\"",
            "id=\"headline\" {{{",
        ])
        .await;
    let loads = [("accept", "text/html"), ("user-agent", "a browser")];
    let page = environment.request("GET", "/", &loads, None).await;
    assert_eq!(page.status, 500);
    // The first may be of what the agent looked at; the second comes after the page was given out.
    for _ in 0..2 {
        somebody.message("error").await;
    }
    let mut late = environment
        .hot_reload(&[("user-agent", "a browser")])
        .await
        .expect("accepted");
    late.message("error").await;
}
