//! The client's own Astro under supervision: what it does and does not notice, and what becomes of it when it breaks.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    Answer, PATIENCE, Repository, Start, ask, free_port, instruction, no_processes_of, processes_of,
};

mod dependencies;
mod door;
pub mod versions;

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
#[allow(
    clippy::print_stdout,
    reason = "whether the race exists on this machine is worth knowing, and no failure"
)]
async fn the_page_shows_the_last_of_two_quick_instructions_and_stays_so() {
    let repository = Repository::amelia();
    repository.write(PAGE, &version_page(0));
    // While it is rendered, the dev server hears nothing of changes; then it hears of them close together.
    repository.write(
        "src/pages/slow.astro",
        "---\nglobalThis.pause = 90 + (((globalThis.pause ?? 0) + 5) % 50);\nconst end = Date.now() + globalThis.pause;\nwhile (Date.now() < end);\n---\n<html><body>Slow</body></html>\n",
    );
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
        for round in 1..=20 {
            let (first, last) = (2 * round - 1, 2 * round);
            // In two calls, and in one while the dev server is busy with something else.
            if round % 4 != 0 {
                let both = json!([write(first), write(last)]);
                let (answer, _) = tokio::join!(
                    environment.post("/_edit/instructions", &both),
                    environment.get("/slow")
                );
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
    assert_eq!(seen.load(Ordering::Relaxed), 40);
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
        .with(&["--allow", "config", "--on-broken", "keep"])
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
    assert_eq!(environment.status().await["site"]["health"], "ok");
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
        .with(&["--allow", "config", "--on-broken", "keep"])
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
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    while watched.elapsed() < Duration::from_secs(2) {
        clock.tick().await;
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
