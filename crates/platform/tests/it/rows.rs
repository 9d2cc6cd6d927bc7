//! The rows of `DynamoDB` as other programs write and read them.

use std::process::Command;
use std::time::Duration;

use contract::session::{State, Transition};
use contract::{Generation, Receipt, Session, Status};
use platform::aws::Aws;
use platform::conformance::emulator::{Emulator, Stack};
use platform::conformance::front::{Act, Front};
use platform::conformance::records::{
    client, client_config, dawn, instruction, proof_key, receipt, session, session_id,
};
use platform::{Created, PortError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn emulator() -> &'static Emulator {
    Emulator::shared(env!("CARGO_TARGET_TMPDIR"))
}

/// What an operator puts there by hand: no more than issue and guide ask for.
fn by_hand(id: &str) -> Value {
    json!({
        "sessionId": { "S": id },
        "clientId": { "S": "amelia" },
        "userId": { "S": "amelia@example.com" },
        "threadId": { "S": "thread-1" },
        "state": { "S": "dormant" },
        "generation": { "N": "0" },
        "queueUrl": { "S": "https://sqs/1/webordinary-edits-x.fifo" },
        "previewUrl": { "S": "https://edit.example.com/session/x/" },
        "draftBranch": { "S": "edit/thread-1" },
        "createdAt": { "S": "2026-11-27T09:30:00Z" },
    })
}

async fn put(table: &str, item: &Value) {
    let put = json!({ "TableName": table, "Item": item });
    emulator().ask("DynamoDB_20120810.PutItem", &put).await;
}

async fn row(table: &str, key: Value) -> Value {
    let get = json!({ "TableName": table, "Key": key, "ConsistentRead": true });
    emulator().ask("DynamoDB_20120810.GetItem", &get).await["Item"].clone()
}

async fn session_row(stack: &Stack, key: &str) -> Value {
    row(&stack.sessions, json!({ "sessionId": { "S": key } })).await
}

fn wake() -> Transition {
    Transition::Wake {
        seen: Generation(0),
        proof_key: proof_key(),
        lease_until: dawn().plus(Duration::from_mins(1)),
    }
}

#[tokio::test]
async fn a_session_that_was_put_there_by_hand_wakes_and_sleeps() {
    let stack = emulator().stack().await;
    let sessions = emulator().aws().await.sessions(&stack.sessions);
    let id = session_id(&client("amelia"), 1);
    let mut item = by_hand(id.as_str());
    item["remark"] = json!({ "S": "the owner's first" });
    put(&stack.sessions, &item).await;

    let read = sessions.get(&id).await.expect("get").expect("it is there");
    assert_eq!(
        (read.state, read.generation),
        (State::Dormant, Generation(0))
    );
    let woken = sessions
        .transition(&id, Generation(0), &wake(), 2, dawn())
        .await
        .expect("transition")
        .expect("it is dormant");
    assert_eq!(sessions.get(&id).await.expect("get"), Some(woken));

    let stored = session_row(&stack, id.as_str()).await;
    assert_eq!(stored["remark"], item["remark"], "it is not ours to remove");
    assert_eq!(stored["createdAt"], item["createdAt"]);
    assert_eq!(stored["generation"], json!({ "N": "1" }));
    assert_eq!(
        stored["leaseUntil"]["S"],
        json!(dawn().plus(Duration::from_mins(1)))
    );
    let slot = stored["slot"]["N"].as_str().expect("it has a slot");
    let slot = format!("slot#amelia#{slot}");
    let held =
        json!({ "sessionId": { "S": slot }, "heldBy": { "S": id }, "generation": { "N": "1" } });
    assert_eq!(session_row(&stack, &slot).await, held);

    let failed = Transition::Fail {
        failure: contract::session::Failure {
            code: "start_failed".to_owned(),
            message: "It did not start.".to_owned(),
            retryable: true,
        },
    };
    sessions
        .transition(&id, Generation(1), &failed, 2, dawn())
        .await
        .expect("transition")
        .expect("it is waking");
    let stored = session_row(&stack, id.as_str()).await;
    assert_eq!(stored["leaseUntil"], Value::Null, "the attribute is gone");
    assert_eq!(stored["failure"]["M"]["retryable"], json!({ "BOOL": true }));
    assert_eq!(session_row(&stack, &slot).await, Value::Null, "given back");
}

