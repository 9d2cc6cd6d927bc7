//! The disk is full: at the start, and in the middle of an instruction.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use crate::support::{Environment, Repository, Start};

const DRAFT: &str = "edit/local";
/// What a tmpfs gives away.
const PAGE_BYTES: usize = 4096;

#[tokio::test]
async fn a_start_on_a_disk_that_is_too_small_says_so_and_a_larger_one_begins_anew() {
    let site = Repository::amelia();
    let folder = tempfile::tempdir().expect("a folder");
    // Too small for the clone, and for the work tree beside it.
    for size in ["200k", "700k", "1200k"] {
        let start = Start::of_on_a_disk_of(&site.address(), size, folder.path());
        let (code, words) = start.failure().await;
        assert_eq!(code, 14, "{size}: {words}");
        assert!(words.contains("No space left on device"), "{size}: {words}");
        assert!(
            words.contains(&folder.path().display().to_string()),
            "{size}: {words}"
        );
        assert!(
            words.contains("hint: Check that the disk has room"),
            "{size}: {words}"
        );
    }
    assert_eq!(site.git(&["branch", "--list", "edit/*"]), "");
}

#[tokio::test]
async fn an_instruction_on_a_full_disk_leaves_nothing_half_done_and_lands_when_there_is_room() {
    let site = Repository::amelia();
    let folder = tempfile::tempdir().expect("a folder");
    let environment = Start::of_on_a_disk_of(&site.address(), "500m", folder.path())
        .ready()
        .await;
    let disk = Disk::of(&environment, folder.path());
    let tree = environment.on_its_disk(&environment.work_tree());
    environment
        .lands(&["--write", "src/pages/first.md=# First"])
        .await;
    site.is_shown_in(DRAFT, &tree).await;
    // Room for nothing; for the journal; for one file of three; and so on, until there is enough.
    for pages in 0..6 {
        let tip = site.git(&["rev-parse", DRAFT]);
        disk.leave(pages);
        let id = format!("with-{pages}-pages");
        environment
            .send(&[
                "--no-wait",
                "--id",
                &id,
                "--write",
                &format!("src/pages/a-{pages}.md=# A {pages}"),
                "--write",
                &format!("src/pages/b-{pages}.md=# B {pages}"),
                "--replace",
                "src/pages/about.astro",
                "twenty years",
                "twenty years",
                "--replace",
                "src/pages/first.md",
                "First",
                "First!",
            ])
            .await;
        let receipt = environment
            .receipt_that(&id, |receipt| {
                receipt["error"].is_object() || receipt["status"] == "pushed"
            })
            .await;
        if receipt["status"] != "pushed" {
            assert_eq!(receipt["error"]["code"], "disk_full", "{receipt:#}");
            assert_eq!(site.git(&["rev-parse", DRAFT]), tip);
        }
        assert_eq!(environment.get("/_edit/health").await.status, 200);
        disk.free();
        let receipt = environment.final_receipt(&id).await;
        assert_eq!(receipt["status"], "pushed", "{receipt:#}");
        assert_eq!(site.commits_of(DRAFT, &id), 1);
        site.is_shown_in(DRAFT, &tree).await;
        environment
            .page_with(&format!("/b-{pages}"), &format!("B {pages}"))
            .await;
    }
    site.git(&["fsck", "--strict"]);
    let (stopped, code, _) = environment.stop().await;
    assert_eq!((code, stopped["unpushed"].as_u64()), (0, Some(0)));
}

/// The disk of an environment, and the file that fills it.
struct Disk {
    filler: PathBuf,
}

impl Disk {
    fn of(environment: &Environment, folder: &Path) -> Self {
        let filler = environment.on_its_disk(&folder.join("filler"));
        Self { filler }
    }

    /// Fills all but so many pages.
    fn leave(&self, pages: u64) {
        let mut filler = File::create(&self.filler).expect("made");
        let page = [0; PAGE_BYTES];
        let free = || {
            let folder = self.filler.parent().expect("a folder");
            statvfs(folder).expect("a disk").blocks_available()
        };
        while free() > pages {
            filler.write_all(&page).expect("there is room");
        }
    }

    fn free(&self) {
        fs::remove_file(&self.filler).expect("there");
    }
}
