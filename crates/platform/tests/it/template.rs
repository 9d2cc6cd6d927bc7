//! `infra/data.yaml` and `infra/router.yaml`, and where the emulator is not AWS.

use std::process::Command;
use std::time::Duration;

use platform::conformance::emulator::{Emulator, TEMPLATE};
use platform::{Lease, Outgoing};
use serde_json::{Value, json};

fn emulator() -> &'static Emulator {
    Emulator::shared(env!("CARGO_TARGET_TMPDIR"))
}

/// What is deployed beside it, which no emulator could run.
const ROUTER: &str = include_str!("../../../../infra/router.yaml");

/// By the rules of `CloudFormation`, which no emulator checks.
#[test]
fn the_templates_have_nothing_that_cfn_lint_minds() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = [("data.yaml", TEMPLATE), ("router.yaml", ROUTER)].map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    });
    let output = Command::new(emulator().program("cfn-lint"))
        .args(&paths)
        .output()
        .expect("it was installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Where both templates name the same thing, they mean the same one.
#[test]
fn the_templates_agree_on_names() {
    let defaults = |template: &str| -> Vec<(String, String)> {
        let (_, parameters) = template.split_once("Parameters:\n").expect("parameters");
        let (parameters, _) = parameters.split_once("\nResources:").expect("resources");
        let mut name = String::new();
        let mut found = Vec::new();
        for line in parameters.lines() {
            if let Some(default) = line.strip_prefix("    Default: ") {
                found.push((name.clone(), default.to_owned()));
            } else if let Some(parameter) = line
                .strip_prefix("  ")
                .and_then(|line| line.strip_suffix(':'))
            {
                name = parameter.to_owned();
            }
        }
        found
    };
    let (data, router) = (defaults(TEMPLATE), defaults(ROUTER));
    let shared = [
        "ClientConfigsTable",
        "SessionsTable",
        "ReceiptsTable",
        "IntakeQueue",
        "DeadQueue",
        "ResultsQueues",
    ];
    for name in shared {
        let of = |defaults: &[(String, String)]| {
            defaults.iter().find(|(known, _)| known == name).cloned()
        };
        assert!(of(&data).is_some(), "{name}");
        assert_eq!(of(&data), of(&router));
    }
}

async fn described(table: &str) -> Value {
    let asked = json!({ "TableName": table });
    let answer = emulator()
        .ask("DynamoDB_20120810.DescribeTable", &asked)
        .await;
    answer["Table"].clone()
}

/// `[["sessionId", "HASH"], …]`
fn keys(schema: &Value) -> Vec<(String, String)> {
    let text = |key: &Value, name: &str| key[name].as_str().expect("text").to_owned();
    schema
        .as_array()
        .expect("a list")
        .iter()
        .map(|key| (text(key, "AttributeName"), text(key, "KeyType")))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()))
        .collect()
}

/// With nothing but the template's own names, as agent and router know them.
#[tokio::test]
async fn what_is_deployed_is_what_agent_and_router_expect() {
    let stack = emulator()
        .stack_with("webordinary-data", &[("AgentClientId", "*".to_owned())])
        .await;
    let tables = [
        (
            "webordinary-client-configs",
            vec![("clientId", "HASH")],
            None,
        ),
        (
            "webordinary-edit-sessions",
            vec![("sessionId", "HASH")],
            Some((
                "clientId-threadId-index",
                [("clientId", "HASH"), ("threadId", "RANGE")],
            )),
        ),
        (
            "webordinary-edit-receipts",
            vec![("sessionId", "HASH"), ("instructionId", "RANGE")],
            Some((
                "clientId-instructionId-index",
                [("clientId", "HASH"), ("instructionId", "RANGE")],
            )),
        ),
    ];
    assert_eq!(
        [&stack.clients, &stack.sessions, &stack.receipts],
        [tables[0].0, tables[1].0, tables[2].0]
    );
    for (name, key, index) in tables {
        let table = described(name).await;
        assert_eq!(keys(&table["KeySchema"]), pairs(&key), "{name}");
        assert_eq!(table["DeletionProtectionEnabled"], json!(true), "{name}");
        assert_eq!(
            table["BillingModeSummary"]["BillingMode"],
            json!("PAY_PER_REQUEST"),
            "{name}"
        );
        let indexes = table["GlobalSecondaryIndexes"].as_array();
        let indexes = indexes.map(Vec::as_slice).unwrap_or_default();
        assert_eq!(indexes.len(), usize::from(index.is_some()), "{name}");
        if let Some((index, key)) = index {
            assert_eq!(indexes[0]["IndexName"], json!(index));
            assert_eq!(keys(&indexes[0]["KeySchema"]), pairs(&key), "{name}");
            assert_eq!(indexes[0]["Projection"]["ProjectionType"], json!("ALL"));
        }
    }

    let dead_arn = emulator().queue_attribute(&stack.dead, "QueueArn").await;
    assert!(
        dead_arn.ends_with(":webordinary-edits-dead.fifo"),
        "{dead_arn}"
    );
    assert!(
        stack.intake.ends_with("/webordinary-intake.fifo"),
        "{}",
        stack.intake
    );
    for (queue, visibility) in [(&stack.intake, "180"), (&stack.dead, "60")] {
        for (name, value) in [
            ("FifoQueue", "true"),
            ("DeduplicationScope", "messageGroup"),
            ("FifoThroughputLimit", "perMessageGroupId"),
            ("MessageRetentionPeriod", "1209600"),
            ("VisibilityTimeout", visibility),
            ("SqsManagedSseEnabled", "true"),
        ] {
            let said = emulator().queue_attribute(queue, name).await;
            assert_eq!(said, value, "{name} of {queue}");
        }
    }
    let redrive = emulator()
        .queue_attribute(&stack.intake, "RedrivePolicy")
        .await;
    let redrive: Value = serde_json::from_str(&redrive).expect("a policy is JSON");
    assert_eq!(redrive["deadLetterTargetArn"], json!(dead_arn));
    // Some say it as text.
    let times = redrive["maxReceiveCount"].to_string();
    assert_eq!(times.trim_matches('"'), "10");

    let aws = emulator().aws().await;
    let found = aws.queue_named("webordinary-edits-dead.fifo").await;
    assert_eq!(found.expect("it is there"), stack.dead);
}

