//! The agent is killed inside the system calls of an instruction, one after the other, and starts again each time.
//!
//! `strace` strikes: it is attached to the running agent and makes the n-th call of a kind the last one. Named crash points
//! (`crash.rs`) lie between the steps of an instruction; these lie within them, where a lock is held, a file is half written or
//! an object is there without the one that refers to it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::support::{Environment, PATIENCE, Repository, Start, fixture, git, state};

const DRAFT: &str = "edit/local";

/// Which call is the last one.
struct Blow {
    call: &'static str,
    /// What the call is about: any of these, or anything.
    about: Vec<PathBuf>,
    /// Calls are counted for each thread. One step of an instruction is done by one thread.
    nth: u32,
}

/// In the order in which an instruction comes by.
fn blows(site: &Repository, environment: &Environment) -> Vec<Blow> {
    let workspace = environment.workspace();
    let blow = |call, about: &[PathBuf], nth| Blow {
        call,
        about: about.to_vec(),
        nth,
    };
    let database = [state().join("edit.sqlite-wal")];
    let journal = [workspace.join("journal.new")];
    let staging = [workspace.join("staging")];
    let staged: Vec<_> = (0..100)
        .map(|number| staging[0].join(format!("write-{number}")))
        .collect();
    let draft = [workspace.join("draft.git/refs/heads/edit/local.lock")];
    let objects: Vec<_> = (0..=255)
        .map(|start| site.path().join(format!(".git/objects/{start:02x}")))
        .collect();
    let note = [workspace.join("draft.git/edit-lock")];
    let theirs = [site.path().join(".git/refs/heads/edit/local.lock")];
    let seen = [workspace.join("draft.git/refs/remotes/origin/edit/local.lock")];
    vec![
        // It is put into the queue.
        blow("pwrite64", &database, 1),
        blow("pwrite64", &database, 4),
        // Files are written.
        blow("openat", &journal, 1),
        blow("rename", &journal, 1),
        blow("write", &staged, 1),
        blow("renameat", &staging, 1),
        blow("renameat", &staging, 2),
        blow("unlinkat", &[workspace.join("tree/src/pages")], 1),
        // The commit: three trees, two files and itself.
        blow("link", &[], 1),
        blow("link", &[], 6),
        blow("openat", &draft, 1),
        blow("write", &draft, 1),
        blow("rename", &draft, 1),
        blow("unlink", &[workspace.join("journal.json")], 1),
        // The push.
        blow("mkdir", &objects, 1),
        blow("mkdir", &objects, 3),
        blow("write", &note, 1),
        blow("openat", &theirs, 1),
        blow("write", &theirs, 1),
        blow("rename", &theirs, 1),
        blow("unlink", &note, 1),
        blow("rename", &seen, 1),
    ]
}

#[tokio::test]
async fn an_agent_that_is_killed_inside_any_system_call_carries_the_instruction_out_once() {
    let site = a_light_site();
    let mut environment = Start::of(&site.address()).ready().await;
    // The branch is there, and its first commit was made in peace.
    Instruction { number: 0 }.lands_in(&environment).await;
    let blows = blows(&site, &environment);
    for (before, blow) in blows.iter().enumerate() {
        let instruction = Instruction { number: before + 1 };
        if blow.call == "mkdir" {
            // So that there are folders to make.
            site.git(&["repack", "-a", "-d", "--quiet"]);
        }
        let mut strace = blow.prepare(&environment).await;
        let sent = environment.send(&instruction.arguments()).await;
        assert_ne!(sent.0, 0, "{blow} did not strike: {sent:?}");
        let (status, log) = environment.ended().await;
        assert_eq!(
            status.signal(),
            Some(9),
            "{blow}: {sent:?}
{log}"
        );
        strace.wait().await.expect("it ends with the agent");
        environment = Start::of(&site.address()).ready().await;

        // Whether or not it was accepted before the blow, its producer sends it again.
        let receipt = instruction.lands_in(&environment).await;
        let id = instruction.id();
        assert_eq!(site.commits_of(DRAFT, &id), 1, "{blow}: {receipt:#}");
        assert_eq!(receipt["commit"], site.git(&["rev-parse", DRAFT]), "{blow}");
        site.is_shown_in(DRAFT, &environment.work_tree()).await;
        let page = format!("/old-{}", instruction.number);
        environment.page_with(&page, &instruction.words()).await;
    }
    assert_eq!(site.subjects(DRAFT).len(), blows.len() + 1);
    site.was_never_forced(DRAFT);
    site.git(&["fsck", "--strict"]);
    git(
        &environment.workspace().join("draft.git"),
        &["fsck", "--strict"],
    );
    let (stopped, code, _) = environment.stop().await;
    assert_eq!((code, stopped["unpushed"].as_u64()), (0, Some(0)));
}

