//! What an init costs, as ratios in one run: `cargo bench --package init`.
//!
//! The rivals are no init at all and, where it is on `PATH`, tini (as subreaper, as we are here). They take turns; the middle counts.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a benchmark has no readers but its own"
)]
#![allow(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark may spawn, and waits with deadlines of its own"
)]

#[allow(dead_code, reason = "shared with the stories of the agent")]
#[path = "../../../agent/tests/it/support/figures.rs"]
mod figures;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use figures::{ms, row};

const EDIT_INIT: &str = env!("CARGO_BIN_EXE_edit-init");
const STARTS: usize = 300;
const STOPS: usize = 50;
const ORPHANS: u32 = 10_000;
const ORPHANS_TIMES: usize = 3;
const MEMORY_BUDGET_KB: u64 = 1024;
/// How long zombies may take to be seen gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a program is run under.
type Under = &'static [&'static str];
const BARE: Under = &[];
const OURS: Under = &[EDIT_INIT, "--"];
const TINI: Under = &["tini", "-s", "--"];

fn main() {
    // `cargo test` runs benchmarks too, with `--test`: then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let tini = Command::new("tini").arg("--version").output().is_ok();
    if !tini {
        println!("tini is not on PATH: its rows are left out. `apt-get install tini` brings it.");
    }
    println!(
        "what                                                        ours      rival     result        budget"
    );
    memory(tini);
    starts(BARE, "spawn to first output / bare exec");
    if tini {
        starts(TINI, "spawn to first output / tini");
    }
    stops(BARE, "TERM at rest to the end / bare");
    if tini {
        stops(TINI, "TERM at rest to the end / tini");
        orphans();
    } else {
        let (took, zombies) = orphans_under(OURS);
        row(
            "10,000 orphans made and reaped",
            &ms(took),
            "-",
            &format!("{zombies} left"),
            "0 zombies",
        );
    }
}

fn run(under: Under, arguments: &[&str]) -> Child {
    let words = [under, arguments].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().expect("started")
}

/// The first line that it says.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let output = child.stdout.as_mut().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("read");
    line
}

fn stop(mut child: Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill").success());
    child.wait().expect("ended");
}

fn median(values: &mut [Duration]) -> Duration {
    values.sort();
    values[values.len() / 2]
}

fn ratio(ours: Duration, rival: Duration) -> String {
    format!("{:.2} x", ours.as_secs_f64() / rival.as_secs_f64())
}

/// Kilobytes that only this process has: what it wrote to. Pages of files are shared, and can be dropped.
fn anonymous_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("Linux");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

fn memory(tini: bool) {
    let at_rest = |under: Under| {
        let mut child = run(under, &["sh", "-c", "echo ready; exec sleep 1000"]);
        first_line(&mut child);
        let anonymous = anonymous_kb(child.id());
        stop(child);
        anonymous
    };
    let (once, rival) = (at_rest(OURS), tini.then(|| at_rest(TINI)));
    row(
        "anonymous memory / tini",
        &format!("{once} KB"),
        &rival.map_or("-".to_owned(), |rival| format!("{rival} KB")),
        &percent(once),
        "<= 1024 KB",
    );
    // After it has been through everything that allocates: four crashes, their lines, and a tree each.
    let script = "[ \"$EDIT_AGENT_RESTARTS\" = 4 ] || { sleep 1000 & exit 101; }; echo ready; exec sleep 1000";
    // Nobody reads what it says: the child is quiet, and so is init.
    let quiet = ["sh", "-c", "exec \"$@\" 2> /dev/null", "sh", EDIT_INIT];
    let mut child = run(
        &[],
        &[&quiet[..], &["--restart", "sh", "-c", script]].concat(),
    );
    first_line(&mut child);
    let restarted = anonymous_kb(child.id());
    stop(child);
    row(
        "anonymous memory after four restarts",
        &format!("{restarted} KB"),
        "-",
        &percent(restarted),
        "<= 1024 KB",
    );
}

fn percent(kilobytes: u64) -> String {
    format!("{} %", kilobytes * 100 / MEMORY_BUDGET_KB)
}

fn starts(rival: Under, what: &str) {
    let measure = |under: Under| {
        let began = Instant::now();
        let mut child = run(under, &["/bin/echo", "ready"]);
        assert_eq!(first_line(&mut child), "ready\n");
        let took = began.elapsed();
        child.wait().expect("ended");
        took
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        ours.push(measure(OURS));
        theirs.push(measure(rival));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let added = ours.saturating_sub(theirs);
    row(
        what,
        &ms(ours),
        &ms(theirs),
        &format!("+{}", ms(added)),
        "part of + 50 ms",
    );
}

fn stops(rival: Under, what: &str) {
    let measure = |under: Under| {
        let mut child = run(under, &["sh", "-c", "echo ready; exec sleep 1000"]);
        first_line(&mut child);
        let began = Instant::now();
        stop(child);
        began.elapsed()
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..STOPS {
        ours.push(measure(OURS));
        theirs.push(measure(rival));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    row(what, &ms(ours), &ms(theirs), &ratio(ours, theirs), "<= 1 s");
}

fn orphans() {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut left, mut left_theirs) = (0, 0);
    for _ in 0..ORPHANS_TIMES {
        let (took, zombies) = orphans_under(OURS);
        ours.push(took);
        left += zombies;
        let (took, zombies) = orphans_under(TINI);
        theirs.push(took);
        left_theirs += zombies;
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    row(
        "10,000 orphans made and reaped / tini",
        &ms(ours),
        &ms(theirs),
        &ratio(ours, theirs),
        "",
    );
    row(
        "zombies left of them / tini",
        &left.to_string(),
        &left_theirs.to_string(),
        if left == 0 { "none" } else { "some" },
        "0",
    );
}

/// How long it takes to make orphans and to be rid of them, and how many zombies are left after that.
fn orphans_under(under: Under) -> (Duration, usize) {
    let script = format!(
        "i=0; while [ $i -lt {ORPHANS} ]; do (true &); i=$((i+1)); done; echo made; exec sleep 1000"
    );
    let began = Instant::now();
    let mut child = run(under, &["sh", "-c", &script]);
    assert_eq!(first_line(&mut child), "made\n");
    let mut left = zombies(child.id());
    let deadline = Instant::now() + PATIENCE;
    while left > 0 && Instant::now() < deadline {
        left = zombies(child.id());
    }
    let took = began.elapsed();
    stop(child);
    (took, left)
}

fn zombies(parent: u32) -> usize {
    let parent = parent.to_string();
    let entries = std::fs::read_dir("/proc").expect("a /proc").flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let mut fields = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(parent.as_str())
        })
        .count()
}
