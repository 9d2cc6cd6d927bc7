//! What producers send from outside comes to its session: in order, once, and to nobody else's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use contract::client_config::ClientStatus;
use contract::session::{Failure, State, Transition};
use contract::{ClientConfig, Receipt, Status};
use edit_router::intake::Record;
use futures_util::future::join_all;
use platform::conformance::records::{client_config, dawn, session, session_id};
use platform::{Created, Queues};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::house::{
    House, for_session, for_thread, ids, message, other_client, outgoing, record, second, thread_of,
};

const NOBODY: [String; 0] = [];

#[tokio::test]
async fn the_first_message_of_a_thread_makes_its_session_and_wakes_it() {
    let house = House::new().await;
    let body = message(
        "i-1",
        json!({ "threadId": "spring", "userId": "amelia@example.com" }),
    );
    let traced = Record {
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..record(&body, "spring", "m-1")
    };
    assert_eq!(
        house.intake().take(vec![traced.clone()], dawn()).await,
        NOBODY
    );

    let id = thread_of(&house, "spring").await.expect("it has a session");
    let made = house.now(&id).await;
    assert_eq!(made.state, State::Waking);
    assert_eq!(made.user_id, "amelia@example.com");
    assert_eq!(
        made.preview_url,
        format!("https://edit.example.com/session/{id}/")
    );
    assert_eq!(made.draft_branch, "edit/spring");
    assert_eq!((house.fleet.orders(), house.fleet.tasks()), (1, 1));
    assert_eq!(house.answer(&id, "i-1").await, "accepted");

    let waiting = house.drained(&made.queue_url).await;
    let [delivery] = waiting.as_slice() else {
        panic!("{waiting:?}")
    };
    assert_eq!(delivery.body, body, "as it came");
    assert_eq!(delivery.group, id.as_str());
    assert_eq!(delivery.trace_parent, traced.trace_parent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_routers_at_once_make_one_session_of_a_thread_and_hand_on_in_order() {
    let house = House::new().await;
    let batch = |start: usize| {
        (start..start + 5)
            .map(|number| {
                let body = for_thread(&format!("i-{number}"), "spring");
                record(&body, &format!("g-{start}"), &format!("m-{number}"))
            })
            .collect::<Vec<_>>()
    };
    let intakes: Vec<_> = (0..4).map(|_| house.intake()).collect();
    let taken = intakes
        .iter()
        .enumerate()
        .map(|(place, intake)| intake.take(batch(place * 10), dawn()));
    assert_eq!(join_all(taken).await.concat(), NOBODY);

    let sessions = house
        .sessions
        .list(&house.amelia.client_id)
        .await
        .expect("answered");
    let [made] = sessions.as_slice() else {
        panic!("{} sessions", sessions.len())
    };
    assert_eq!(house.fleet.tasks(), 1);
    let queues = house.sweep().queues.list().await.expect("answered");
    assert_eq!(queues.len(), 1, "what was made in vain is removed");
    let order = ids(&house.drained(&made.queue_url).await);
    for start in [0, 10, 20, 30] {
        let own: Vec<_> = (start..start + 5)
            .map(|number| format!("i-{number}"))
            .collect();
        let came: Vec<_> = order
            .iter()
            .filter(|id| own.contains(id))
            .cloned()
            .collect();
        assert_eq!(came, own);
    }
}

#[tokio::test]
async fn a_message_that_comes_again_is_handed_on_once() {
    let house = House::new().await;
    let taken = vec![record(&for_thread("i-1", "spring"), "spring", "m-1")];
    for _ in 0..3 {
        assert_eq!(house.intake().take(taken.clone(), dawn()).await, NOBODY);
    }
    let id = thread_of(&house, "spring").await.expect("it has a session");
    let queue = house.now(&id).await.queue_url;
    assert_eq!(ids(&house.drained(&queue).await), ["i-1"]);
    assert_eq!(house.fleet.tasks(), 1);
}

#[tokio::test]
async fn an_instruction_that_is_answered_wakes_nobody_and_an_id_is_used_once() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let intake = house.intake();
    let first = record(&for_session("i-1", &asleep.session_id), "g", "m-1");
    assert_eq!(intake.take(vec![first.clone()], dawn()).await, NOBODY);
    house.drained(&asleep.queue_url).await;
    let accepted = house
        .receipt(&asleep.session_id, "i-1")
        .await
        .expect("accepted");
    let pushed = Receipt {
        status: Status::Pushed,
        ..accepted
    };
    house.receipts.put(&pushed).await.expect("put");
    let tasks = house.fleet.tasks();

    let other = message(
        "i-1",
        json!({ "sessionId": asleep.session_id.as_str(), "action": { "type": "publish" } }),
    );
    let other = record(&other, "g", "m-2");
    assert_eq!(intake.take(vec![first, other], second(600)).await, NOBODY);
    assert_eq!(house.waiting(&asleep.queue_url).await, 0);
    assert_eq!(house.fleet.tasks(), tasks);
    assert_eq!(
        house.receipt(&asleep.session_id, "i-1").await,
        Some(pushed),
        "the original is untouched"
    );
    let dead = house.dead_letters().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert!(dead[0].body.contains("publish"), "{dead:?}");
}

#[tokio::test]
async fn after_a_failure_the_rest_of_its_group_waits_and_other_groups_go_on() {
    let house = House::new().await;
    let (one, two) = (house.sleeper(1).await, house.sleeper(2).await);
    let (a, b) = (one.session_id.clone(), two.session_id.clone());
    // What is wrong with the second message of the first group is that the queue of its session does not answer. Here all do
    // not, for as long as that group is taken.
    house.queues.storm.store(true, Ordering::SeqCst);
    let stormy = vec![
        record(&for_session("a-1", &a), "one", "m-1"),
        record("no json", "two", "m-2"),
        record(&for_session("a-2", &a), "one", "m-3"),
        record("no json", "one", "m-4"),
        record("no json", "two", "m-5"),
    ];
    let mut failed = house.intake().take(stormy, dawn()).await;
    failed.sort();
    assert_eq!(
        failed,
        ["m-1", "m-3", "m-4"],
        "in the group `one` nothing overtakes; `two` is done"
    );
    assert_eq!(house.waiting(&one.queue_url).await, 0);
    assert_eq!(house.fleet.orders(), 0);

    house.queues.storm.store(false, Ordering::SeqCst);
    let again = vec![
        record(&for_session("a-1", &a), "one", "m-1"),
        record(&for_session("b-1", &b), "two", "m-6"),
        record(&for_session("a-2", &a), "one", "m-3"),
    ];
    assert_eq!(house.intake().take(again, dawn()).await, NOBODY);
    assert_eq!(ids(&house.drained(&one.queue_url).await), ["a-1", "a-2"]);
    assert_eq!(ids(&house.drained(&two.queue_url).await), ["b-1"]);
}

#[tokio::test]
async fn a_cancel_does_not_wait_behind_what_it_calls_off() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    let cancel = message(
        "c-1",
        json!({ "sessionId": asleep.session_id.as_str(), "action": { "type": "cancel", "instructionId": "i-1" } }),
    );
    let records = vec![
        record(&for_session("i-1", &asleep.session_id), "g", "m-1"),
        record(&cancel, "g", "m-2"),
    ];
    assert_eq!(house.intake().take(records, dawn()).await, NOBODY);
    let waiting = house.drained(&asleep.queue_url).await;
    let groups: Vec<_> = waiting
        .iter()
        .map(|delivery| delivery.group.as_str())
        .collect();
    assert_eq!(groups, [asleep.session_id.as_str(), "control"]);
}