/// The fixture's dependencies, which are in the store, under a site that starts quickly.
fn a_light_site() -> Repository {
    let site = Repository::empty();
    for name in ["package.json", "package-lock.json", ".gitignore"] {
        fs::copy(fixture().join(name), site.path().join(name)).expect("copied");
    }
    site.write("src/pages/index.astro", "<h1>A light site</h1>\n");
    for number in 0..INSTRUCTIONS_MAX {
        site.write(
            &format!("src/pages/old-{number}.astro"),
            "<h1>As it was.</h1>\n",
        );
        site.write(&format!("src/pages/gone-{number}.md"), "# To be removed\n");
    }
    site.commit_all("A light site");
    site
}

/// How many pages the site has for instructions to change.
const INSTRUCTIONS_MAX: usize = 30;

/// Changes a page, makes one, and removes one. No two instructions touch the same, so that none of them waits for the spacing
/// of writes: the blow strikes while it is being carried out.
struct Instruction {
    number: usize,
}

impl Instruction {
    fn id(&self) -> String {
        format!("number-{}", self.number)
    }

    fn words(&self) -> String {
        format!("This is number {}.", self.number)
    }

    fn arguments(&self) -> [String; 10] {
        let number = self.number;
        [
            "--id".to_owned(),
            self.id(),
            "--replace".to_owned(),
            format!("src/pages/old-{number}.astro"),
            "As it was.".to_owned(),
            self.words(),
            "--write".to_owned(),
            format!("src/pages/new-{number}.md=# {number}"),
            "--delete".to_owned(),
            format!("src/pages/gone-{number}.md"),
        ]
    }

    async fn lands_in(&self, environment: &Environment) -> serde_json::Value {
        environment.lands(&self.arguments()).await
    }
}

impl Blow {
    /// Attaches, and returns when every thread of the agent is watched.
    async fn prepare(&self, environment: &Environment) -> Child {
        // A thread that begins while strace reads the list of threads is overlooked, for ever.
        for _ in 0..20 {
            let mut strace = self.attach(environment.pid()).await;
            if untraced(environment.pid()) == 0 {
                return strace;
            }
            strace.kill().await.expect("it ends");
        }
        panic!("strace never caught all threads");
    }

    async fn attach(&self, pid: u32) -> Child {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={}", self.call)])
            .args([
                "-e",
                &format!("inject={}:signal=SIGKILL:when={}", self.call, self.nth),
            ]);
        for path in &self.about {
            command.arg("-P").arg(path);
        }
        let mut strace = command
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this story needs Debian's package `strace`: apt-get install strace");
        let mut said = BufReader::new(strace.stderr.take().expect("piped")).lines();
        let (attached, told) = oneshot::channel();
        // Read to its end: it speaks of every new thread, and would die of a closed pipe.
        tokio::spawn(async move {
            let mut attached = Some(attached);
            let mut all = Vec::new();
            while let Ok(Some(line)) = said.next_line().await {
                if line.contains("attached") {
                    attached.take().map(|attached| attached.send(()));
                }
                all.push(line);
            }
            assert!(attached.is_none(), "strace did not attach: {all:?}");
        });
        tokio::time::timeout(PATIENCE, told)
            .await
            .expect("strace answers")
            .expect("strace attaches");
        strace
    }
}

/// How many threads of a process nobody traces.
fn untraced(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok())
        .filter(|status| status.contains("TracerPid:\t0\n"))
        .count()
}

impl std::fmt::Display for Blow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} no. {}", self.call, self.nth)?;
        match self.about.first() {
            Some(path) => write!(f, " of {}", path.display()),
            None => Ok(()),
        }
    }
}
