//! What goes wrong in a container, and what is left of it: nothing is lost, and somebody can tell what happened.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::engine::{Process, Running, until};
use crate::session::STOP_TIME_MAX;
use crate::town::Town;

/// A page that does what the file beside it says, each time somebody looks at it.
const PAGE: &str = r#"---
import fs from "node:fs";
import { spawn } from "node:child_process";
const deed = fs.existsSync("/tmp/deed") ? fs.readFileSync("/tmp/deed", "utf8").trim() : "";
let said = "none";
if (deed === "eat") {
  const kept = [];
  for (;;) kept.push(Buffer.alloc(16 << 20, 1));
}
if (deed === "fork") {
  const all = Array.from({ length: 2000 }, () => spawn("/bin/sleep", ["1000"], { detached: true, stdio: "ignore" }));
  const started = await Promise.all(all.map((one) => new Promise((done) => {
    one.on("spawn", () => done(1));
    one.on("error", () => done(0));
  })));
  said = `forked ${started.reduce((sum, one) => sum + one, 0)}`;
}
if (deed === "siege") {
  const siege = "for (;;) { try { process.kill(-1, 'SIGKILL') } catch {} }";
  spawn(process.execPath, ["-e", siege], { detached: true, stdio: "ignore" });
  await new Promise(() => {});
}
if (deed === "fill") {
  const file = fs.openSync(`${process.env.HOME}/full`, "a");
  try {
    for (;;) fs.writeSync(file, Buffer.alloc(1 << 20, 1));
  } catch (error) {
    said = `filled ${error.code}`;
  }
  fs.closeSync(file);
}
---
<h1>deed: {said}</h1>
"#;

const LOG_TIME_MAX: Duration = Duration::from_secs(180);

fn daemon(environment: &Running) -> Process {
    let found = until(LOG_TIME_MAX, || {
        let all = environment.processes();
        all.iter()
            .find(|process| process.name == "edit-agent" && process.pid != 1)
            .cloned()
            .ok_or(all)
    });
    found.unwrap_or_else(|all| panic!("there is no daemon: {all:#?}"))
}

fn end(process: &Process, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.outside).expect("a process"));
    kill(pid, signal).expect("it runs");
}

/// What the page does from now on.
fn deed(environment: &Running, deed: &str) {
    let order = format!("echo {deed} >/tmp/deed");
    environment.exec(&["/bin/sh", "-c", &order]).well();
}

/// The page does nothing any more, and is seen.
fn comes_back(town: &Town, environment: &Running) {
    deed(environment, "none");
    let shown = until(LOG_TIME_MAX, || {
        let (status, page) = town.page("/deed/");
        if status == 200 && page.contains("deed: none") {
            Ok(())
        } else {
            Err(page)
        }
    });
    shown.unwrap_or_else(|page| panic!("the site does not come back: {page}"));
}

#[test]
fn whatever_breaks_in_a_container_the_environment_goes_on_and_says_so() {
    let town = Town::with(&[("src/pages/deed.astro", PAGE)]);
    let environment = town
        .environment()
        .memory_mib(900)
        .processes(512)
        // With another first process than ours.
        .with_init()
        .start(&town.command("task-1"));
    // It is killed while it starts, and starts again from the first phase.
    environment.line_with("\"phase\":\"install\"", LOG_TIME_MAX);
    end(&daemon(&environment), Signal::SIGKILL);
    environment.line_with("is started anew (restart 1)", LOG_TIME_MAX);
    let record = town.record_when("row['state'] == 'ready'");
    assert_eq!(record["generation"], 1.0, "{record:#}");
    let first = daemon(&environment);
    assert!(environment.is_healthy());

    // The site eats all memory: it goes, and it comes back; the daemon does not notice.
    deed(&environment, "eat");
    town.page("/deed/");
    environment.line_with("memory of the environment ran out", LOG_TIME_MAX);
    comes_back(&town, &environment);
    assert_eq!(daemon(&environment).pid, first.pid);

    // It kills whatever it may, itself first, in a process that has left it: that goes too.
    deed(&environment, "siege");
    town.page("/deed/");
    comes_back(&town, &environment);
    assert_eq!(daemon(&environment).pid, first.pid);

    // The site makes as many processes as it can: it gets no more than its share, and instructions land.
    deed(&environment, "fork");
    let (_, page) = town.page("/deed/");
    assert!(page.contains("deed: forked"), "{page}");
    assert!(!page.contains("forked 2000"), "{page}");
    let of_the_site = environment
        .processes()
        .iter()
        .filter(|process| process.uid == 10001)
        .count();
    assert!((100..=256).contains(&of_the_site), "{of_the_site}");
    deed(&environment, "none");
    town.writes("crowded", "src/pages/crowded.md", "# Crowded\n");
    assert_eq!(town.receipt("crowded")["status"], "pushed");
    assert!(environment.is_healthy());

    // The daemon is killed while something waits: init ends what it left and starts it anew, in the same generation.
    end(&first, Signal::SIGSTOP);
    assert!(!environment.is_healthy(), "nobody comes round");
    town.writes("waited", "src/pages/waited.md", "# Waited\n");
    end(&first, Signal::SIGKILL);
    environment.line_with("(restart 2;", LOG_TIME_MAX);
    assert_eq!(town.receipt("waited")["status"], "pushed");
    let record = town.record_when("row['state'] == 'ready'");
    assert_eq!(record["generation"], 1.0, "{record:#}");
    let second = daemon(&environment);
    assert_ne!(second.pid, first.pid);
    let processes = environment.processes();
    assert!(
        !processes.iter().any(|process| process.name == "sleep"),
        "what was left still runs: {processes:#?}"
    );

    // Memory runs out beside it, and the kernel takes the daemon.
    let score = format!("/proc/{}/oom_score_adj", second.outside);
    std::fs::write(score, "1000").expect("ours to set");
    let eater = "const kept = []; for (;;) kept.push(Buffer.alloc(16 << 20, 1));";
    environment.exec(&["/usr/local/bin/node", "-e", eater]);
    let third = until(LOG_TIME_MAX, || {
        let now = daemon(&environment);
        if now.pid == second.pid {
            Err(now)
        } else {
            Ok(now)
        }
    });
    third.unwrap_or_else(|now| panic!("it was not ended: {now:?}"));
    town.writes("after", "src/pages/after.md", "# After\n");
    assert_eq!(town.receipt("after")["status"], "pushed");

    is_stopped_just_after_a_crash(&town, &environment);
    assert_eq!(town.landed(), ["after", "waited", "crowded"]);
}

