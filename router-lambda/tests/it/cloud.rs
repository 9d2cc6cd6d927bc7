//! The same against the adapters of AWS, over the wire: what a laptop shows must hold where it counts.

use std::time::Duration;

use contract::Status;
use contract::session::{KEPT, State};
use edit_router::sweep::Report;
use edit_router::wake::Woken;
use futures_util::future::join_all;
use platform::Queues as _;
use platform::conformance::records::{dawn, receipt};

use super::house::{
    House, after, for_session, for_thread, ids, outgoing, record, second, thread_of,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_visitors_of_a_sleeping_session_start_one_task() {
    let house = House::in_the_cloud().await;
    let asleep = house.sleeper(1).await;
    let routers: Vec<_> = (0..5).map(|_| house.waker()).collect();
    let visitors = (0..50).map(|visitor| {
        let router = &routers[visitor % routers.len()];
        router.wake(&house.amelia, &asleep.session_id, asleep.generation, dawn())
    });
    let woken = join_all(visitors).await;
    let count = |word| woken.iter().filter(|woken| woken.as_str() == word).count();
    let became = woken.iter().map(Woken::as_str).collect::<Vec<_>>();
    assert_eq!((count("begun"), count("going")), (1, 49), "{became:?}");
    assert_eq!((house.fleet.orders(), house.fleet.tasks()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_to_the_queue_of_their_session_in_order_and_once() {
    let house = House::in_the_cloud().await;
    let intake = house.intake();
    let batch = || {
        vec![
            record(&for_thread("i-1", "spring"), "spring", "m-1"),
            record("what is this", "spring", "m-2"),
            record(&for_thread("i-2", "spring"), "spring", "m-3"),
        ]
    };
    // SQS brings a batch again whose answer was lost; and another router may have it at the same time.
    let (one, two) = (house.intake(), house.intake());
    let (first, other) = tokio::join!(one.take(batch(), dawn()), two.take(batch(), dawn()));
    assert_eq!([first, other].concat(), Vec::<String>::new());

    let id = thread_of(&house, "spring").await.expect("it has a session");
    let made = house.now(&id).await;
    assert_eq!((made.state, house.fleet.tasks()), (State::Waking, 1));
    assert_eq!(ids(&house.drained(&made.queue_url).await), ["i-1", "i-2"]);
    assert_eq!(house.answer(&id, "i-2").await, "accepted");
    let dead = house.dead_letters().await;
    assert_eq!(dead.len(), 1, "{dead:?}");

    house.queues.remove(&made.queue_url).await.expect("removed");
    let later = vec![record(&for_session("i-3", &id), "spring", "m-4")];
    assert_eq!(intake.take(later, second(1)).await, Vec::<String>::new());
    assert_eq!(
        ids(&house.drained(&made.queue_url).await),
        ["i-3"],
        "its queue was made anew"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sweep_wakes_ends_and_answers() {
    let house = House::in_the_cloud().await;
    // Another deployment of the same account, which has a client of the same name.
    let neighbour = House::in_the_cloud().await;
    let theirs = neighbour.sleeper(5).await;
    neighbour
        .put(&theirs, &for_session("i-9", &theirs.session_id), "i-9")
        .await;
    let (awaited, expired) = (house.sleeper(1).await, house.sleeper(2).await);
    house
        .put(&awaited, &for_session("i-1", &awaited.session_id), "i-1")
        .await;
    let report = house.sweep().once(dawn()).await;
    assert_eq!(
        report,
        Report {
            woken: 1,
            ..Report::default()
        }
    );

    let orphan = house.fresh_id();
    let address = house.queues.create(&orphan).await.expect("created");
    let left = outgoing(&for_session("i-3", &orphan), orphan.as_str(), "i-3");
    house.queues.open(&address).send(&left).await.expect("sent");
    house
        .put(&expired, &for_session("i-2", &expired.session_id), "i-2")
        .await;
    for name in ["i-4", "i-5"] {
        let body = for_session(name, &awaited.session_id);
        let dead = outgoing(&body, awaited.session_id.as_str(), name);
        house.dead.send(&dead).await.expect("sent");
    }
    let answered = contract::Receipt {
        session_id: awaited.session_id.clone(),
        ..receipt(&house.amelia.client_id, "i-4", Status::Failed)
    };
    house.receipts.put(&answered).await.expect("put");

    // The first one was woken at dawn and never became ready: it is failed now, and ended a minute later.
    let end = after(KEPT + Duration::from_secs(1));
    let report = house.sweep().once(end).await;
    let expected = Report {
        stopped: 1,
        failed: 1,
        ended: 1,
        queues_removed: 1,
        answered: 2,
        ..Report::default()
    };
    assert_eq!(report, expected);
    assert_eq!(
        house.answer(&expired.session_id, "i-2").await,
        "failed session_expired"
    );
    assert_eq!(
        house.answer(&awaited.session_id, "i-5").await,
        "failed internal"
    );
    assert_eq!(thread_of(&house, "thread-2").await, None);

    let report = house.sweep().once(end.plus(Duration::from_secs(60))).await;
    let expected = Report {
        ended: 1,
        queues_removed: 2,
        answered: 2,
        ..Report::default()
    };
    assert_eq!(report, expected);
    let answer = house.answer(&awaited.session_id, "i-1").await;
    assert_eq!(answer, "failed session_expired");
    assert_eq!(house.answer(&orphan, "i-3").await, "failed session_expired");
    assert_eq!(
        neighbour.waiting(&theirs.queue_url).await,
        1,
        "that is not ours to remove"
    );
    let mut kept = ids(&house.dead_letters().await);
    kept.sort();
    assert_eq!(kept, ["i-4", "i-5"]);
}