#[tokio::test]
async fn what_can_never_be_carried_out_is_answered_where_somebody_can_ask_and_kept_for_people() {
    let house = House::new().await;
    let bertram = client_config("bertram");
    house.clients.put(&bertram).await.expect("put");
    let foreign = session(&other_client(), 7);
    assert_eq!(
        house.sessions.create(&foreign).await.expect("answered"),
        Created::New
    );
    let asleep = house.sleeper(1).await;
    let (own, theirs) = (&asleep.session_id, &foreign.session_id);
    let gone = session_id(&house.amelia.client_id, 9);

    let unreadable = |id: &str, version: u32, more: serde_json::Value| {
        let mut body = json!({ "version": version, "instructionId": id, "clientId": "amelia" });
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        body.to_string()
    };
    for (id, what, body, session, expected) in [
        ("i-0", "not JSON", "hello".to_owned(), own, "nothing"),
        ("i-1", "nothing at all", String::new(), own, "nothing"),
        (
            "i-2",
            "no id",
            json!({ "clientId": "amelia" }).to_string(),
            own,
            "nothing",
        ),
        (
            "i-3",
            "no action",
            unreadable("i-3", 1, json!({ "sessionId": own.as_str() })),
            own,
            "rejected invalid_message",
        ),
        (
            "i-4",
            "of a version to come, to a thread",
            unreadable("i-4", 9, json!({ "threadId": "thread-1" })),
            own,
            "rejected unsupported_version",
        ),
        (
            "i-5",
            "of a version to come, to a thread without a session",
            unreadable("i-5", 9, json!({ "threadId": "autumn" })),
            own,
            "nothing",
        ),
        (
            "i-6",
            "unreadable, for somebody else's session",
            unreadable("i-6", 9, json!({ "sessionId": theirs.as_str() })),
            theirs,
            "nothing",
        ),
        (
            "i-7",
            "an unknown client",
            message("i-7", json!({ "clientId": "nobody", "threadId": "t" })),
            own,
            "nothing",
        ),
        (
            "i-8",
            "somebody else's session",
            for_session("i-8", theirs),
            theirs,
            "nothing",
        ),
        (
            "i-9",
            "a session that ended",
            for_session("i-9", &gone),
            &gone,
            "failed session_expired",
        ),
    ] {
        let taken = vec![record(&body, "g", &format!("m-{id}"))];
        assert_eq!(house.intake().take(taken, dawn()).await, NOBODY, "{what}");
        assert_eq!(house.answer(session, id).await, expected, "{what}");
        let dead = house.dead_letters().await;
        assert_eq!(dead.len(), 1, "{what}: {dead:?}");
        assert_eq!(dead[0].group, "intake", "{what}");
        let kept = if body.is_empty() { "(nothing)" } else { &body };
        assert_eq!(dead[0].body, kept, "{what}");
    }
    assert_eq!(
        thread_of(&house, "autumn").await,
        None,
        "nothing is made for what cannot be read"
    );
    assert_eq!(house.fleet.orders(), 0, "nobody is woken for it");
    assert_eq!(house.waiting(&asleep.queue_url).await, 0);
    assert_eq!(house.now(theirs).await, foreign);
}

