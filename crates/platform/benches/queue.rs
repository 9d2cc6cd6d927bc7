//! What the local queue costs: `cargo bench -p platform`.
//!
//! - a cycle of send, receive and delete, one after the other, on an empty queue and on one of a thousand messages;
//! - from a send to the receiver that waits for it, within a store and from one store to another;
//! - a receiver that waits for nothing, in parts of a core.

use std::io::{Write as _, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use platform::local::{LocalStore, QueueSettings};
use platform::{Instructions, Lease, Outgoing};

const CYCLES: usize = 5_000;
const REST: Duration = Duration::from_secs(20);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store");
    runtime.block_on(async {
        cycles(&path, "empty", 0).await?;
        cycles(&path, "full", 1_000).await?;
        across(&path).await?;
        rest(&path).await
    })
}

async fn cycles(path: &Path, name: &str, waiting: usize) -> anyhow::Result<()> {
    let queue = LocalStore::open(path)?.queue(name, QueueSettings::default());
    for number in 0..waiting {
        queue.send(&message(number)).await?;
    }
    let mut times = Vec::with_capacity(CYCLES);
    for number in 0..CYCLES {
        let begun = Instant::now();
        queue.send(&message(waiting + number)).await?;
        let delivery = queue
            .receive(Duration::ZERO, Duration::from_mins(1))
            .await?;
        let delivery = delivery.ok_or_else(|| anyhow::anyhow!("the queue is empty"))?;
        anyhow::ensure!(
            queue.delete(&delivery.handle).await? == Lease::Held,
            "the delivery was lost"
        );
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |part: usize| times[CYCLES * part / 1_000];
    let mean = times.iter().sum::<Duration>() / u32::try_from(CYCLES)?;
    writeln!(
        stdout(),
        "send + receive + delete, {waiting} waiting: mean {mean:.0?}, p50 {:.0?}, p99 {:.0?}, p99.9 {:.0?}",
        at(500),
        at(990),
        at(999)
    )?;
    Ok(())
}

fn message(number: usize) -> Outgoing {
    let id = number.to_string();
    Outgoing {
        body: "x".repeat(1_000),
        group: "session".to_owned(),
        deduplication_id: id,
        trace_parent: None,
    }
}

async fn across(path: &Path) -> anyhow::Result<()> {
    let store = LocalStore::open(path)?;
    for (name, other) in [
        ("the same store", store.clone()),
        ("another store", LocalStore::open(path)?),
    ] {
        let here = store.queue(name, QueueSettings::default());
        let there = other.queue(name, QueueSettings::default());
        let mut times = Vec::new();
        for number in 0..100 {
            let arrival = async {
                there
                    .receive(REST, Duration::from_mins(1))
                    .await
                    .map(|delivery| (delivery, Instant::now()))
            };
            let departure = async {
                // So that the receiver waits by then.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let begun = Instant::now();
                here.send(&message(number)).await.map(|_| begun)
            };
            let (received, begun) = tokio::try_join!(arrival, departure)?;
            if let (Some(delivery), at) = received {
                times.push(at - begun);
                anyhow::ensure!(
                    there.delete(&delivery.handle).await? == Lease::Held,
                    "the delivery was lost"
                );
            }
        }
        times.sort_unstable();
        writeln!(
            stdout(),
            "a waiting receiver of {name}: p50 {:.0?}, p99 {:.0?}",
            times[50],
            times[99]
        )?;
    }
    Ok(())
}

async fn rest(path: &Path) -> anyhow::Result<()> {
    let queue = LocalStore::open(path)?.queue("rest", QueueSettings::default());
    let before = processor_time()?;
    queue.receive(REST, Duration::from_mins(1)).await?;
    let used = processor_time()?.saturating_sub(before);
    let percent = 100.0 * used.as_secs_f64() / REST.as_secs_f64();
    writeln!(stdout(), "a waiting receiver: {percent:.3} % of a core")?;
    Ok(())
}

/// What all threads have used, including those that have ended.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
