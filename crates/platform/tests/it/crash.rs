//! Several processes on one file, and kill -9.
//!
//! The processes are this test binary itself, started with [`child`] as its only test and a role in its environment.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use platform::local::{LocalQueue, LocalStore, QueueSettings};
use platform::{Instructions, Lease, Outgoing};

const ROLE: &str = "PLATFORM_TEST_ROLE";
const STORE: &str = "PLATFORM_TEST_STORE";
const FIRST: &str = "PLATFORM_TEST_FIRST";

/// Long enough for any machine: where it is used, a message must come.
const SOON: Duration = Duration::from_secs(20);

/// The visibility timeout of the consumers: how long a message of a dead one stays away.
const VISIBILITY: Duration = Duration::from_secs(1);

#[test]
fn every_acknowledged_message_survives_the_death_of_its_sender_exactly_once_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let mut next = 0;
    for acknowledged_before_death in [1, 40, 3, 120, 77] {
        let mut sender = Process::start("send", &path, next);
        sender.report(acknowledged_before_death);
        // It begins again with the first that was not acknowledged, as a producer does. If that one was sent after
        // all, it is a duplicate.
        next = sender.kill().last().map_or(next, |last| last + 1);
    }
    let received = block_on(async { drain(&queue(&path)).await });
    let certain = next;
    assert!(
        received.len() == certain || received.len() == certain + 1,
        "{} of {certain}",
        received.len()
    );
    assert_eq!(received, (0..received.len()).collect::<Vec<_>>());
}

#[test]
fn a_message_outlives_every_consumer_that_did_not_delete_it() {
    const MESSAGES: usize = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    block_on(async {
        let queue = queue(&path);
        for number in 0..MESSAGES {
            send(&queue, number).await;
        }
    });
    let mut deleted = 0;
    for deleted_before_death in [1, 30, 2, 50] {
        let mut consumer = Process::start("consume", &path, 0);
        consumer.report(deleted_before_death);
        for number in consumer.kill() {
            // One may have been deleted in the last round by a consumer that did not live to say so.
            assert!(
                number == deleted || number == deleted + 1,
                "{number} was deleted after {deleted} others"
            );
            deleted = number + 1;
        }
    }
    let received = block_on(async { drain(&queue(&path)).await });
    let first = received[0];
    assert!(
        first == deleted || first == deleted + 1,
        "{first} is left after {deleted} were deleted"
    );
    assert_eq!(received, (first..MESSAGES).collect::<Vec<_>>());
}

#[test]
fn two_processes_send_while_a_third_receives() {
    const EACH: usize = 150;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let one = Process::start("send some", &path, 0);
    let two = Process::start("send some", &path, 1_000);
    let mut received = block_on(async {
        let queue = queue(&path);
        let mut received = Vec::new();
        while received.len() < 2 * EACH {
            received.push(take(&queue, SOON).await.expect("a message must come"));
        }
        received
    });
    one.finish();
    two.finish();
    // Each process had a group of its own.
    received.sort_by_key(|number| *number >= 1_000);
    assert_eq!(
        received,
        (0..EACH).chain(1_000..1_000 + EACH).collect::<Vec<_>>()
    );
}

#[test]
fn many_processes_may_make_the_file_at_the_same_time() {
    const PROCESSES: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let processes: Vec<Process> = (0..PROCESSES)
        .map(|number| Process::start("send one", &path, number))
        .collect();
    for process in processes {
        process.finish();
    }
    let mut received = block_on(async { drain(&queue(&path)).await });
    received.sort_unstable();
    assert_eq!(received, (0..PROCESSES).collect::<Vec<_>>());
}

