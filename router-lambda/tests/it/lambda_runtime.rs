//! The function as AWS runs it: the program itself, asking a real emulator of the Lambda runtime for events, with its records in an
//! emulator of AWS, behind a load balancer.

use contract::session::State;
use contract::{ClientConfig, SessionId};
use platform::conformance::emulator::Emulator;
use serde_json::{Value, json};

use crate::lambda::{HOST, ID, MULTI, always, awake, get, page, proof};
use crate::support::alb::Alb;
use crate::support::http::ask;
use crate::support::runtime::Runtime;
use crate::support::scribe::{Door, Proves};

/// Where the door is. In the cloud doors have one port only.
const DOOR: &str = "127.77.3.1:8080";

#[tokio::test]
async fn the_function_serves_a_site_under_the_runtime_of_a_lambda() {
    let emulator = tokio::task::spawn_blocking(|| Emulator::shared(env!("CARGO_TARGET_TMPDIR")));
    let emulator = emulator.await.expect("it starts");
    let (stack, runtime) = tokio::join!(emulator.stack(), Runtime::start());
    let aws = emulator.aws().await;
    let config = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/clients/amelia.json"
    ));
    let config: ClientConfig =
        serde_json::from_str(&config.expect("a configuration")).expect("a configuration");
    aws.clients(&stack.clients).put(&config).await.expect("put");
    let sessions = aws.sessions(&stack.sessions);
    let fields = "content-type: text/html; charset=utf-8\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n";
    let door = Door::open_at(
        DOOR,
        proof("5a"),
        Proves::Well(proof("5a")),
        always(&page(fields, "<p>ü</p>".as_bytes())),
    )
    .await;
    awake(&*sessions, &door).await;
    let mut function = runtime.router(emulator, &stack);
    let alb = Alb::start(MULTI, runtime.invoke()).await;

    let entry = ask(
        alb.address(),
        HOST,
        "GET",
        &format!("/session/{ID}/about?raw"),
        "",
        b"",
    )
    .await;
    assert_eq!(
        (entry.status, entry.one("location")),
        (303, Some("/about?raw"))
    );
    let cookie = entry.one("set-cookie").expect("a cookie");
    assert!(
        cookie.starts_with(&format!("__Host-edit-session={ID}; ")),
        "{cookie}"
    );
    for target in [
        "/about?raw",
        "/src/components/Header.astro?astro&type=style&index=0&lang.css",
        "/a%20b/[slug]?q=a+b&a&a",
    ] {
        let answer = get(&alb, target, "").await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "<p>ü</p>"),
            "{target}"
        );
        assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
        let asked = door.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].line, format!("GET {target} HTTP/1.1"));
        assert!(asked[0].proven);
    }
    hostile_hosts_are_refused(&alb, &door).await;
    everybody_else_is_answered(&runtime).await;
    // After an error as before it.
    assert_eq!(get(&alb, "/", "").await.status, 200);

    let id: SessionId = ID.parse().expect("an id");
    assert_eq!(
        sessions
            .get(&id)
            .await
            .expect("answered")
            .expect("there")
            .state,
        State::Ready
    );
    assert!(
        function.try_wait().expect("it is ours").is_none(),
        "one process has answered all of it"
    );
}

async fn hostile_hosts_are_refused(alb: &Alb, door: &Door) {
    // A hostile host is a host that is not ours, and no reason to fall over.
    for host in [
        "edit.amelia.example.com:99999",
        "[::1]]@",
        "edit.bruno.example.com",
    ] {
        let answer = ask(
            alb.address(),
            host,
            "GET",
            "/",
            &format!("cookie: __Host-edit-session={ID}\r\n"),
            b"",
        )
        .await;
        assert!(
            [400, 404, 421].contains(&answer.status),
            "{host}: {}",
            answer.status
        );
    }
    assert!(door.asked().is_empty());
}

/// Checks, messages, and whoever should not have been subscribed.
async fn everybody_else_is_answered(runtime: &Runtime) {
    let check = json!({ "requestContext": { "elb": {} }, "httpMethod": "GET", "path": "/", "headers": { "user-agent": "ELB-HealthChecker/2.0" }, "body": "" });
    let answer: Value =
        serde_json::from_str(&runtime.invokes(&check.to_string()).await.expect("answered"))
            .expect("JSON");
    assert_eq!(answer["statusCode"], 200);
    let nonsense =
        json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": "m1", "body": "nonsense" }] });
    let answer = runtime.invokes(&nonsense.to_string()).await;
    assert_eq!(answer.as_deref(), Ok(r#"{"batchItemFailures":[]}"#));
    let unknown = runtime
        .invokes(r#"{"detail":"something else"}"#)
        .await
        .expect_err("it is nobody's event");
    assert!(
        unknown.contains("an object with the keys detail"),
        "{unknown}"
    );
}