// ministack 1.5.33 is laxer than AWS in the ways below. Each has a test that says what it does, so that nobody takes the
// suite for a proof of what it cannot show, and so that the test fails when the emulator learns it.
//
// | what AWS documents | what the emulator does | how it is proven instead |
// |---|---|---|
// | TTL and point-in-time recovery as the template says | ignores both | the template's text, and cfn-lint |
// | an expired handle of a FIFO queue deletes nothing | deletes | our own deadline of a handle; the error's words in a unit test |
// | a receive is repeated by its attempt id | hands out nothing | that the id is sent, and sent again (`faults`) |
// | a task is started once by a token | starts another one | that the token is sent, and sent again (`launcher`) |
// | a queue of a name is not made again for a minute | makes it | the error's words (`faults`) |

#[tokio::test]
async fn the_emulator_ignores_ttl_and_recovery_of_the_template() {
    let stack = emulator().stack().await;
    for table in [&stack.sessions, &stack.receipts] {
        let asked = json!({ "TableName": table });
        let answer = emulator()
            .ask("DynamoDB_20120810.DescribeTimeToLive", &asked)
            .await;
        let status = &answer["TimeToLiveDescription"]["TimeToLiveStatus"];
        assert_eq!(status, &json!("DISABLED"), "ask for ENABLED above");
        let answer = emulator()
            .ask("DynamoDB_20120810.DescribeContinuousBackups", &asked)
            .await;
        let recovery = &answer["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"];
        let status = &recovery["PointInTimeRecoveryStatus"];
        assert_eq!(status, &json!("DISABLED"), "ask for ENABLED above");
    }
    for (said, times) in [
        (
            "TimeToLiveSpecification: { AttributeName: expiresAt, Enabled: true }",
            2,
        ),
        (
            "PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }",
            3,
        ),
    ] {
        assert_eq!(TEMPLATE.matches(said).count(), times, "{said}");
    }
}

async fn in_flight(visibility: u32) -> (String, Value) {
    let url = emulator()
        .queue(&format!("{}.fifo", emulator().fresh_name()), None)
        .await;
    let send = json!({
        "QueueUrl": url, "MessageBody": "a", "MessageGroupId": "one", "MessageDeduplicationId": "a",
    });
    emulator().ask("AmazonSQS.SendMessage", &send).await;
    let received = receive(&url, visibility, "first").await;
    (url, received)
}

async fn receive(url: &str, visibility: u32, attempt: &str) -> Value {
    let receive = json!({
        "QueueUrl": url, "VisibilityTimeout": visibility, "ReceiveRequestAttemptId": attempt,
        "WaitTimeSeconds": 0,
    });
    let answer = emulator().ask("AmazonSQS.ReceiveMessage", &receive).await;
    answer["Messages"][0].clone()
}

/// Lets a second and a half pass by the emulator's own clock.
async fn pass() {
    let aws = emulator().aws().await;
    let name = format!("{}.fifo", emulator().fresh_name());
    let hourglass = aws.queue(&emulator().queue(&name, None).await);
    let sand = Outgoing {
        body: "sand".to_owned(),
        group: "one".to_owned(),
        deduplication_id: "sand".to_owned(),
        trace_parent: None,
    };
    hourglass.send(&sand).await.expect("send");
    for _ in 0..2 {
        let received = hourglass
            .receive(Duration::from_secs(20), Duration::from_secs(2))
            .await;
        received.expect("receive").expect("it comes back");
    }
}

#[tokio::test]
async fn the_emulator_lets_an_expired_handle_delete_and_the_adapter_does_not() {
    let (url, expired) = in_flight(1).await;
    pass().await;
    let delete = json!({ "QueueUrl": url, "ReceiptHandle": expired["ReceiptHandle"] });
    let (status, answer) = emulator().try_ask("AmazonSQS.DeleteMessage", &delete).await;
    assert_eq!(status, 200, "it learnt it: {answer}");
    assert_eq!(receive(&url, 1, "again").await, Value::Null, "deleted");

    // The same through the adapter.
    let (url, _) = in_flight(0).await;
    let queue = emulator().aws().await.queue(&url);
    let received = queue
        .receive(Duration::from_secs(20), Duration::from_secs(1))
        .await;
    let received = received.expect("receive").expect("it is visible");
    pass().await;
    let answer = queue.delete(&received.handle).await.expect("delete");
    assert_eq!(answer, Lease::Lost);
    assert_ne!(receive(&url, 1, "again").await, Value::Null, "it stays");
}

#[tokio::test]
async fn the_emulator_does_not_repeat_a_receive_by_its_attempt_id() {
    let (url, _) = in_flight(60).await;
    assert_eq!(
        receive(&url, 60, "first").await,
        Value::Null,
        "it learnt it"
    );
}
