//! What comes through the queue: garbage among what is good, and containers that are killed in the middle of it.

use contract::session::State;
use contract::{Status, Timestamp};
use serde_json::{Value, json};

use super::{is_for_operators, landed, own_disk};
use crate::support::Repository;
use crate::support::seat::{Seat, Town, emulator, site};

fn address(repository: &Repository) -> String {
    repository.path().display().to_string()
}

/// An instruction that writes a page, with anything put over it.
fn page(seat: &Seat, id: &str, over: &Value) -> String {
    let path = format!("src/pages/{id}.md");
    let mut body = json!({
        "version": 1,
        "instructionId": id,
        "clientId": seat.config.client_id,
        "sessionId": seat.id,
        "submittedAt": Timestamp::now(),
        "action": { "type": "edit", "changes": [{ "op": "write", "path": path, "content": "# canary-words\n" }] },
    });
    for (name, value) in over.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_full_of_garbage_ends_in_receipts_and_dead_letters_and_the_good_lands_in_order() {
    let repository = site();
    let town = Town::in_the_cloud().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let own = seat.id.as_str();
    let large = |id: &str, length: usize| {
        let body = page(&seat, id, &json!({}));
        let filling = "x".repeat(length - body.len());
        body.replace("canary-words", &format!("canary-words{filling}"))
    };
    // What nobody can answer, because it has no id: it goes to the dead letters.
    let dead = [
        ("not-json", "{".to_owned()),
        ("nothing", "   ".to_owned()),
        ("no-text", "\u{fffd}\u{1f600}".to_owned()),
        ("a-list", "[]".to_owned()),
        ("no-id", page(&seat, "x", &json!({ "instructionId": null }))),
        (
            "bad-id",
            page(&seat, "x", &json!({ "instructionId": "../../etc" })),
        ),
        ("deep", "[".repeat(100_000)),
        ("much", "x".repeat(262_144)),
    ];
    // What is answered: why not.
    let other = format!("{}_{}", seat.config.client_id, "a".repeat(26));
    let refused = [
        ("version-2", json!({ "version": 2 }), "unsupported_version"),
        ("no-action", json!({ "action": null }), "invalid_message"),
        (
            "unknown-action",
            json!({ "action": { "type": "explode" } }),
            "unsupported_action",
        ),
        (
            "no-changes",
            json!({ "action": { "type": "edit", "changes": [] } }),
            "invalid_message",
        ),
        (
            "other-client",
            json!({ "clientId": "bertram" }),
            "wrong_client",
        ),
        (
            "other-session",
            json!({ "sessionId": other }),
            "wrong_session",
        ),
        (
            "outside",
            json!({ "action": { "type": "edit", "changes": [{ "op": "write", "path": "../x", "content": "x" }] } }),
            "invalid_message",
        ),
    ];
    let good: Vec<String> = (1..=5).map(|number| format!("good-{number}")).collect();
    let mut next_good = good.iter();
    for (name, body) in &dead {
        seat.sends_raw(name, own, body.clone()).await;
        if let Some(id) = next_good.next() {
            seat.sends_raw(id, own, page(&seat, id, &json!({}))).await;
        }
    }
    for (id, over, _) in &refused {
        seat.sends_raw(id, own, page(&seat, id, over)).await;
    }
    // As large as a message can be, and yet an instruction.
    seat.sends_raw("large", own, large("large", 262_000)).await;
    // An id that is used again, by another sender's deduplication id.
    let again = json!({ "action": { "type": "edit", "changes": [{ "op": "delete", "path": "src/pages/index.astro" }] } });
    seat.sends_raw("again", own, page(&seat, "good-1", &again))
        .await;
    // Groups that nobody agreed upon, and what is no cancel in the group of those that overtake.
    seat.sends_raw(
        "foreign",
        "some-group-of-others",
        page(&seat, "foreign", &json!({})),
    )
    .await;
    seat.sends_raw(
        "overtaking",
        "control",
        page(&seat, "overtaking", &json!({})),
    )
    .await;
    seat.sends_raw("control-garbage", "control", "{".to_owned())
        .await;
    seat.sends_raw("the-last", own, page(&seat, "the-last", &json!({})))
        .await;

    let awake = seat.wakes_as_in_production().await;
    for id in good
        .iter()
        .map(String::as_str)
        .chain(["large", "foreign", "overtaking", "the-last"])
    {
        assert_eq!(awake.receipt(id).await.status, Status::Pushed, "{id}");
    }
    for (id, _, code) in &refused {
        let receipt = awake.receipt(id).await;
        assert_eq!(receipt.status, Status::Rejected, "{id}");
        let error = receipt.error.expect("an error");
        assert_eq!(error.code.as_str(), *code, "{id}: {error:?}");
        assert!(!error.hint.is_empty(), "{id}");
    }
    // An id that is used again in another group: what it was used for first stands, and what is behind it goes on.
    for (deduplication, body) in [
        ("and-again", page(&seat, "good-1", &again)),
        ("behind-it", page(&seat, "behind-it", &json!({}))),
    ] {
        seat.sends_raw(deduplication, "some-group-of-others", body)
            .await;
    }
    assert_eq!(awake.receipt("behind-it").await.status, Status::Pushed);
    // The messages behind the last receipts are deleted before it stops.
    let (exit, log) = awake.stopped().await;
    assert_eq!(exit, 0, "{log}");
    is_for_operators(&log, &seat);
    assert!(
        !log.contains("canary-words"),
        "no instruction's text is in a log"
    );
    let order = landed(&repository);
    let in_own_group: Vec<&String> = order
        .iter()
        .filter(|id| !["foreign", "overtaking", "behind-it"].contains(&id.as_str()))
        .collect();
    let expected: Vec<String> = good
        .iter()
        .cloned()
        .chain(["large".to_owned(), "the-last".to_owned()])
        .collect();
    assert_eq!(in_own_group, expected.iter().collect::<Vec<_>>());
    assert_eq!(order.len(), expected.len() + 3, "nothing twice: {order:?}");
    repository.show("edit/spring", "src/pages/index.astro");
    let first = seat.receipt("good-1").await;
    assert_eq!(
        first.status,
        Status::Pushed,
        "the first one's receipt is untouched"
    );
    let stack = town.stack.as_ref().expect("in the cloud");
    let count = "ApproximateNumberOfMessages";
    let letters = emulator().queue_attribute(&stack.dead, count).await;
    assert_eq!(letters, (dead.len() + 1).to_string(), "{log}");
    let url = seat.record().await.queue_url;
    assert_eq!(emulator().queue_attribute(&url, count).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_are_killed_in_the_middle_lose_nothing_and_do_nothing_twice() {
    let repository = site();
    let town = Town::in_the_cloud().await;
    let seat = town.session(&address(&repository), json!({})).await;
    let ids: Vec<String> = (1..=12).map(|number| format!("page-{number}")).collect();
    for id in &ids {
        seat.sends_raw(id, seat.id.as_str(), page(&seat, id, &json!({})))
            .await;
    }
    let over = |record: &contract::Session| record.lease_until < Some(Timestamp::now());
    let disk = own_disk();
    let first = seat
        .container()
        .variable("WORKSPACE_DIR", &disk.path().display().to_string())
        .starts()
        .registered()
        .await;
    assert_eq!(first.receipt("page-1").await.status, Status::Pushed);
    first.killed().await;
    seat.record_when("without a lease", over).await;
    // Each dies by itself at its place, as by kill -9; its disk goes with it; the next one is another task.
    for (generation, place) in [(2, "after-commit"), (3, "after-push"), (4, "before-delete")] {
        let disk = own_disk();
        let dying = seat
            .container()
            .variable("WORKSPACE_DIR", &disk.path().display().to_string())
            .variable("EDIT_AGENT_CRASH_AT", place)
            .with(&["--task", place])
            .starts();
        let (exit, log) = dying.ended().await;
        assert_eq!(exit, -1, "{place}: killed by a signal: {log}");
        let left = seat.record().await;
        assert_eq!(
            (left.state, left.generation.0),
            (State::Ready, generation),
            "{place}: {log}"
        );
        seat.record_when("without a lease", over).await;
    }
    let disk = own_disk();
    let awake = seat
        .container()
        .variable("WORKSPACE_DIR", &disk.path().display().to_string())
        .with(&["--task", "the-last"])
        .starts()
        .registered()
        .await;
    assert_eq!(seat.record().await.generation.0, 5);
    for id in &ids {
        let receipt = awake.receipt(id).await;
        assert_eq!(receipt.status, Status::Pushed, "{receipt:#?}");
    }
    assert_eq!(landed(&repository), ids);
    repository.was_never_forced("edit/spring");
    let (exit, log) = awake.stopped().await;
    assert_eq!(exit, 0, "{log}");
    let url = seat.record().await.queue_url;
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
}
