//! What the AWS adapters do when AWS is slow, busy, silent, forbids or forgets to answer.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use contract::session::{SiteHealth, State, Transition, TransitionRefused};
use contract::{Generation, Session, Status, Timestamp};
use platform::aws::{Aws, AwsSettings, Patience};
use platform::conformance::emulator::{Emulator, Stack};
use platform::conformance::front::{Act, Front, Request};
use platform::conformance::records::{client, dawn, proof_key, receipt, session, session_id};
use platform::{
    Created, DeliveryHandle, Lease, Outgoing, PortError, Put, Removed, Sessions, TransitionFailed,
};
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_mins(1);

fn emulator() -> &'static Emulator {
    Emulator::shared(env!("CARGO_TARGET_TMPDIR"))
}

fn message(body: &str) -> Outgoing {
    Outgoing {
        body: body.to_owned(),
        group: "one".to_owned(),
        deduplication_id: body.to_owned(),
        trace_parent: None,
    }
}

/// A front that loses the reply of the first request of an operation, and the adapters behind it.
async fn losing(operation: &'static str) -> (Front, Aws) {
    let mut lost = false;
    let front = Front::before(Some(emulator().port()), move |request| {
        if !lost && request.operation() == operation {
            lost = true;
            Act::LoseReply
        } else {
            Act::Pass
        }
    })
    .await;
    let aws = Aws::load(front.settings()).await;
    (front, aws)
}

fn wake(seen: u64) -> Transition {
    Transition::Wake {
        seen: Generation(seen),
        proof_key: proof_key(),
        lease_until: dawn().plus(MINUTE),
    }
}

async fn take(
    sessions: &Arc<dyn Sessions>,
    generation: u64,
    transition: Transition,
) -> Result<Session, TransitionFailed> {
    let id = session_id(&client("amelia"), 1);
    sessions
        .transition(&id, Generation(generation), &transition, 1, dawn())
        .await
        .expect("transition")
}

async fn dormant() -> (Stack, Arc<dyn Sessions>) {
    let stack = emulator().stack().await;
    let sessions = emulator().aws().await.sessions(&stack.sessions);
    let created = sessions.create(&session(&client("amelia"), 1)).await;
    assert_eq!(created.expect("create"), Created::New);
    (stack, sessions)
}

/// The session is woken once, and whoever woke it is told so.
#[tokio::test]
async fn a_wake_whose_reply_is_lost_is_not_taken_for_somebody_elses() {
    let (stack, direct) = dormant().await;
    let (front, aws) = losing("TransactWriteItems").await;
    let sessions = aws.sessions(&stack.sessions);
    let woken = take(&sessions, 0, wake(0)).await.expect("it was ours");
    assert_eq!(woken.generation, Generation(1));
    assert_eq!(front.count("TransactWriteItems"), 2);
    let stored = direct.get(&woken.session_id).await.expect("get");
    assert_eq!(stored, Some(woken));
    // A caller who asks again for himself is judged like everybody else.
    assert_eq!(
        take(&sessions, 0, wake(0)).await,
        Err(TransitionFailed::Refused(
            TransitionRefused::OtherGeneration {
                acting: Generation(1),
                asked: Generation(0),
            }
        ))
    );
}

/// Every step of a life, of which the contract's table refuses a second one.
#[tokio::test]
async fn a_transition_whose_reply_is_lost_was_taken() {
    let (stack, direct) = dormant().await;
    let life = [
        wake(0),
        Transition::Claim {
            task: "task-1".to_owned(),
            lease_until: dawn().plus(MINUTE),
        },
        Transition::Register {
            ip: "10.0.0.1".to_owned(),
            port: 8080,
            site: SiteHealth::Ok,
            isolation: None,
            lease_until: dawn().plus(MINUTE),
        },
        Transition::Drain {
            seen_activity: None,
        },
        Transition::Sleep { parked: Vec::new() },
    ];
    for (number, transition) in life.into_iter().enumerate() {
        let (operation, generation) = match number {
            0 => ("TransactWriteItems", 0),
            _ => ("UpdateItem", 1),
        };
        let (front, aws) = losing(operation).await;
        let taken = take(&aws.sessions(&stack.sessions), generation, transition).await;
        let taken = taken.unwrap_or_else(|error| panic!("step {number}: {error}"));
        assert_eq!(front.count(operation), 2, "step {number}");
        let stored = direct.get(&taken.session_id).await.expect("get");
        assert_eq!(stored, Some(taken), "step {number}");
    }
    let slept = direct.get(&session_id(&client("amelia"), 1)).await;
    let slept = slept.expect("get").expect("it is there");
    assert_eq!(
        (slept.state, slept.generation),
        (State::Dormant, Generation(1))
    );
}

