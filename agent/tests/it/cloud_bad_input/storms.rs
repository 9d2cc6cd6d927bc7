//! What goes wrong while an environment works: services that fail, throttle, lose their answers, say nothing or forbid; and
//! clocks that do not agree. One commit and one receipt an instruction, and nobody acts who may not.

use std::time::Duration;

use contract::session::{ProofKey, State, Transition};
use contract::{Status, Timestamp};
use platform::conformance::front::{Act, Front, Request};
use serde_json::json;

use super::{behind, is_for_operators, landed, own_disk, said};
use crate::support::seat::{Awake, Seat, Town, emulator, site};
use crate::support::{PATIENCE, Repository};

fn address(repository: &Repository) -> String {
    repository.path().display().to_string()
}

async fn sends_page(seat: &Seat, id: &str) {
    let path = format!("src/pages/{id}.md");
    let change = json!({ "op": "write", "path": path, "content": "# A page\n" });
    seat.sends(id, json!({ "type": "edit", "changes": [change] }))
        .await;
}

/// Waits until so many requests of an operation have come by.
async fn asked(front: &Front, operation: &str, times: usize) {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let counted = tokio::time::timeout(PATIENCE, async {
        while front.count(operation) < times {
            pace.tick().await;
        }
    });
    let in_time = counted.await.is_ok();
    assert!(
        in_time,
        "{operation}: {} of {times}",
        front.count(operation)
    );
}

/// What must hold when all is over: everything landed once and in order, and the environment is as it was.
async fn is_whole(awake: Awake, repository: &Repository, ids: &[String]) {
    let seat = awake.seat.clone();
    assert_eq!(landed(repository), ids);
    repository.was_never_forced("edit/spring");
    for id in ids {
        let receipt = awake.receipt(id).await;
        assert_eq!(receipt.status, Status::Pushed, "{receipt:#?}");
        let commit = receipt.commit.expect("a commit");
        let carried = repository.git(&["show", "--no-patch", "--format=%B", commit.as_str()]);
        assert!(
            carried.contains(&format!("Edit-Instruction: {id}")),
            "{carried}"
        );
    }
    let (exit, log) = awake.stopped().await;
    assert_eq!(exit, 0, "{log}");
    is_for_operators(&log, &seat);
    let record = seat.record().await;
    assert_eq!(record.state, State::Dormant);
    let url = record.queue_url;
    for count in [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
    ] {
        assert_eq!(
            emulator().queue_attribute(&url, count).await,
            "0",
            "{count}"
        );
    }
    let dead = seat.town.stack.as_ref().expect("in the cloud").dead.clone();
    let dead = emulator()
        .queue_attribute(&dead, "ApproximateNumberOfMessages")
        .await;
    assert_eq!(dead, "0", "nothing is a dead letter");
}