#[test]
#[ignore = "what the processes of the other tests do, not a test"]
fn child() {
    let (Ok(role), Ok(path), Ok(first)) = (
        std::env::var(ROLE),
        std::env::var(STORE),
        std::env::var(FIRST),
    ) else {
        return;
    };
    let first: usize = first.parse().expect("a number");
    let queue = queue(Path::new(&path));
    // Not `println!`, which the test harness captures.
    let say =
        |number: usize| writeln!(std::io::stdout(), "done {number}").expect("somebody listens");
    block_on(async {
        match role.as_str() {
            "send" => {
                for number in first.. {
                    send(&queue, number).await;
                    say(number);
                }
            }
            "send some" => {
                for number in first..first + 150 {
                    let group = format!("group-{first}");
                    queue
                        .send(&Outgoing {
                            group,
                            ..outgoing(number)
                        })
                        .await
                        .expect("send");
                }
            }
            "send one" => {
                queue
                    .send(&Outgoing {
                        group: first.to_string(),
                        ..outgoing(first)
                    })
                    .await
                    .expect("send");
            }
            "consume" => {
                while let Some(number) = take(&queue, SOON).await {
                    say(number);
                }
            }
            other => panic!("{other} is no role"),
        }
    });
}

/// A process in a role, and what it says.
struct Process {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
    done: Vec<usize>,
}

impl Process {
    fn start(role: &str, path: &Path, first: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(STORE, path)
            .env(FIRST, first.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let says = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self {
            child,
            says,
            done: Vec::new(),
        }
    }

    /// Waits until it has done `count` things.
    fn report(&mut self, count: usize) {
        while self.done.len() < count {
            let line = self
                .says
                .next()
                .expect("it goes on until it is killed")
                .expect("readable");
            self.hear(&line);
        }
    }

    /// Kills it with SIGKILL and tells everything that it has done.
    fn kill(mut self) -> Vec<usize> {
        self.child.kill().expect("alive");
        self.child.wait().expect("dead");
        while let Some(Ok(line)) = self.says.next() {
            self.hear(&line);
        }
        self.done
    }

    /// Waits until it is done.
    fn finish(mut self) {
        while let Some(Ok(line)) = self.says.next() {
            self.hear(&line);
        }
        assert!(self.child.wait().expect("done").success());
    }

    fn hear(&mut self, line: &str) {
        // The test harness speaks as well.
        if let Some(number) = line.strip_prefix("done ") {
            self.done.push(number.parse().expect("a number"));
        }
    }
}

fn queue(path: &Path) -> LocalQueue {
    LocalStore::open(path)
        .expect("open")
        .queue("queue", QueueSettings::default())
}

fn outgoing(number: usize) -> Outgoing {
    Outgoing {
        body: number.to_string(),
        group: "one".to_owned(),
        deduplication_id: number.to_string(),
        trace_parent: None,
    }
}

async fn send(queue: &LocalQueue, number: usize) {
    queue.send(&outgoing(number)).await.expect("send");
}

/// Receives one and deletes it.
async fn take(queue: &LocalQueue, wait: Duration) -> Option<usize> {
    let delivery = queue.receive(wait, VISIBILITY).await.expect("receive")?;
    assert_eq!(
        queue.delete(&delivery.handle).await.expect("delete"),
        Lease::Held
    );
    Some(delivery.body.parse().expect("a number"))
}

/// Takes everything, waiting for what a dead process still holds.
async fn drain(queue: &LocalQueue) -> Vec<usize> {
    let mut taken = Vec::new();
    while let Some(number) = take(queue, VISIBILITY * 2).await {
        taken.push(number);
    }
    taken
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

#[test]
fn what_a_dead_consumer_held_is_taken_up_at_once_by_the_one_that_knows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("edit.sqlite");
    block_on(async {
        let queue = queue(&path);
        send(&queue, 1).await;
        let long = Duration::from_secs(3600);
        let held = queue
            .receive(Duration::ZERO, long)
            .await
            .expect("received")
            .expect("a message");
        assert_eq!(queue.release_all().await.expect("released"), 1);
        let again = queue
            .receive(Duration::ZERO, long)
            .await
            .expect("received")
            .expect("it is there again");
        assert_eq!(
            (again.message_id, again.receive_count),
            (held.message_id, 2)
        );
        assert_eq!(
            queue.delete(&held.handle).await.expect("asked"),
            Lease::Lost,
            "the dead one's handle is stale"
        );
        assert_eq!(
            queue.delete(&again.handle).await.expect("asked"),
            Lease::Held
        );
    });
}
