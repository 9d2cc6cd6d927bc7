//! What a container costs, each in the same run as its rival: `docker/test --ignored --nocapture bench`.

#![allow(
    clippy::print_stdout,
    reason = "a measurement is for whoever started it"
)]

use std::time::{Duration, Instant};

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

/// From the engine's call to the daemon's first line and its end, against a program of the same image that does nothing.
fn start() {
    let nothing = Recipe::agent().like_on_fargate().program("/bin/true");
    let daemon = Recipe::agent().like_on_fargate();
    let (mut ours, mut rival) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let began = Instant::now();
        nothing.run(&[]).well();
        rival.push(began.elapsed());
        let began = Instant::now();
        assert_eq!(daemon.run(&["run"]).code, 2);
        ours.push(began.elapsed());
    }
    let (ours, rival) = (median(ours), median(rival));
    let more = ours.saturating_sub(rival);
    line(
        "start to the daemon's first line, and its end / true",
        &ms(ours),
        &ms(rival),
        &format!("+{}", ms(more)),
        "<= + 50 ms",
    );
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
