//! What the container's seat costs beside developer mode, as ratios in one run: `cargo bench --bench cloud`.
//!
//! The rival is the same agent on the local adapters, and a bare consumer of the same emulator; each is started by the
//! benchmark itself, and they take turns.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark has no readers but its own"
)]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark may spawn; its figures are small"
)]

#[allow(dead_code, reason = "shared with the stories")]
#[path = "../tests/it/support.rs"]
mod support;

use std::time::{Duration, Instant};

use contract::Receipt;
use platform::Outgoing;
use platform::conformance::front::{Act, Front};
use serde_json::json;
use support::figures::{cpu, ms, row, rss};
use support::seat::{Awake, Seat, Town, emulator, site};
use support::{Repository, Start};

const STARTS: usize = 3;
const EDITS_FOR_LATENCY: usize = 40;
const EDITS_QUEUED: usize = 100;
const ROUND_TRIPS: u32 = 200;
/// How long it is looked at while nobody does anything.
const AT_REST: Duration = Duration::from_secs(60);

fn main() {
    // `cargo test` runs benchmarks too, with `--test`: then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        println!("what                                                        ours      rival     result        budget");
        let (cloud, laptop) = (Town::in_the_cloud().await, Town::on_a_laptop());
        starts(&cloud).await;
        Box::pin(latency(&cloud, &laptop)).await;
        draining(&cloud, &laptop).await;
        at_rest().await;
    });
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort();
    values[values.len() / 2]
}

async fn seat(town: &Town) -> (Repository, Seat) {
    let repository = site();
    let seat = town
        .session(&repository.path().display().to_string(), json!({}))
        .await;
    (repository, seat)
}

/// From the start of the process to the first page, with a clone to be made and dependencies in the store.
async fn starts(cloud: &Town) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let (_repository, seat) = seat(cloud).await;
        let began = Instant::now();
        let mut container = seat.container().starts();
        container.says(r#""message":"ready""#).await;
        let ready = began.elapsed();
        let container = container.registered().await;
        let began = Instant::now();
        assert_eq!(container.visit("/").await.status, 200);
        ours.push(ready + began.elapsed());
        assert_eq!(container.stopped().await.0, 0);

        let repository = site();
        let began = Instant::now();
        let environment = Start::of(&repository.address()).ready().await;
        assert_eq!(environment.get("/").await.status, 200);
        theirs.push(began.elapsed());
        environment.stop().await;
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    row(
        "start to first page, store warm / developer mode",
        &ms(ours),
        &ms(theirs),
        &format!("{:.2} x", ours.as_secs_f64() / theirs.as_secs_f64()),
        "<= 1.1 x",
    );
}

fn lived(receipt: &Receipt) -> Duration {
    receipt.updated_at.since(receipt.accepted_at)
}

/// From a message being in the queue to its receipt being written.
async fn latency(cloud: &Town, laptop: &Town) {
    let (_one, over_the_wire) = seat(cloud).await;
    let (_two, local) = seat(laptop).await;
    let (far, near) = (over_the_wire.wakes().await, local.wakes().await);
    let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let name = format!("{}.fifo", emulator().fresh_name());
    let queue = (cloud.queue)(&emulator().queue(&name, None).await);
    for number in 0..EDITS_FOR_LATENCY {
        ours.push(lived(&edit(&far, number).await));
        theirs.push(lived(&edit(&near, number).await));
        // What a consumer gets that does nothing else: the message, while it waits for it.
        let waiting = queue.receive(Duration::from_secs(20), Duration::from_secs(60));
        let sending = async {
            let message = Outgoing {
                body: "x".to_owned(),
                group: "one".to_owned(),
                deduplication_id: number.to_string(),
                trace_parent: None,
            };
            queue.send(&message).await.expect("sent");
            Instant::now()
        };
        let (received, sent) = tokio::join!(waiting, sending);
        bare.push(sent.elapsed());
        let delivery = received.expect("answered").expect("there");
        assert_eq!(
            queue.delete(&delivery.handle).await.expect("answered"),
            platform::Lease::Held
        );
    }
    let (ours, theirs, bare) = (median(&mut ours), median(&mut theirs), median(&mut bare));
    let added = ours.saturating_sub(theirs);
    row(
        "instruction over the wire, p50 / on the local adapters",
        &ms(ours),
        &ms(theirs),
        &format!("+{}", ms(added)),
        &format!("<= + {} (one receive)", ms(bare)),
    );
    far.stopped().await;
    near.stopped().await;
}