/// The record's own JSON, a field an attribute, numbers as numbers; and the row of its thread.
#[tokio::test]
async fn a_session_is_stored_as_any_program_would() {
    let stack = emulator().stack().await;
    let sessions = emulator().aws().await.sessions(&stack.sessions);
    let mut mine = session(&client("amelia"), 1);
    mine.expires_at = Some(1_800_000_000);
    let created = sessions.create(&mine).await.expect("create");
    assert_eq!(created, Created::New);

    let stored = session_row(&stack, mine.session_id.as_str()).await;
    let record = serde_json::to_value(&mine).expect("a record");
    let fields = record.as_object().expect("an object");
    assert_eq!(stored.as_object().expect("a row").len(), fields.len());
    for (name, value) in fields {
        let expected = match value {
            Value::Number(number) => json!({ "N": number.to_string() }),
            other => json!({ "S": other }),
        };
        assert_eq!(stored[name], expected, "{name}");
    }
    assert_eq!(stored["expiresAt"], json!({ "N": "1800000000" }));

    let digest = contract::id::hex(&Sha256::digest("thread-1"));
    let thread = session_row(&stack, &format!("thread#amelia#{digest}")).await;
    assert_eq!(thread["heldBy"], json!({ "S": mine.session_id }));
    assert_eq!(
        thread.as_object().expect("a row").len(),
        2,
        "it does not expire: a wake puts off when the session does"
    );
    let listed = sessions.list(&client("amelia")).await.expect("list");
    assert_eq!(listed, [mine], "the row of the thread is no session");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_corrupt_and_named_without_its_capability() {
    let stack = emulator().stack().await;
    let aws = emulator().aws().await;
    let id = session_id(&client("amelia"), 1);
    let mut item = by_hand(id.as_str());
    item["state"] = json!({ "S": format!("asleep, says {id}") });
    put(&stack.sessions, &item).await;
    let corrupt = aws.sessions(&stack.sessions).get(&id).await;
    let corrupt = corrupt.expect_err("there is no such state");
    assert!(matches!(corrupt, PortError::Corrupt { .. }), "{corrupt:?}");
    let said = format!("{corrupt} {corrupt:?}");
    assert!(
        said.contains(&format!("session {}", id.redacted())),
        "{said}"
    );
    assert!(!said.contains(id.label()), "{said}");

    let broken = json!({ "sessionId": { "S": id }, "instructionId": { "S": "one" } });
    put(&stack.receipts, &broken).await;
    let corrupt = aws
        .receipts(&stack.receipts)
        .get(&id, &instruction("one"))
        .await
        .expect_err("it lacks everything");
    assert!(matches!(corrupt, PortError::Corrupt { .. }), "{corrupt:?}");
}

/// Operators write these rows.
#[tokio::test]
async fn everything_that_is_wrong_with_a_clients_row_is_said_at_once() {
    let stack = emulator().stack().await;
    let clients = emulator().aws().await.clients(&stack.clients);
    clients.put(&client_config("amelia")).await.expect("put");
    let key = json!({ "clientId": { "S": "amelia" } });
    let mut item = row(&stack.clients, key).await;
    item["status"] = json!({ "S": "sleepy" });
    item["settings"]["M"]["maxConcurrentSessions"] = json!({ "N": "-1" });
    put(&stack.clients, &item).await;
    let corrupt = clients.get(&client("amelia")).await;
    let PortError::Corrupt { source, .. } = corrupt.expect_err("two things are wrong") else {
        panic!("another error");
    };
    let said = source.to_string();
    assert!(said.contains("$.status"), "{said}");
    assert!(said.contains("$.settings.maxConcurrentSessions"), "{said}");
}

/// Numbers come from other programs as decimals.
#[tokio::test]
async fn whole_numbers_are_read_however_they_are_written() {
    let stack = emulator().stack().await;
    let aws = emulator().aws().await;
    let receipts = aws.receipts(&stack.receipts);
    let mine = receipt(&client("amelia"), "one", Status::Accepted);
    receipts.put(&mine).await.expect("put");
    let key = json!({
        "sessionId": { "S": mine.session_id }, "instructionId": { "S": mine.instruction_id },
    });
    let mut item = row(&stack.receipts, key).await;
    assert_eq!(item["attempts"], json!({ "N": "1" }));
    item["attempts"] = json!({ "N": "1.0" });
    put(&stack.receipts, &item).await;
    let read = receipts.get(&mine.session_id, &mine.instruction_id).await;
    assert_eq!(read.expect("get"), Some(mine));
}

/// `DynamoDB` answers a megabyte at a time.
#[tokio::test]
async fn lists_of_several_pages_are_whole() {
    let stack = emulator().stack().await;
    let front = Front::before(Some(emulator().port()), |_| Act::Pass).await;
    let aws = Aws::load(front.settings()).await;
    let (receipts, sessions) = (aws.receipts(&stack.receipts), aws.sessions(&stack.sessions));
    let amelia = client("amelia");
    for number in 1..=14_u8 {
        let large = Receipt {
            summary: "x".repeat(100_000),
            ..receipt(&amelia, &format!("number-{number}"), Status::Pushed)
        };
        receipts.put(&large).await.expect("put");
        let large = Session {
            awake_because: Some("x".repeat(100_000)),
            ..session(&amelia, number)
        };
        sessions.create(&large).await.expect("create");
    }
    let recent = receipts.recent(&session_id(&amelia, 1), 20).await;
    assert_eq!(recent.expect("recent").len(), 14);
    assert_eq!(front.count("Query"), 2, "the receipts fit one page");
    assert_eq!(sessions.list(&amelia).await.expect("list").len(), 14);
    assert_eq!(front.count("Query"), 4, "the sessions fit one page");
}

/// What a producer in Python writes, without any of our code.
const BOTO3: &str = r#"
import decimal, sys, boto3
table, queue, session = sys.argv[1:]
boto3.resource("dynamodb").Table(table).put_item(Item={
    "sessionId": session, "clientId": "amelia", "userId": "amelia@example.com", "threadId": "thread-1",
    "state": "dormant", "generation": decimal.Decimal(0), "queueUrl": queue, "previewUrl": "https://edit.example.com/",
    "draftBranch": "edit/thread-1", "createdAt": "2026-11-27T09:30:00.000Z", "tags": {"vip", "new"},
})
boto3.client("sqs").send_message(
    QueueUrl=queue, MessageBody="from boto3", MessageGroupId=session, MessageDeduplicationId="one",
    MessageAttributes={
        "traceparent": {"DataType": "String", "StringValue": "00-trace-01"},
        "priority": {"DataType": "Number", "StringValue": "3"},
    },
)
"#;

#[tokio::test]
async fn what_boto3_and_the_command_line_of_aws_write_is_read() {
    let stack = emulator().stack().await;
    let aws = emulator().aws().await;
    let id = session_id(&client("amelia"), 1);
    let url = emulator()
        .queue(&format!("webordinary-edits-{id}.fifo"), None)
        .await;
    let run = |command: &mut Command| {
        let output = command
            .env_clear()
            .envs(emulator().variables())
            .output()
            .expect("it was installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    };
    run(Command::new(emulator().program("python")).args([
        "-c",
        BOTO3,
        &stack.sessions,
        &url,
        id.as_str(),
    ]));
    run(Command::new(emulator().program("aws"))
        .args(["--endpoint-url", &emulator().endpoint()])
        .args(["sqs", "send-message", "--queue-url", &url])
        .args([
            "--message-body",
            "from aws",
            "--message-group-id",
            "control",
        ])
        .args(["--message-deduplication-id", "two"]));

    let sessions = aws.sessions(&stack.sessions);
    let read = sessions.get(&id).await.expect("get").expect("it is there");
    assert_eq!((&read.queue_url, read.generation), (&url, Generation(0)));
    let queue = aws.queue(&url);
    let mut received = Vec::new();
    for _ in 0..2 {
        let next = queue.receive(Duration::from_secs(20), Duration::from_mins(1));
        let next = next.await.expect("receive").expect("it was sent");
        received.push((next.body, next.group, next.trace_parent));
    }
    received.sort();
    let (traced, none) = (Some("00-trace-01".to_owned()), None);
    assert_eq!(
        received,
        [
            ("from aws".to_owned(), "control".to_owned(), none),
            ("from boto3".to_owned(), id.to_string(), traced),
        ]
    );
}