fn busy(request: &Request) -> Act {
    match request.service() {
        "AmazonSQS" => Act::Answer(400, said("RequestThrottled", "Rate exceeded")),
        _ => Act::Answer(400, said("ThrottlingException", "Rate exceeded")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_fail_throttle_and_lose_their_answers_for_a_while_change_nothing() {
    let repository = site();
    let (front, town) = behind().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let awake = seat.wakes_as_in_production().await;
    let mut ids = Vec::new();
    for (storm, failing, act) in [
        (
            "failing",
            24,
            (|_| Act::Answer(503, String::new())) as fn(&Request) -> Act,
        ),
        ("throttled", 24, busy),
        ("cut", 6, |request| match request.operation() {
            // Its message would be somebody else's for a minute: SQS answers the same attempt again, the emulator does not.
            "ReceiveMessage" => Act::Pass,
            _ => Act::LoseReply,
        }),
    ] {
        let mut left = failing;
        front.from_now_on(move |request| {
            if left == 0 {
                return Act::Pass;
            }
            left -= 1;
            act(request)
        });
        for number in 1..=3 {
            let id = format!("{storm}-{number}");
            sends_page(&seat, &id).await;
            ids.push(id);
        }
        for id in &ids[ids.len() - 3..] {
            assert_eq!(awake.receipt(id).await.status, Status::Pushed);
        }
    }
    let record = seat.record().await;
    assert_eq!((record.state, record.generation.0), (State::Ready, 1));
    is_whole(awake, &repository, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_forbids_is_asked_ever_more_seldom_and_its_messages_wait() {
    let repository = site();
    let (front, town) = behind().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let mut awake = seat.wakes_as_in_production().await;
    // A policy that somebody changes while it works: it may look how much there is, and not have it.
    front.from_now_on(|request| match request.operation() {
        "ReceiveMessage" => {
            let policy = "no identity-based policy allows it";
            Act::Answer(403, said("AccessDeniedException", policy))
        }
        _ => Act::Pass,
    });
    // The request that waits already is answered as before; the next ones are not.
    let before = front.count("ReceiveMessage");
    asked(&front, "ReceiveMessage", before + 2).await;
    sends_page(&seat, "one").await;
    // Three leases.
    asked(&front, "UpdateItem", front.count("UpdateItem") + 3).await;
    let refused = front.count("ReceiveMessage") - before;
    assert!(refused <= 8, "{refused} times in half a minute");
    let told = awake.said().matches("the queue does not answer").count();
    assert_eq!(told, 1, "once: {}", awake.said());
    front.from_now_on(|_| Act::Pass);
    assert_eq!(awake.receipt("one").await.status, Status::Pushed);
    awake.says("the queue answers again").await;
    is_whole(awake, &repository, &["one".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_whose_queue_is_gone_goes_to_sleep_all_the_same() {
    let repository = site();
    let town = Town::in_the_cloud().await;
    let seat = town
        .session(&address(&repository), json!({ "idleTimeoutMinutes": 0.1 }))
        .await;
    let awake = seat.wakes_as_in_production().await;
    let queue = json!({ "QueueUrl": seat.record().await.queue_url });
    let gone = async { emulator().ask("AmazonSQS.DeleteQueue", &queue).await };
    awake.watched(gone).await;
    // There is nothing in it that could be waited for.
    let (exit, log) = awake.ended().await;
    assert_eq!(exit, 0, "{log}");
    assert_eq!(seat.record().await.state, State::Dormant);
    is_for_operators(&log, &seat);
    assert!(
        log.matches("the queue does not answer").count() <= 1,
        "{log}"
    );
    assert_eq!(log.matches("how much waits").count(), 1, "once: {log}");
}

/// Nobody answers what is written into a session's record; everything else works.
fn no_renewals(request: &Request) -> Act {
    match (request.service(), request.operation()) {
        ("DynamoDB_20120810", "UpdateItem" | "TransactWriteItems") => Act::Silence,
        _ => Act::Pass,
    }
}

/// Waits until the lease that the record tells of is over.
async fn lease_is_over(seat: &Seat) {
    let over = |record: &contract::Session| record.lease_until < Some(Timestamp::now());
    seat.record_when("without a lease", over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_renew_for_longer_than_a_lease_does_not_push_until_it_can() {
    let repository = site();
    let (front, town) = behind().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let awake = seat.wakes_as_in_production().await;
    front.from_now_on(no_renewals);
    lease_is_over(&seat).await;
    let received = front.count("ReceiveMessage");
    sends_page(&seat, "one").await;
    // It goes on to ask for its lease (which is over, so with its slot), and for nothing else.
    let tries = front.count("TransactWriteItems");
    asked(&front, "TransactWriteItems", tries + 2).await;
    let branches = repository.git(&["branch", "--list", "edit/*"]);
    assert_eq!(branches, "", "nothing is pushed without a lease");
    assert!(
        front.count("ReceiveMessage") <= received + 1,
        "nor taken from the queue"
    );
    front.from_now_on(|_| Act::Pass);
    assert_eq!(awake.receipt("one").await.status, Status::Pushed);
    assert_eq!(seat.record().await.generation.0, 1);
    is_whole(awake, &repository, &["one".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_that_begins_when_a_receipt_is_due_and_outlasts_the_lease_ends_with_one_commit_and_one_receipt()
 {
    let repository = site();
    let (front, town) = behind().await;
    let receipts = town.stack.as_ref().expect("in the cloud").receipts.clone();
    let seat = town.session(&address(&repository), json!({})).await;
    let awake = seat.wakes_as_in_production().await;
    let mut silent = false;
    front.from_now_on(move |request| {
        silent |= request.operation() == "PutItem" && request.body.contains(&receipts);
        if silent { Act::Silence } else { Act::Pass }
    });
    for id in ["one", "two"] {
        sends_page(&seat, id).await;
    }
    asked(&front, "PutItem", 1).await;
    lease_is_over(&seat).await;
    assert_eq!(landed(&repository), ["one"], "the second is not begun");
    let written = town
        .receipts
        .get(&seat.id, &"one".parse().expect("an id"))
        .await;
    assert!(
        written
            .expect("answered")
            .is_none_or(|receipt| !receipt.status.is_final())
    );
    front.from_now_on(|_| Act::Pass);
    assert_eq!(awake.receipt("two").await.status, Status::Pushed);
    assert_eq!(
        seat.record().await.generation.0,
        1,
        "nobody else was woken, so it goes on"
    );
    let told = awake.said().matches("the receipts do not answer").count();
    assert_eq!(told, 1, "once: {}", awake.said());
    is_whole(awake, &repository, &["one".to_owned(), "two".to_owned()]).await;
}

/// ECS gives a container two minutes, and then kills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_nobody_answers_ends_long_before_it_would_be_killed() {
    let repository = site();
    let (front, town) = behind().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let awake = seat.wakes_as_in_production().await;
    sends_page(&seat, "one").await;
    assert_eq!(awake.receipt("one").await.status, Status::Pushed);
    front.from_now_on(|_| Act::Silence);
    let begun = std::time::Instant::now();
    let (exit, log) = awake.stopped().await;
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}: {log}",
        begun.elapsed()
    );
    assert_eq!(exit, 22, "{log}");
    let lines = is_for_operators(&log, &seat);
    let last = lines
        .iter()
        .rfind(|line| line["exit"].is_number())
        .expect("it says why");
    assert!(
        last["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("nothing is lost")),
        "{log}"
    );
    assert_eq!(landed(&repository), ["one"]);
    // Whoever comes next finds all as it was left.
    lease_is_over(&seat).await;
    front.from_now_on(|_| Act::Pass);
    let next = seat.wakes_as_in_production().await;
    is_whole(next, &repository, &["one".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_could_not_renew_steps_down_if_somebody_else_was_woken_meanwhile() {
    let repository = site();
    let (front, town) = behind().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let older = seat.wakes_as_in_production().await;
    front.from_now_on(no_renewals);
    lease_is_over(&seat).await;
    // The newer one has another way to the records, and a disk of its own.
    let disk = own_disk();
    let newer = seat
        .container()
        .variable("AWS_ENDPOINT_URL", &emulator().endpoint())
        .variable("WORKSPACE_DIR", &disk.path().display().to_string())
        .with(&["--task", "the-newer-one"])
        .starts()
        .registered()
        .await;
    sends_page(&seat, "one").await;
    assert_eq!(newer.receipt("one").await.status, Status::Pushed);
    let record = seat.record().await;
    front.from_now_on(|_| Act::Pass);
    let (exit, log) = older.ended().await;
    assert_eq!(exit, 18, "{log}");
    let lines = is_for_operators(&log, &seat);
    let last = lines
        .iter()
        .rfind(|line| line["exit"].is_number())
        .expect("it says why");
    assert_eq!(last["code"], "other_environment", "{log}");
    let after = seat.record().await;
    assert_eq!(
        (after.generation, after.state, after.task_arn),
        (record.generation, State::Ready, record.task_arn),
        "it touched nothing"
    );
    sends_page(&seat, "two").await;
    assert_eq!(newer.receipt("two").await.status, Status::Pushed);
    is_whole(newer, &repository, &["one".to_owned(), "two".to_owned()]).await;
}

/// Clocks meet in the record only. The router's is a minute ahead of the container's: so it takes a living lease for one that is
/// over, and wakes the session anew. What was under way is done once, by one of the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_whose_clock_is_ahead_wakes_another_one_and_nothing_is_done_twice() {
    let repository = site();
    let (_front, town) = behind().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let older = seat.wakes_as_in_production().await;
    let ids: Vec<String> = (1..=6).map(|number| format!("page-{number}")).collect();
    for id in &ids {
        sends_page(&seat, id).await;
    }
    assert_eq!(older.receipt(&ids[0]).await.status, Status::Pushed);
    let seen = seat.record().await.generation;
    let its_now = Timestamp::now().plus(Duration::from_secs(60));
    let wake = Transition::Wake {
        seen,
        proof_key: ProofKey(contract::id::hex(&[7; 32])),
        lease_until: its_now.plus(Duration::from_secs(120)),
    };
    let woken = town
        .sessions
        .transition(&seat.id, seen, &wake, 2, its_now)
        .await;
    let woken = woken
        .expect("answered")
        .expect("it takes the lease for one that is over");
    assert_eq!(woken.generation.0, 2);
    let disk = own_disk();
    let newer = seat
        .container()
        .variable("GENERATION", "2")
        .variable("WORKSPACE_DIR", &disk.path().display().to_string())
        .variable("LOG_LEVEL", "info")
        .with(&["--task", "the-newer-one"])
        .starts()
        .registered()
        .await;
    let (exit, log) = older.ended().await;
    assert_eq!(exit, 18, "{log}");
    for id in &ids {
        assert_eq!(newer.receipt(id).await.status, Status::Pushed);
    }
    assert_eq!(seat.record().await.generation.0, 2);
    is_whole(newer, &repository, &ids).await;
}