async fn edit(awake: &Awake, number: usize) -> Receipt {
    let id = format!("edit-{number}");
    let path = format!("src/pages/page-{}.md", number % 4);
    let change = json!({ "op": "write", "path": path, "content": format!("# Edit {number}\n") });
    awake
        .seat
        .sends(&id, json!({ "type": "edit", "changes": [change] }))
        .await;
    awake.receipt(&id).await
}

/// What waits when an environment wakes.
async fn draining(cloud: &Town, laptop: &Town) {
    let mut each = Vec::new();
    let mut round_trip = Duration::ZERO;
    for town in [cloud, laptop] {
        let (_repository, seat) = seat(town).await;
        for number in 0..EDITS_QUEUED {
            let path = format!("src/pages/page-{}.md", number % 10);
            let change =
                json!({ "op": "write", "path": path, "content": format!("# Edit {number}\n") });
            seat.sends(
                &format!("edit-{number}"),
                json!({ "type": "edit", "changes": [change] }),
            )
            .await;
        }
        let awake = seat.wakes().await;
        let last = awake.receipt(&format!("edit-{}", EDITS_QUEUED - 1)).await;
        let first = awake.receipt("edit-0").await;
        let took = last.updated_at.since(first.updated_at);
        each.push(took / u32::try_from(EDITS_QUEUED - 1).expect("small"));
        if town.stack.is_some() {
            let began = Instant::now();
            let id = "edit-0".parse().expect("an id");
            for _ in 0..ROUND_TRIPS {
                town.receipts.get(&seat.id, &id).await.expect("answered");
            }
            round_trip = began.elapsed() / ROUND_TRIPS;
        }
        awake.stopped().await;
    }
    let added = each[0].saturating_sub(each[1]);
    row(
        "one of 100 queued instructions / on the local adapters",
        &ms(each[0]),
        &ms(each[1]),
        &format!(
            "+{:.1} trips",
            added.as_secs_f64() / round_trip.as_secs_f64()
        ),
        &format!("<= 3 round trips of {}", ms(round_trip)),
    );
}

/// What it costs to be there.
async fn at_rest() {
    let front = Front::before(Some(emulator().port()), |_| Act::Pass).await;
    let mut town = Town::in_the_cloud().await;
    for (name, value) in &mut town.variables {
        if name == "AWS_ENDPOINT_URL" {
            *value = front.url();
        }
    }
    let (_repository, seat) = seat(&town).await;
    let awake = seat.wakes().await;
    assert_eq!(awake.visit("/").await.status, 200);
    let pid = awake.pid().unsigned_abs();
    // What it does after its start is not what it does at rest.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let writes = ["UpdateItem", "PutItem", "TransactWriteItems"];
    let count = || -> usize { writes.iter().map(|name| front.count(name)).sum() };
    let (written, polled, busy) = (count(), front.count("ReceiveMessage"), cpu(pid));
    tokio::time::sleep(AT_REST).await;
    let (written, polled) = (count() - written, front.count("ReceiveMessage") - polled);
    let share = (cpu(pid) - busy) / AT_REST.as_secs_f64() * 100.0;
    row(
        "memory of the agent at rest (RSS)",
        &format!("{:.1} MB", rss(pid)),
        "-",
        "-",
        "<= 20 MB",
    );
    row(
        "the agent at rest, share of a core",
        &format!("{share:.2} %"),
        "-",
        "-",
        "<= 0.2 %",
    );
    row(
        "writes of its record in a minute at rest",
        &written.to_string(),
        "-",
        "-",
        "<= 6",
    );
    row(
        "requests to its queue in a minute at rest",
        &polled.to_string(),
        "-",
        "-",
        "3 (20 s each)",
    );
    awake.stopped().await;
}