#[tokio::test]
async fn what_is_sent_to_a_suspended_client_waits() {
    let house = House::new().await;
    let suspended = ClientConfig {
        status: ClientStatus::Suspended,
        ..house.amelia.clone()
    };
    house.clients.put(&suspended).await.expect("put");
    let taken = vec![record(&for_thread("i-1", "spring"), "g", "m-1")];
    assert_eq!(house.intake().take(taken, dawn()).await, NOBODY);
    let id = thread_of(&house, "spring").await.expect("it has a session");
    let waits = house.now(&id).await;
    assert_eq!((waits.state, house.fleet.orders()), (State::Dormant, 0));
    assert_eq!(house.waiting(&waits.queue_url).await, 1);
}

#[tokio::test]
async fn a_queue_that_is_gone_is_made_anew() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    house
        .queues
        .gone
        .lock()
        .expect("whole")
        .insert(asleep.queue_url.clone());
    let taken = vec![record(&for_session("i-1", &asleep.session_id), "g", "m-1")];
    assert_eq!(house.intake().take(taken, dawn()).await, NOBODY);
    assert_eq!(ids(&house.drained(&asleep.queue_url).await), ["i-1"]);
}

#[tokio::test]
async fn an_instruction_for_a_thread_whose_session_ends_that_very_moment_goes_to_a_new_one() {
    let house = House::new().await;
    let amelia = &house.amelia;
    let ending = house
        .threads()
        .open(amelia, &"spring".parse().expect("valid"), "", dawn())
        .await;
    let ending = ending.expect("answered");
    *house.queues.ends.lock().expect("whole") = Some((Arc::clone(&house.sessions), ending.clone()));
    let taken = vec![record(&for_thread("i-1", "spring"), "g", "m-1")];
    assert_eq!(house.intake().take(taken, dawn()).await, NOBODY);
    let id = thread_of(&house, "spring").await.expect("it has a session");
    assert_ne!(id, ending.session_id);
    let queue = house.now(&id).await.queue_url;
    assert_eq!(ids(&house.drained(&queue).await), ["i-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_fails_fails_no_message_and_is_not_repeated_for_each() {
    let house = House::new().await;
    let asleep = house.sleeper(1).await;
    house.fleet.always(super::fleet::Fault::NoCapacity);
    let records = (0..10)
        .map(|number| {
            let body = for_session(&format!("i-{number}"), &asleep.session_id);
            record(&body, "g", &format!("m-{number}"))
        })
        .collect();
    assert_eq!(house.intake().take(records, dawn()).await, NOBODY);
    let failed = house.now(&asleep.session_id).await;
    assert_eq!(
        failed.failure.as_ref().map(|failure| failure.code.as_str()),
        Some("no_capacity")
    );
    assert_eq!(house.fleet.orders(), 1);
    assert_eq!(house.waiting(&asleep.queue_url).await, 10);

    // What comes later is something new: somebody may have put it right.
    house.fleet.recovers();
    let later = vec![record(
        &for_session("i-10", &asleep.session_id),
        "g",
        "m-10",
    )];
    assert_eq!(house.intake().take(later, second(60)).await, NOBODY);
    assert_eq!(house.now(&asleep.session_id).await.state, State::Waking);
}

#[tokio::test]
async fn a_thread_whose_session_is_gone_gets_another_one() {
    let house = House::new().await;
    let amelia = &house.amelia;
    let threads = house.threads();
    let name = "spring".parse().expect("valid");
    let first = threads
        .open(amelia, &name, "", dawn())
        .await
        .expect("answered");
    let same = threads
        .open(amelia, &name, "", dawn())
        .await
        .expect("answered");
    assert_eq!(first, same);
    house.sessions.remove(&first).await.expect("removed");
    let second = threads
        .open(amelia, &name, "", dawn())
        .await
        .expect("answered");
    assert_ne!(first.session_id, second.session_id);
}

#[tokio::test]
async fn on_a_laptop_the_intake_queue_is_emptied_until_it_is_told_to_stop() {
    let house = House::new().await;
    let queue = house.queues.open("webordinary-intake.fifo");
    let stop = CancellationToken::new();
    let running = house.intake().run(Arc::clone(&queue), stop.clone());
    let story = async {
        for number in 0..3 {
            let body = for_thread(&format!("i-{number}"), "spring");
            queue
                .send(&outgoing(&body, "spring", &format!("i-{number}")))
                .await
                .expect("sent");
        }
        let patience = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let id = thread_of(&house, "spring").await;
                if let Some(id) = id
                    && house.waiting(&house.now(&id).await.queue_url).await == 3
                    && queue.depth().await.expect("answered") == platform::Depth::default()
                {
                    return id;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let id = patience.await.expect("they are handed on");
        stop.cancel();
        id
    };
    let ((), id) = tokio::join!(running, story);
    let order = ids(&house.drained(&house.now(&id).await.queue_url).await);
    assert_eq!(order, ["i-0", "i-1", "i-2"]);
}

#[tokio::test]
async fn a_session_that_failed_for_good_is_woken_for_what_is_asked_after_a_while() {
    let house = House::new().await;
    let waking = house.waking(1).await;
    let fail = Transition::Fail {
        failure: Failure {
            code: "config_invalid".to_owned(),
            message: "No.".to_owned(),
            retryable: false,
        },
    };
    house.take(&waking, &fail, dawn()).await;
    for (id, at, expected) in [("i-1", 1, State::Failed), ("i-2", 60, State::Waking)] {
        let taken = vec![record(&for_session(id, &waking.session_id), "g", id)];
        assert_eq!(house.intake().take(taken, second(at)).await, NOBODY);
        assert_eq!(house.now(&waking.session_id).await.state, expected, "{id}");
    }
}
