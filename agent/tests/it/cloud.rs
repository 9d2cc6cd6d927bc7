//! In the cloud: the tables and queues of the template that an operator deploys, spoken to over the wire, and a container
//! that is told what ECS tells it. What others see is read with others' libraries.

use contract::session::State;
use contract::{Status, Timestamp};
use serde_json::{Value, json};

use crate::support::ecs::SECRET_PATH;
use crate::support::git;
use crate::support::seat::{Town, emulator, site};

/// Runs a Python program with boto3, and returns what it printed as JSON.
async fn boto3(variables: &[(&str, &str)], program: &str) -> Value {
    let mut command = tokio::process::Command::new(emulator().program("python"));
    command.args(["-c", program]).envs(emulator().variables());
    command.envs(variables.iter().copied());
    let output = tokio::time::timeout(crate::support::PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Runs the AWS command line. Its first version does not go by `AWS_ENDPOINT_URL` for queues.
async fn aws(arguments: &[&str]) -> Value {
    let mut command = tokio::process::Command::new(emulator().program("aws"));
    command
        .args(arguments)
        .args(["--output", "json", "--endpoint-url", &emulator().endpoint()])
        .envs(emulator().variables());
    let output = tokio::time::timeout(crate::support::PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_lives_sleeps_and_lives_again_and_nothing_is_lost_or_done_twice() {
    let town = Town::in_the_cloud().await;
    let stack = town.stack.clone().expect("in the cloud");
    let repository = site();
    let results = emulator()
        .queue(&format!("{}-results.fifo", stack.name), None)
        .await;
    let queue = emulator()
        .queue(
            &format!("webordinary-edits-amelia_{}.fifo", stack.name),
            Some((&stack.dead, 10)),
        )
        .await;
    let session = format!("amelia_{}", stack.name);
    let variables = [
        ("CLIENTS", stack.clients.as_str()),
        ("SESSIONS", stack.sessions.as_str()),
        ("RECEIPTS", stack.receipts.as_str()),
        ("QUEUE", queue.as_str()),
        ("RESULTS", results.as_str()),
        ("SESSION", session.as_str()),
        ("REPOSITORY", repository.path().to_str().expect("UTF-8")),
    ];
    // An operator onboards the client, the router makes a session that sleeps, and somebody sends: none of them is ours.
    boto3(&variables, r##"
import boto3, os, json
from decimal import Decimal
e = os.environ
db = boto3.resource("dynamodb")
db.Table(e["CLIENTS"]).put_item(Item={
    "clientId": "amelia", "status": "active",
    "domains": {"production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com"},
    "repository": {"url": e["REPOSITORY"], "branch": "main"}, "infrastructure": {},
    "settings": {"containerSize": "small", "idleTimeoutMinutes": Decimal("0.05"), "maxConcurrentSessions": 2},
    "resultsQueueUrl": e["RESULTS"]})
db.Table(e["SESSIONS"]).put_item(Item={
    "sessionId": e["SESSION"], "clientId": "amelia", "userId": "amelia", "threadId": "spring", "state": "dormant",
    "generation": 0, "queueUrl": e["QUEUE"], "previewUrl": "https://edit.ameliastamps.com/session/x/",
    "draftBranch": "edit/spring", "createdAt": "2026-11-22T09:30:00.000Z"})
sqs = boto3.client("sqs")
for number in range(1, 4):
    sqs.send_message(QueueUrl=e["QUEUE"], MessageGroupId=e["SESSION"], MessageDeduplicationId=f"page-{number}", MessageBody=json.dumps({
        "version": 1, "instructionId": f"page-{number}", "clientId": "amelia", "sessionId": e["SESSION"],
        "submittedAt": "2026-11-22T09:30:00.000Z", "author": {"name": "Amelia", "email": "amelia@ameliastamps.com"},
        "action": {"type": "edit", "changes": [{"op": "write", "path": f"src/pages/page-{number}.md", "content": f"# Page {number}\n"}]}}))
print("null")
"##).await;
    // The same again, by another program: it is dropped as a duplicate. And one that can never work.
    let body = |id: &str, find: &str| {
        json!({
            "version": 1, "instructionId": id, "clientId": "amelia", "sessionId": session, "submittedAt": Timestamp::now(),
            "action": { "type": "edit", "changes": [{ "op": "replace", "path": "src/pages/index.astro", "find": find, "replace": "Old stamps" }] },
        })
        .to_string()
    };
    for (id, text) in [
        ("never", body("never", "no such words")),
        ("title", body("title", "Rare stamps")),
        ("garbage", "{".to_owned()),
        (
            "foreign",
            body("foreign", "Rare stamps")
                .replace(r#""clientId":"amelia""#, r#""clientId":"bertram""#),
        ),
    ] {
        aws(&[
            "sqs",
            "send-message",
            "--queue-url",
            &queue,
            "--message-group-id",
            &session,
            "--message-deduplication-id",
            id,
            "--message-body",
            &text,
        ])
        .await;
    }

    let seat = town.seat_of("amelia", &session, &queue).await;
    let awake = seat.wakes().await;
    let last = awake.watched(awake.receipt("foreign")).await;
    assert_eq!(last.error.expect("an error").code.as_str(), "wrong_client");
    awake.watched(awake.page_with("/", "Old stamps")).await;
    let told = seat.record_when("told why it is awake", |record| {
        record.awake_because.is_some()
    });
    let ready = awake.watched(told).await;
    assert_eq!(
        ready.task_arn.as_deref(),
        Some("arn:aws:ecs:eu-central-1:123456789012:task/edit/158d1c8083dd49d6b527399fd6414f5c")
    );
    let (code, said) = awake.ended().await;
    assert_eq!(code, 0, "{said}");
    assert!(
        !said.contains(SECRET_PATH) && !said.contains("a-token-canary"),
        "{said}"
    );
    assert!(
        !said.contains("Old stamps"),
        "no instruction's text is in a log: {said}"
    );
    assert!(town.ecs.as_ref().expect("in the cloud").credentials_asked() > 0);
    let asleep = seat.record().await;
    assert_eq!(
        (asleep.state, asleep.generation.0, asleep.container_ip),
        (State::Dormant, 1, None)
    );

    // While it sleeps somebody sends, and a second one is started for it.
    aws(&["sqs", "send-message", "--queue-url", &queue, "--message-group-id", &session, "--message-deduplication-id", "undo", "--message-body",
        &json!({ "version": 1, "instructionId": "undo", "clientId": "amelia", "threadId": "spring", "submittedAt": Timestamp::now(), "action": { "type": "undo", "instructionId": "title" } }).to_string()]).await;
    let awake = seat.wakes().await;
    let undone = awake.watched(awake.receipt("undo")).await;
    assert_eq!(undone.status, Status::Pushed, "{undone:#?}");
    awake.watched(awake.page_with("/", "Rare stamps")).await;
    assert_eq!(seat.record().await.generation.0, 2);
    assert_eq!(awake.stopped().await.0, 0);

    // What is on the remote, what the table says, and what the client's queue says are one story.
    let landed = git(
        repository.path(),
        &[
            "log",
            "--reverse",
            "--format=%(trailers:key=Edit-Instruction,valueonly,separator=)",
            "main..edit/spring",
        ],
    );
    assert_eq!(
        landed.lines().collect::<Vec<_>>(),
        ["page-1", "page-2", "page-3", "title", "undo"]
    );
    let told = boto3(&variables, r#"
import boto3, os, json
from boto3.dynamodb.conditions import Key
e = os.environ
rows = boto3.resource("dynamodb").Table(e["RECEIPTS"]).query(KeyConditionExpression=Key("sessionId").eq(e["SESSION"]))["Items"]
by_index = boto3.resource("dynamodb").Table(e["RECEIPTS"]).query(IndexName="clientId-instructionId-index",
    KeyConditionExpression=Key("clientId").eq("amelia") & Key("instructionId").eq("title"))["Items"]
sqs, heard = boto3.client("sqs"), []
while messages := sqs.receive_message(QueueUrl=e["RESULTS"], MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
    for message in messages:
        receipt = json.loads(message["Body"])
        heard.append([receipt["instructionId"], receipt["status"]])
        sqs.delete_message(QueueUrl=e["RESULTS"], ReceiptHandle=message["ReceiptHandle"])
queue = sqs.get_queue_attributes(QueueUrl=e["QUEUE"], AttributeNames=["All"])["Attributes"]
print(json.dumps({"table": sorted([row["instructionId"], row["status"]] for row in rows), "index": len(by_index),
    "queue": sorted(heard), "left": int(queue["ApproximateNumberOfMessages"]) + int(queue["ApproximateNumberOfMessagesNotVisible"])}))
"#).await;
    let expected = json!([
        ["foreign", "rejected"],
        ["never", "rejected"],
        ["page-1", "pushed"],
        ["page-2", "pushed"],
        ["page-3", "pushed"],
        ["title", "pushed"],
        ["undo", "pushed"],
    ]);
    assert_eq!(told["table"], expected);
    assert_eq!(told["queue"], expected);
    assert_eq!(told["index"], 1);
    assert_eq!(told["left"], 0);
    // What had no id is with the dead letters, for people.
    let dead = emulator()
        .queue_attribute(&stack.dead, "ApproximateNumberOfMessages")
        .await;
    assert_eq!(dead, "1");
}
