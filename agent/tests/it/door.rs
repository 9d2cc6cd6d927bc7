//! The door: what passes, what is kept out, and what it says of itself.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Response;

use crate::support::{Environment, Repository, Start, instruction};

/// Opens the HMR socket as a browser does; the refusal's status if it is refused.
async fn hmr(
    environment: &Environment,
    origin: &str,
) -> Result<tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>, u16> {
    let authority = environment.url().replace("http://", "");
    let client = environment.get("/@vite/client").await.text();
    let token = client
        .split_once("const wsToken = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .expect("a token")
        .0;
    let mut request = format!("ws://{authority}/?token={token}")
        .into_client_request()
        .expect("a request");
    request.headers_mut().insert(
        "sec-websocket-protocol",
        "vite-hmr".parse().expect("a value"),
    );
    request
        .headers_mut()
        .insert("origin", origin.parse().expect("a value"));
    let stream = tokio::net::TcpStream::connect(&authority)
        .await
        .expect("the door is open");
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            Err(Response::status(&response).as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_site_passes_whole_and_what_is_no_part_of_it_does_not() {
    let repository = Repository::amelia();
    repository.write(".env", "SECRET=hunter2\n");
    repository.commit_all("A secret");
    let environment = Start::of(&repository.address()).ready().await;

    // Sockets: ours, and not from elsewhere.
    let mut socket = hmr(&environment, &environment.url())
        .await
        .expect("our own page may");
    let hello = socket.next().await.expect("a message").expect("whole");
    assert_eq!(hello.to_text().expect("text"), r#"{"type":"connected"}"#);
    assert_eq!(
        hmr(&environment, "http://evil.example").await.err(),
        Some(403)
    );
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "Rare stamps",
            "Fine stamps",
        ])
        .await;
    let message = tokio::time::timeout(crate::support::PATIENCE, socket.next())
        .await
        .expect("in time")
        .expect("a message")
        .expect("whole");
    let message: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
    assert!(
        ["update", "full-reload"].contains(&message["type"].as_str().unwrap_or_default()),
        "{message}"
    );

    // Pages, ranges, heads.
    let page = environment.get("/").await;
    assert!(
        page.headers["content-type"]
            .to_str()
            .is_ok_and(|kind| kind.starts_with("text/html"))
            && page.status == 200
    );
    let whole = environment.get("/images/album.jpg").await;
    let part = environment
        .request(
            "GET",
            "/images/album.jpg",
            &[("range", "bytes=10-19")],
            None,
        )
        .await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, &whole.body[10..20])
    );
    let head = environment
        .request("HEAD", "/images/album.jpg", &[], None)
        .await;
    assert_eq!(
        (
            head.status,
            head.body.len(),
            head.headers["content-length"].to_str().ok()
        ),
        (200, 0, Some(whole.body.len().to_string().as_str()))
    );

    // What is kept out.
    for (path, headers, expected) in [
        ("/", &[("host", "evil.example")][..], 403),
        ("/@fs/etc/passwd", &[], 403),
        ("/@fs/etc/passwd?raw", &[], 403),
        ("/%40fs/etc/passwd?import&raw", &[], 403),
        ("/@fs//etc/passwd", &[], 403),
        ("/.git/config", &[], 404),
        ("/.env", &[], 404),
        ("/.env?raw", &[], 404),
        ("/%2eenv?import&raw", &[], 404),
        ("/src/../.env", &[], 400),
        (
            "/src/pages/index.astro",
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "no-cors"),
            ],
            403,
        ),
        ("/_edit/status", &[("origin", "http://evil.example")], 403),
        ("/_edit/nothing", &[], 404),
    ] {
        let answer = environment.request("GET", path, headers, None).await;
        assert_eq!(
            answer.status,
            expected,
            "{path} {headers:?}: {}",
            answer.text()
        );
        assert!(
            !answer.text().contains("hunter2") && !answer.text().contains("root:"),
            "{path}"
        );
    }
    let forged = environment
        .request(
            "POST",
            "/_edit/instructions",
            &[
                ("origin", "http://evil.example"),
                ("sec-fetch-site", "cross-site"),
            ],
            Some("{}".to_owned()),
        )
        .await;
    assert_eq!(forged.status, 403);
    environment.stop().await;
}