/// What somebody changed by hand is saved all the same.
fn is_stopped_just_after_a_crash(town: &Town, environment: &Running) {
    let by_hand = "tree=$(echo /workspace/environments/*/workspace/tree) && setpriv --reuid 10001 --regid 10001 --groups 10000 sh -c \"echo By hand >$tree/notes.md\"";
    environment.exec(&["/bin/sh", "-c", by_hand]).well();
    end(&daemon(environment), Signal::SIGKILL);
    environment.line_with("(restart 4;", LOG_TIME_MAX);
    let (code, took) = environment.stop(STOP_TIME_MAX);
    let said = environment.all_lines().join("\n");
    assert_eq!(code, 0, "after {took:?}:\n{said}");
    let record = town.record();
    assert_eq!(record["state"], "dormant", "{record:#}");
    assert_eq!(
        record["parked"][0]["files"],
        json!(["notes.md"]),
        "{record:#}\n{said}"
    );
    assert!(said.contains("\"last\":true"), "{said}");
}

#[test]
fn a_full_disk_is_said_and_what_was_asked_for_lands_when_there_is_room_again() {
    let town = Town::with(&[("src/pages/deed.astro", PAGE)]);
    let environment = town
        .environment()
        .room("/workspace", 1024)
        .start(&town.command("task-1"));
    town.record_when("row['state'] == 'ready'");
    deed(&environment, "fill");
    let (_, page) = town.page("/deed/");
    assert!(page.contains("deed: filled ENOSPC"), "{page}");
    deed(&environment, "none");
    town.writes("full", "src/pages/full.md", "# Full\n");
    environment.line_with("No space left on device", LOG_TIME_MAX);
    // Whoever looks after it makes room: the file is the site's, in a folder that is closed to root.
    let room = "cd /workspace/environments/*/workspace/homes && setpriv --reuid 10001 --regid 10001 --groups 10000 rm site/full";
    environment.exec(&["/bin/sh", "-c", room]).well();
    assert_eq!(town.receipt("full")["status"], "pushed");
    let (code, took) = environment.stop(STOP_TIME_MAX);
    assert_eq!(code, 0, "after {took:?}");
}

/// Something is under way when the container is told to stop: it lands once, now or in the next container.
#[test]
fn a_stop_in_the_middle_of_an_edit_loses_nothing_and_does_nothing_twice() {
    let slow = r#"---
import fs from "node:fs";
fs.writeFileSync("/tmp/looked", "");
while (fs.existsSync("/tmp/deed")) await new Promise((done) => setTimeout(done, 50));
---
<h1>slow</h1>
"#;
    let town = Town::new();
    let environment = town.environment().start(&town.command("task-1"));
    town.record_when("row['state'] == 'ready'");
    deed(&environment, "slow");
    town.sends(
        "slow",
        &json!([{ "op": "write", "path": "src/pages/slow.astro", "content": slow }]),
    );
    // It is looked at, which takes as long as it is to take.
    let looked = until(LOG_TIME_MAX, || {
        let found = environment.exec(&["/bin/ls", "/tmp/looked"]);
        if found.code == 0 {
            Ok(())
        } else {
            Err(found.complained)
        }
    });
    looked.unwrap_or_else(|said| panic!("nobody looks at it: {said}"));
    environment.kill("TERM");
    environment.line_with("the environment ends", LOG_TIME_MAX);
    environment.exec(&["/bin/rm", "/tmp/deed"]).well();
    let code = environment.exit_code(STOP_TIME_MAX);
    assert_eq!(code, 0, "{}", environment.lines().join("\n"));
    assert_eq!(town.record()["state"], "dormant");

    let environment = town.environment().start(&town.command("task-2"));
    town.record_when("row['state'] == 'ready'");
    assert_eq!(town.receipt("slow")["status"], "pushed");
    let (code, _) = environment.stop(STOP_TIME_MAX);
    assert_eq!(code, 0);
    let history = town
        .git(&["log", "--format=%s", "main..edit/compose"])
        .well();
    assert_eq!(history.lines().count(), 1, "{history}");
}
