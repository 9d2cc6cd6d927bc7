//! What a container costs, each in the same run as its rival: `docker/test --ignored --nocapture bench`.

#![allow(
    clippy::print_stdout,
    reason = "a measurement is for whoever started it"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::Timestamp;
use serde_json::Value;

use crate::engine::Recipe;
use crate::session::STOP_TIME_MAX;
use crate::town::Town;

/// Runs of each: enough for a median that one slow one does not move.
const RUNS: usize = 15;

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn line(what: &str, ours: &str, rival: &str, result: &str, budget: &str) {
    println!("{what:<58} {ours:>10} {rival:>10} {result:>12}    {budget}");
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[test]
#[ignore = "a measurement, not a test"]
fn bench() {
    line("what", "ours", "rival", "result", "budget");
    start();
    memory_and_stop();
}

/// From the engine's call to the moment that the daemon's first line names, against a program of the same image that does nothing but say
/// when it is.
fn start() {
    let clock = Recipe::agent().like_on_fargate().program("/bin/date");
    // Nobody is there: what it does after its first line is no part of this.
    let daemon = Recipe::agent()
        .like_on_fargate()
        .variable("CLIENT_ID", "amelia")
        .variable("SESSION_ID", "amelia_s1")
        .variable("AWS_REGION", "eu-central-1")
        .variable("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let (mut ours, mut rival) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let began = SystemTime::now();
        let said = clock.run(&["+%s%3N"]).well();
        rival.push(since(began, said.trim().parse().expect("milliseconds")));
        let began = SystemTime::now();
        let environment = daemon.start(&["run", "--ip", "10.0.0.1", "--task", "task-1"]);
        let first = environment.line_with("the agent starts", STOP_TIME_MAX);
        let first: Value = serde_json::from_str(&first).expect("a line of JSON");
        let stamp: Timestamp = serde_json::from_value(first["timestamp"].clone()).expect("a time");
        ours.push(since(began, stamp.unix_ms()));
    }
    let (ours, rival) = (median(ours), median(rival));
    let more = ours.saturating_sub(rival);
    line(
        "start to the daemon's first line / date's",
        &ms(ours),
        &ms(rival),
        &format!("+{}", ms(more)),
        "<= + 50 ms",
    );
}

/// From then to a moment in milliseconds since 1970.
fn since(began: SystemTime, then: i64) -> Duration {
    let then = UNIX_EPOCH + Duration::from_millis(then.unsigned_abs());
    then.duration_since(began).unwrap_or_default()
}

fn memory_and_stop() {
    let town = Town::new();
    let environment = town.environment().start(&town.command("task-1"));
    town.record_when("row['state'] == 'ready'");
    let status = std::fs::read_to_string(format!("/proc/{}/status", environment.pid()));
    let status = status.expect("it runs");
    let anonymous = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .map(str::trim)
        .unwrap_or_default();
    line(
        "anonymous memory of PID 1",
        anonymous,
        "-",
        "-",
        "<= 1024 kB",
    );
    let (code, ours) = environment.stop(STOP_TIME_MAX);
    assert_eq!(code, 0);

    let script = "trap 'exit 0' TERM; echo here; while :; do sleep 0.01; done";
    let rival = Recipe::agent().program("/bin/sh").start(&["-c", script]);
    rival.line_with("here", Duration::from_secs(20));
    let (_, rival) = rival.stop(STOP_TIME_MAX);
    let more = ours.saturating_sub(rival);
    line(
        "stop at rest, everything on the remote / a shell that ends",
        &ms(ours),
        &ms(rival),
        &format!("+{}", ms(more)),
        "<= 1 s",
    );
}