#[tokio::test]
async fn the_door_says_how_it_is_and_what_happened_to_whoever_comes_back() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    assert_eq!(environment.get("/_edit/health").await.status, 200);
    assert_eq!(
        environment.get("/_edit/ready").await.json(),
        json!({ "ready": true })
    );
    let status = environment.status().await;
    assert_eq!(
        (
            &status["state"],
            &status["site"]["state"],
            &status["draft"]["branch"],
            &status["draft"]["unpushed"]
        ),
        (
            &json!("ready"),
            &json!("serving"),
            &json!("edit/local"),
            &json!(0)
        )
    );

    let array: Vec<Value> = (0..3)
        .map(|n| {
            instruction(
                &environment,
                &status,
                &format!("many-{n}"),
                &json!([{ "op": "write", "path": format!("src/many-{n}.txt"), "content": "x" }]),
            )
        })
        .collect();
    let answer = environment
        .post("/_edit/instructions", &Value::Array(array))
        .await;
    assert_eq!(
        (answer.status, answer.json()),
        (
            202,
            json!({ "instructionIds": ["many-0", "many-1", "many-2"] })
        )
    );
    environment.lands(&["--write", "src/after.txt=after"]).await;
    assert_eq!(
        repository.subjects("edit/local"),
        [
            "Add src/after.txt",
            "Add src/many-2.txt",
            "Add src/many-1.txt",
            "Add src/many-0.txt"
        ]
    );

    // From the beginning: everything that was said, in order, each with its number.
    let replay = event_stream(&environment, Some("0"), 24).await;
    let receipts: Vec<&str> = replay
        .iter()
        .filter(|(_, event)| event["event"] == "receipt")
        .map(|(_, event)| event["instructionId"].as_str().expect("an id"))
        .collect();
    assert_eq!(receipts.first(), Some(&"many-0"), "{replay:#?}");
    let last = replay.last().expect("events").0.clone();
    environment.lands(&["--write", "src/later.txt=later"]).await;
    let missed = event_stream(&environment, Some(&last), 1).await;
    let number = |id: &str| id.parse::<u64>().expect("a number");
    assert_eq!(
        number(&missed[0].0),
        number(&last) + 1,
        "nothing is missed, and what was seen is not repeated"
    );
    environment.stop().await;
}

/// The first `count` events of the stream after the one with this number, each with its own.
async fn event_stream(
    environment: &Environment,
    after: Option<&str>,
    count: usize,
) -> Vec<(String, Value)> {
    use http_body_util::BodyExt as _;
    let authority = environment.url().replace("http://", "");
    let stream = tokio::net::TcpStream::connect(&authority)
        .await
        .expect("the door is open");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .expect("HTTP");
    let driver = tokio::spawn(connection);
    let mut request = hyper::Request::get("/_edit/events").header("host", &authority);
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let mut response = sender
        .send_request(request.body(String::new()).expect("a request"))
        .await
        .expect("an answer");
    let mut text = String::new();
    while text.matches("\ndata: ").count() < count || !text.ends_with("\n\n") {
        let frame = tokio::time::timeout(crate::support::PATIENCE, response.frame())
            .await
            .unwrap_or_else(|_| panic!("only:\n{text}"))
            .expect("it goes on")
            .expect("whole");
        text.push_str(&String::from_utf8_lossy(frame.data_ref().expect("data")));
    }
    driver.abort();
    let field = |block: &str, name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    text.split("\n\n")
        .filter_map(|block| {
            Some((
                field(block, "id: ")?,
                serde_json::from_str(&field(block, "data: ")?).expect("JSON"),
            ))
        })
        .collect()
}