/// Adapters whose first write waits on the way.
async fn held_up() -> (Front, Aws, Arc<Notify>, Arc<Notify>) {
    let (there, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut first = Some((Arc::clone(&there), Arc::clone(&go)));
    let front = Front::before(Some(emulator().port()), move |request| {
        let is_write = matches!(request.operation(), "TransactWriteItems" | "UpdateItem");
        match first.take_if(|_| is_write) {
            Some((there, go)) => Act::Hold(there, go),
            None => Act::Pass,
        }
    })
    .await;
    let aws = Aws::load(front.settings()).await;
    (front, aws, there, go)
}

/// Session 1 of amelia holds her only slot, and its lease has been over since a minute; session 2 is dormant.
async fn abandoned() -> (Stack, Arc<dyn Sessions>, Timestamp) {
    let (stack, sessions) = dormant().await;
    let created = sessions.create(&session(&client("amelia"), 2)).await;
    assert_eq!(created.expect("create"), Created::New);
    take(&sessions, 0, wake(0)).await.expect("dormant");
    (stack, sessions, dawn().plus(2 * MINUTE))
}

async fn renew_first(
    sessions: &Arc<dyn Sessions>,
    now: Timestamp,
) -> Result<Session, TransitionFailed> {
    let renew = Transition::Renew {
        lease_until: now.plus(MINUTE),
        site: SiteHealth::Ok,
        last_activity_at: None,
        awake_because: None,
    };
    let id = session_id(&client("amelia"), 1);
    sessions
        .transition(&id, Generation(1), &renew, 1, now)
        .await
        .expect("transition")
}

async fn wake_second(
    sessions: &Arc<dyn Sessions>,
    now: Timestamp,
) -> Result<Session, TransitionFailed> {
    let wake = Transition::Wake {
        seen: Generation(0),
        proof_key: proof_key(),
        lease_until: now.plus(MINUTE),
    };
    let id = session_id(&client("amelia"), 2);
    sessions
        .transition(&id, Generation(0), &wake, 1, now)
        .await
        .expect("transition")
}

/// Else a link would be used up by a network that hiccups, and whoever clicked it could never enter.
#[tokio::test]
async fn a_nonce_whose_reply_is_lost_was_spent_by_whoever_spent_it() {
    let stack = emulator().stack().await;
    let (front, aws) = losing("PutItem").await;
    let until = Timestamp::now().plus(MINUTE);
    let sessions = aws.sessions(&stack.sessions);
    assert!(sessions.spend("once", until).await.expect("spend"));
    assert_eq!(front.count("PutItem"), 2);
    assert!(!sessions.spend("once", until).await.expect("spend"));
}

/// It is gone, and its thread is free.
#[tokio::test]
async fn a_removal_whose_reply_is_lost_was_one() {
    let (stack, direct) = dormant().await;
    let mine = session(&client("amelia"), 1);
    let (front, aws) = losing("TransactWriteItems").await;
    let removed = aws.sessions(&stack.sessions).remove(&mine).await;
    assert_eq!(removed.expect("remove"), Removed::Gone);
    assert_eq!(front.count("TransactWriteItems"), 2);
    assert_eq!(direct.get(&mine.session_id).await.expect("get"), None);
    let created = direct.create(&mine).await.expect("create");
    assert_eq!(created, Created::New);
}

/// In a minute it can be made again, so whoever takes in the message tries again. The emulator makes it at once.
#[tokio::test]
async fn a_queue_that_was_removed_a_moment_ago_is_unavailable() {
    let body = r#"{"__type":"com.amazonaws.sqs#QueueDeletedRecently","message":"You must wait 60 seconds."}"#;
    let dead = emulator()
        .queue(&format!("{}.fifo", emulator().fresh_name()), None)
        .await;
    let front = Front::before(Some(emulator().port()), move |request| {
        if request.operation() == "CreateQueue" {
            Act::Answer(400, body.to_owned())
        } else {
            Act::Pass
        }
    })
    .await;
    let queues = Aws::load(front.settings()).await.queues(&dead);
    let id = session_id(&client("amelia"), 1);
    let said = queues.create(&id).await.expect_err("a moment ago");
    assert!(said.is_transient(), "{said:?}");
    assert!(!format!("{said:?}").contains(id.label()), "{said:?}");
}

/// An operator changed it, or an older build made it.
#[tokio::test]
async fn a_queue_that_is_there_with_other_attributes_is_taken_as_it_is() {
    let id = contract::SessionId::new(&client("attributes"), [1; 16]);
    let (name, dead) = (platform::queue_name(&id), emulator().fresh_name());
    let dead = emulator().queue(&format!("{dead}.fifo"), None).await;
    let there = emulator().queue(&name, None).await;
    let queues = emulator().aws().await.queues(&dead);
    assert_eq!(queues.create(&id).await.expect("create"), there);
}

/// Who was judged to have given up says otherwise before the slot is taken from him.
#[tokio::test]
async fn a_wake_takes_no_slot_from_whoever_renews_meanwhile() {
    let (stack, direct, now) = abandoned().await;
    let (_front, aws, there, go) = held_up().await;
    let held_up = aws.sessions(&stack.sessions);
    let (woken, renewed) = tokio::join!(wake_second(&held_up, now), async {
        there.notified().await;
        let renewed = renew_first(&direct, now).await;
        go.notify_one();
        renewed
    });
    assert!(renewed.is_ok(), "{renewed:?}");
    assert_eq!(woken, Err(TransitionFailed::NoSlot { limit: 1 }));
}

/// The other way round.
#[tokio::test]
async fn a_late_renewal_does_not_stand_where_the_slot_is_taken_meanwhile() {
    let (stack, direct, now) = abandoned().await;
    let (_front, aws, there, go) = held_up().await;
    let held_up = aws.sessions(&stack.sessions);
    let (renewed, woken) = tokio::join!(renew_first(&held_up, now), async {
        there.notified().await;
        let woken = wake_second(&direct, now).await;
        go.notify_one();
        woken
    });
    assert!(woken.is_ok(), "{woken:?}");
    assert_eq!(renewed, Err(TransitionFailed::NoSlot { limit: 1 }));
}

/// Or is told that the thread has this very session.
#[tokio::test]
async fn a_session_whose_reply_is_lost_was_created() {
    let stack = emulator().stack().await;
    let (front, aws) = losing("TransactWriteItems").await;
    let mine = session(&client("amelia"), 1);
    let sessions = aws.sessions(&stack.sessions);
    assert_eq!(sessions.create(&mine).await.expect("create"), Created::New);
    assert_eq!(front.count("TransactWriteItems"), 2);
    assert_eq!(
        sessions.create(&mine).await.expect("create again"),
        Created::ThreadTaken(mine.session_id)
    );
}

#[tokio::test]
async fn a_receipt_whose_reply_is_lost_was_written() {
    let stack = emulator().stack().await;
    let (front, aws) = losing("PutItem").await;
    let receipts = aws.receipts(&stack.receipts);
    let pushed = receipt(&client("amelia"), "one", Status::Pushed);
    assert_eq!(receipts.put(&pushed).await.expect("put"), Put::Written);
    assert_eq!(front.count("PutItem"), 2);
}

async fn fresh_queue() -> String {
    let name = format!("{}.fifo", emulator().fresh_name());
    emulator().queue(&name, None).await
}

#[tokio::test]
async fn a_message_whose_reply_is_lost_is_sent_once() {
    let url = fresh_queue().await;
    let (front, aws) = losing("SendMessage").await;
    let queue = aws.queue(&url);
    queue.send(&message("a")).await.expect("send");
    assert_eq!(front.count("SendMessage"), 2);
    let received = queue.receive(Duration::from_secs(20), MINUTE).await;
    let received = received.expect("receive").expect("it was sent");
    assert_eq!(
        queue.delete(&received.handle).await.expect("delete"),
        Lease::Held
    );
    let nothing = queue.receive(Duration::from_secs(1), MINUTE).await;
    assert_eq!(nothing.expect("receive"), None);
}

/// The same attempt id in both, by which SQS answers the second like the first; a new one the next time.
#[tokio::test]
async fn a_receive_whose_reply_is_lost_asks_for_the_same_again() {
    let url = fresh_queue().await;
    let (front, aws) = losing("ReceiveMessage").await;
    let queue = aws.queue(&url);
    for _ in 0..2 {
        queue
            .receive(Duration::from_secs(1), MINUTE)
            .await
            .expect("receive");
    }
    let ids: Vec<String> = front
        .seen()
        .iter()
        .map(|request| {
            let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
            body["ReceiveRequestAttemptId"]
                .as_str()
                .expect("every receive has one")
                .to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
}

/// Whether SQS says of the repeated one that it is done, or that the handle is no more: the message is gone either way.
#[tokio::test]
async fn a_delete_whose_reply_is_lost_removes_the_message() {
    let url = fresh_queue().await;
    let (front, aws) = losing("DeleteMessage").await;
    let queue = aws.queue(&url);
    queue.send(&message("a")).await.expect("send");
    let received = queue
        .receive(Duration::from_secs(20), Duration::from_secs(1))
        .await;
    let received = received.expect("receive").expect("it was sent");
    let _either = queue.delete(&received.handle).await.expect("delete");
    assert_eq!(front.count("DeleteMessage"), 2);
    let nothing = queue.receive(Duration::from_secs(3), MINUTE).await;
    assert_eq!(nothing.expect("receive"), None);
}

/// In every way in which SQS says so.
#[tokio::test]
async fn a_delivery_that_sqs_says_is_over_is_lost() {
    let url = fresh_queue().await;
    for (code, said) in [
        (
            "InvalidParameterValue",
            "Value AQEB for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
        ),
        (
            "ReceiptHandleIsInvalid",
            "The input receipt handle is invalid.",
        ),
        ("MessageNotInflight", "The message is not in flight."),
    ] {
        let answer =
            serde_json::json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": said });
        let front = Front::before(Some(emulator().port()), move |request| {
            match request.operation() {
                "DeleteMessage" | "ChangeMessageVisibility" => Act::Answer(400, answer.to_string()),
                _ => Act::Pass,
            }
        })
        .await;
        let queue = Aws::load(front.settings()).await.queue(&url);
        for step in ["extend", "delete"] {
            queue
                .send(&message(&format!("{code}-{step}")))
                .await
                .expect("send");
            let received = queue
                .receive(Duration::from_secs(20), Duration::from_secs(1))
                .await;
            let handle = received.expect("receive").expect("it was sent").handle;
            let answer = match step {
                "extend" => queue.extend(&handle, MINUTE).await,
                _ => queue.delete(&handle).await,
            };
            assert_eq!(answer.expect("an answer"), Lease::Lost, "{step}: {code}");
            // It is over for good, and SQS need not be asked again.
            assert_eq!(queue.delete(&handle).await.expect("delete"), Lease::Lost);
        }
        let asked = front.count("DeleteMessage") + front.count("ChangeMessageVisibility");
        assert_eq!(asked, 2, "{code}");
    }
}

#[tokio::test]
async fn a_handle_that_is_nobodys_is_lost() {
    let queue = emulator().aws().await.queue(&fresh_queue().await);
    for handle in ["", "garbage", "1.1"] {
        let handle = DeliveryHandle::new(handle);
        let answer = queue.extend(&handle, MINUTE).await;
        assert_eq!(answer.expect("extend"), Lease::Lost);
        assert_eq!(queue.delete(&handle).await.expect("delete"), Lease::Lost);
    }
}

const THROTTLED: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"Rate exceeded"}"#;

#[tokio::test]
async fn a_request_that_is_throttled_is_asked_again() {
    let (stack, _) = dormant().await;
    let mut left = 3;
    let front = Front::before(Some(emulator().port()), move |_| {
        if left > 0 {
            left -= 1;
            return Act::Answer(400, THROTTLED.to_owned());
        }
        Act::Pass
    })
    .await;
    let sessions = Aws::load(front.settings()).await.sessions(&stack.sessions);
    let read = sessions.get(&session_id(&client("amelia"), 1)).await;
    assert!(read.expect("get").is_some());
    assert_eq!(front.count("GetItem"), 4);
}

const EXPIRED: &str = r#"{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"Signature expired: 20261127T100000Z is now earlier than 20261127T100500Z"}"#;

/// When a request was signed, as it says itself: such as `20261127T100000Z`.
fn signed_at(request: &Request) -> String {
    let date = request.header("x-amz-date").expect("it is signed");
    date.to_owned()
}

/// A machine whose clock is ten minutes behind is believed once AWS has said what time it is.
#[tokio::test]
async fn requests_are_signed_by_the_clock_of_aws_where_ours_is_wrong() {
    use aws_smithy_types::date_time::{DateTime, Format};
    let (stack, _) = dormant().await;
    let its_now = Timestamp::now().plus(10 * MINUTE);
    let date = DateTime::from_millis(its_now.unix_ms())
        .fmt(Format::HttpDate)
        .expect("a date");
    let mut first = true;
    let front = Front::before(Some(emulator().port()), move |_| {
        if std::mem::take(&mut first) {
            return Act::AnswerOn(date.clone(), 400, EXPIRED.to_owned());
        }
        Act::Pass
    })
    .await;
    let sessions = Aws::load(front.settings()).await.sessions(&stack.sessions);
    let read = sessions.get(&session_id(&client("amelia"), 1)).await;
    assert!(read.expect("get").is_some());
    let (wrong, right) = (signed_at(&front.seen()[0]), signed_at(&front.seen()[1]));
    // Times of this form are in order as texts are.
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    let soon = Timestamp::now().plus(9 * MINUTE).to_string();
    assert!(
        digits(&right)[..14] > digits(&soon)[..14],
        "{wrong}, then {right}"
    );
}

/// And where AWS does not say it, whoever reads the error is told what to look at; it may pass.
#[tokio::test]
async fn a_clock_that_is_not_believed_is_named() {
    let front = Front::before(None, |_| Act::Answer(400, EXPIRED.to_owned())).await;
    let aws = Aws::load(front.settings()).await;
    let refused = aws.clients("clients").get(&client("amelia")).await;
    let refused = refused.expect_err("it is not believed");
    assert!(refused.is_transient(), "{refused:?}");
    let said = format!("{refused:?}");
    assert!(said.contains("check the clock of this machine"), "{said}");
    assert!(front.seen().len() <= 4);
}

/// As often as was agreed and not once more; then it is the caller's turn to wait.
#[tokio::test]
async fn a_request_that_is_throttled_for_ever_is_given_up() {
    let front = Front::before(None, |_| Act::Answer(400, THROTTLED.to_owned())).await;
    let aws = Aws::load(front.settings()).await;
    let id = session_id(&client("amelia"), 1);
    let busy = aws.sessions("sessions").get(&id).await.expect_err("busy");
    assert!(busy.is_transient(), "{busy:?}");
    assert_eq!(front.count("GetItem"), 4);
    let queue = aws.queue("http://sqs/1/webordinary-intake.fifo");
    let busy = queue.receive(20 * MINUTE, MINUTE).await;
    assert!(busy.expect_err("busy").is_transient());
    assert_eq!(front.count("ReceiveMessage"), 4);
}

#[tokio::test]
async fn a_server_that_fails_is_not_available() {
    let front = Front::before(None, |_| Act::Answer(503, String::new())).await;
    let aws = Aws::load(front.settings()).await;
    let failed = aws.clients("clients").get(&client("amelia")).await;
    let failed = failed.expect_err("it fails");
    assert!(
        matches!(failed, PortError::Unavailable { .. }),
        "{failed:?}"
    );
    assert_eq!(front.seen().len(), 4);
}

/// As of a server that was stopped, a network that swallows, or a load balancer without anybody behind it.
#[tokio::test]
async fn a_server_that_never_answers_is_not_available() {
    let front = Front::before(None, |_| Act::Silence).await;
    let settings = AwsSettings {
        patience: Patience {
            attempt: Duration::from_millis(100),
            operation: Duration::from_millis(250),
            transfer: Duration::from_millis(100),
            pause: Duration::from_millis(10),
            ..Patience::default()
        },
        ..front.settings()
    };
    let aws = Aws::load(settings).await;
    let amelia = client("amelia");
    let (session, handle) = (session_id(&amelia, 1), Duration::ZERO);
    let queue = aws.queue("http://sqs/1/webordinary-intake.fifo");
    let asked = async {
        [
            ("clients", aws.clients("c").get(&amelia).await.map(drop)),
            ("sessions", aws.sessions("s").get(&session).await.map(drop)),
            (
                "receipts",
                aws.receipts("r").recent(&session, 1).await.map(drop),
            ),
            ("send", queue.send(&message("a")).await.map(drop)),
            // The wait is given to the server, and is over then.
            ("receive", queue.receive(handle, MINUTE).await.map(drop)),
            ("secrets", aws.secrets().read("ssm:/key").await.map(drop)),
            ("objects", aws.objects("b").get("key", 9).await.map(drop)),
            (
                "queue by name",
                aws.queue_named("dead.fifo").await.map(drop),
            ),
        ]
    };
    let answers = tokio::time::timeout(MINUTE, asked)
        .await
        .expect("each ends by itself");
    for (port, answer) in answers {
        let silent = answer.expect_err("nobody answered");
        assert!(
            matches!(silent, PortError::Unavailable { .. }),
            "{port}: {silent:?}"
        );
    }
}

#[tokio::test]
async fn where_nobody_listens_nobody_is_available() {
    let front = Front::before(None, |_| Act::Silence).await;
    let settings = front.settings();
    drop(front);
    let aws = Aws::load(settings).await;
    let refused = aws.clients("clients").get(&client("amelia")).await;
    assert!(refused.expect_err("no connection").is_transient());
}

/// With the name of what is missing, where it was looked for, and what to do.
#[tokio::test]
async fn what_was_not_deployed_is_named() {
    let aws = emulator().aws().await;
    let amelia = client("amelia");
    let (session, id) = (session(&amelia, 1), session_id(&amelia, 1));
    let (no_sessions, no_receipts) = (aws.sessions("no-sessions"), aws.receipts("no-receipts"));
    let url = format!("{}/000000000000/no-queue.fifo", emulator().endpoint());
    let answers = [
        (
            "no-clients",
            aws.clients("no-clients").get(&amelia).await.map(drop),
        ),
        (
            "no-clients",
            aws.clients("no-clients").list().await.map(drop),
        ),
        ("no-sessions", no_sessions.get(&id).await.map(drop)),
        ("no-sessions", no_sessions.create(&session).await.map(drop)),
        ("no-sessions", no_sessions.list(&amelia).await.map(drop)),
        ("no-receipts", no_receipts.recent(&id, 1).await.map(drop)),
        (
            "no-receipts",
            no_receipts
                .put(&receipt(&amelia, "one", Status::Pushed))
                .await
                .map(drop),
        ),
        (
            "no-queue.fifo",
            aws.queue(&url).send(&message("a")).await.map(drop),
        ),
        (
            "no-queue.fifo",
            aws.queue(&url)
                .receive(Duration::ZERO, MINUTE)
                .await
                .map(drop),
        ),
        ("no-queue.fifo", aws.queue(&url).depth().await.map(drop)),
        (
            "no-queue.fifo",
            aws.queue_named("no-queue.fifo").await.map(drop),
        ),
        (
            "no-bucket",
            aws.objects("no-bucket").get("key", 9).await.map(drop),
        ),
    ];
    for (name, answer) in answers {
        let missing = answer.expect_err("it is not there");
        assert!(matches!(missing, PortError::Refused { .. }), "{missing:?}");
        let said = missing.to_string();
        let expected = [name, "there is no ", "deploy infra/data.yaml"];
        assert!(expected.iter().all(|part| said.contains(part)), "{said}");
    }
}

/// AWS repeats the name of the queue and of the row, in which the session's id is.
#[tokio::test]
async fn what_is_forbidden_is_said_without_the_capability() {
    let id = session_id(&client("amelia"), 1);
    let message_of_aws = format!(
        "User: arn:aws:sts::1:assumed-role/agent/task is not authorized to perform: sqs:sendmessage on resource: \
         arn:aws:sqs:eu-central-1:1:webordinary-edits-{id}.fifo because no identity-based policy allows it"
    );
    let answer = serde_json::json!({
        "__type": "com.amazon.coral.service#AccessDeniedException",
        "message": message_of_aws,
    });
    let front = Front::before(None, move |_| Act::Answer(403, answer.to_string())).await;
    let aws = Aws::load(front.settings()).await;
    let url = format!("https://sqs.eu-central-1.amazonaws.com/1/webordinary-edits-{id}.fifo");
    let answers = [
        aws.queue(&url).send(&message("a")).await.map(drop),
        aws.sessions("sessions").get(&id).await.map(drop),
        aws.receipts("receipts").recent(&id, 1).await.map(drop),
    ];
    for answer in answers {
        let forbidden = answer.expect_err("it is forbidden");
        assert!(
            matches!(forbidden, PortError::Refused { .. }),
            "{forbidden:?}"
        );
        let said = format!("{forbidden} {forbidden:?}");
        assert!(!said.contains(id.label()), "{said}");
        assert!(said.contains(id.redacted()), "{said}");
        assert!(said.contains("the role may not do that"), "{said}");
        assert!(said.contains("assumed-role/agent"), "{said}");
    }
    assert_eq!(
        front.seen().len(),
        3,
        "nothing is tried again that is forbidden"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_answer_of_aws_is_corrupt() {
    let front = Front::before(None, |_| {
        Act::Answer(200, "<html>Welcome to the café's network</html>".to_owned())
    })
    .await;
    let aws = Aws::load(front.settings()).await;
    let corrupt = aws.clients("clients").get(&client("amelia")).await;
    let corrupt = corrupt.expect_err("it is HTML");
    assert!(matches!(corrupt, PortError::Corrupt { .. }), "{corrupt:?}");
}

/// Starts this binary again with [`child`] as its only test and only these variables; what it printed.
async fn in_a_process_with(variables: &[(&str, String)]) -> String {
    let binary = std::env::current_exe().expect("a test binary has a path");
    let mut command = Command::new(binary);
    command
        .args(["--exact", "--ignored", "faults::child", "--nocapture"])
        .env_clear()
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().map(|(name, value)| (*name, value)));
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// Asks for a client twice, with what the standard variables say.
#[tokio::test]
#[ignore = "what the processes of the tests below do, not a test"]
async fn child() {
    use std::io::Write as _;
    let aws = Aws::load(AwsSettings::default()).await;
    for _ in 0..2 {
        let answer = aws.clients("clients").get(&client("amelia")).await;
        let said = match answer {
            Ok(found) => format!("found {}", found.is_some()),
            Err(error) => format!("{error}"),
        };
        writeln!(std::io::stdout(), "{said}").expect("somebody reads");
    }
}

/// A credentials endpoint like the one of a container, whose keys are numbered and good for so long.
async fn credentials_endpoint(good_for: Duration) -> Front {
    let mut number = 0;
    Front::before(None, move |_| {
        number += 1;
        let keys = serde_json::json!({
            "AccessKeyId": format!("KEY{number}"),
            "SecretAccessKey": "secret",
            "Token": format!("token-{number}"),
            "Expiration": Timestamp::now().plus(good_for).to_string(),
        });
        Act::Answer(200, keys.to_string())
    })
    .await
}

/// The keys that the requests were signed with.
fn keys_of(requests: &[Request]) -> Vec<String> {
    requests
        .iter()
        .map(|request| {
            let signed = request.header("authorization").expect("it is signed");
            let (_, key) = signed.split_once("Credential=").expect("by a key");
            key.split('/').next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// From the endpoint that ECS names, and no oftener than need be.
#[tokio::test]
async fn credentials_that_expire_are_read_again() {
    for (good_for, expected) in [
        // The SDK renews keys some time before they expire: those are to be renewed at once.
        (Duration::from_secs(5), ["KEY1", "KEY2"]),
        (Duration::from_hours(6), ["KEY1", "KEY1"]),
    ] {
        let credentials = credentials_endpoint(good_for).await;
        let dynamodb = Front::before(None, |_| Act::Answer(200, "{}".to_owned())).await;
        let said = in_a_process_with(&[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", credentials.url()),
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url()),
        ])
        .await;
        assert_eq!(said.matches("found false").count(), 2, "{said}");
        assert_eq!(keys_of(&dynamodb.seen()), expected);
        let tokens: Vec<_> = dynamodb
            .seen()
            .iter()
            .filter_map(|request| Some(request.header("x-amz-security-token")?.to_owned()))
            .collect();
        assert_eq!(tokens.len(), 2);
    }
}

#[tokio::test]
async fn without_credentials_it_says_so() {
    let dynamodb = Front::before(None, |_| Act::Answer(200, "{}".to_owned())).await;
    let said = in_a_process_with(&[("AWS_ENDPOINT_URL", dynamodb.url())]).await;
    let expected = "read client amelia: there are no AWS credentials: give the task a role";
    assert!(said.contains(expected), "{said}");
    assert_eq!(dynamodb.seen().len(), 0);
}
