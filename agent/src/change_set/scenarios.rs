//! Whole plans: from changes and a tree to what every file becomes, or why not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use contract::client_config::Policy;
use contract::instruction::Content;
use contract::{BlobId, Change};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::map_tree::{MapTree, blob_id};
use super::{ChangeSet, Entry, PlanError, Rejection, plan};

const PAGE: &str = "<h1>Rare stamps</h1>\n<hr>\n<p>Welcome.</p>\n";
const POST: &str = "---\ntitle: Penny Black\nyear: 1840\n---\n\nThe first stamp.\n";

fn site() -> MapTree {
    MapTree::of(&[
        ("src/pages/index.astro", PAGE.as_bytes()),
        ("src/content/penny-black.md", POST.as_bytes()),
        ("public/a.jpg", b"\xff\xd8\0photo"),
        (
            "public/large.psd",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        ),
        ("package.json", b"{}\n"),
    ])
    .with("bin/build", b"#!/bin/sh\n", true)
    .with_entry("src/link", Entry::Symlink)
    .with_entry("vendor/theme", Entry::Submodule)
}

fn path(text: &str) -> contract::SitePath {
    text.parse().expect("a valid path")
}

fn write(at: &str, content: &str) -> Change {
    Change::Write {
        path: path(at),
        content: Content::Inline(content.into()),
        base: None,
    }
}

fn replace(at: &str, find: &str, replace: &str) -> Change {
    Change::Replace {
        path: path(at),
        find: find.into(),
        replace: replace.into(),
        expect: 1,
        base: None,
    }
}

fn delete(at: &str) -> Change {
    Change::Delete {
        path: path(at),
        base: None,
    }
}

fn rename(from: &str, to: &str) -> Change {
    Change::Move {
        from: path(from),
        to: path(to),
        base: None,
    }
}

fn patch(diff: &str) -> Change {
    Change::Patch { diff: diff.into() }
}

fn frontmatter(at: &str, set: &Value) -> Change {
    let set = set.as_object().cloned().unwrap_or_default();
    Change::Frontmatter {
        path: path(at),
        set,
        unset: Vec::new(),
        base: None,
    }
}

/// The same change by an author who saw this version.
fn seen(mut change: Change, content: &str) -> Change {
    let version: BlobId = blob_id(content.as_bytes());
    match &mut change {
        Change::Write { base, .. }
        | Change::Replace { base, .. }
        | Change::Delete { base, .. }
        | Change::Move { base, .. }
        | Change::Frontmatter { base, .. } => *base = Some(version),
        Change::Patch { .. } => {}
    }
    change
}

fn planned(tree: &MapTree, changes: &[Change]) -> Result<ChangeSet, PlanError> {
    plan(changes, tree, &Policy::default(), &BTreeMap::new())
}

/// The plan as lines: its summary, then each file.
fn outcome(tree: &MapTree, changes: &[Change]) -> String {
    let set = match planned(tree, changes) {
        Ok(set) => set,
        Err(PlanError::Rejected(rejection)) => return refusal_text(&rejection),
        Err(error) => return error.to_string(),
    };
    let mut text = format!("{}\n", set.summary());
    for (path, change) in &set.files {
        let after = change.after.as_ref().map_or("gone".to_owned(), |version| {
            let mode = if version.executable { " +x" } else { "" };
            format!("{:?}{mode}", String::from_utf8_lossy(&version.content))
        });
        writeln!(text, "{path}: {after}").expect("writing to a String never fails");
    }
    text
}

fn refusal_text(rejection: &Rejection) -> String {
    let detail = |problem: &contract::Problem| format!("\n{}: {}", problem.path, problem.message);
    let details = rejection
        .details
        .iter()
        .map(detail)
        .collect::<Vec<_>>()
        .concat();
    format!(
        "{}: {}{details}",
        rejection.code.as_str(),
        rejection.message
    )
}

#[test]
fn changes_apply_in_order_and_only_their_net_effect_counts() {
    let changes = [
        write("src/pages/new.astro", "<p>draft</p>\n"),
        replace("src/pages/new.astro", "draft", "final"),
        rename("src/pages/new.astro", "src/pages/about.astro"),
        rename("bin/build", "bin/make"),
        write("bin/make", "#!/bin/bash\n"),
        frontmatter("src/content/penny-black.md", &json!({"year": 1841})),
        patch(
            "--- a/src/content/penny-black.md\n+++ b/src/content/penny-black.md\n@@ -3 +3 @@\n-year: 1841\n+year: 1842\n",
        ),
        delete("public/a.jpg"),
        write("tmp.txt", "x"),
        delete("tmp.txt"),
        replace("src/pages/index.astro", "Welcome", "Hello"),
        replace("src/pages/index.astro", "Hello", "Welcome"),
    ];
    insta::assert_snapshot!(outcome(&site(), &changes), @r##"
    Edit 5 files
    bin/build: gone
    bin/make: "#!/bin/bash\n" +x
    public/a.jpg: gone
    src/content/penny-black.md: "---\ntitle: Penny Black\nyear: 1842\n---\n\nThe first stamp.\n"
    src/pages/about.astro: "<p>final</p>\n"
    "##);
}

#[test]
fn the_change_set_has_both_versions_of_a_file() {
    let set =
        planned(&site(), &[replace("src/pages/index.astro", "Rare", "Old")]).expect("planned");
    let change = set.files.values().next().expect("one file");
    assert_eq!(
        change
            .before
            .as_ref()
            .map(|version| version.content.as_slice()),
        Some(PAGE.as_bytes())
    );
    let after = PAGE.replace("Rare", "Old");
    assert_eq!(
        change
            .after
            .as_ref()
            .map(|version| version.content.as_slice()),
        Some(after.as_bytes())
    );
    assert_eq!(
        set.paths()
            .map(contract::SitePath::as_str)
            .collect::<Vec<_>>(),
        ["src/pages/index.astro"]
    );
}

#[test]
fn one_problem_refuses_everything_and_all_problems_are_listed() {
    let changes = [
        replace("src/pages/index.astro", "Rare stampz", "x"),
        replace(
            "src/pages/index.astro",
            "also unknown, but nobody can tell what the file would be",
            "x",
        ),
        write("src/pages/fine.astro", "x"),
        delete("src/pages/none.astro"),
        write("package.json", "{}"),
        write("src/link", "x"),
        write("src/link/x", "x"),
        write("vendor/theme", "x"),
        write("vendor/theme/x", "x"),
        write("src/pages", "x"),
        write("public/a.jpg/x", "x"),
        write("public/large.psd", "x"),
        rename("public/large.psd", "public/small.psd"),
        rename("src/pages/index.astro", ".env"),
        rename("src/content/penny-black.md", "public/a.jpg"),
        frontmatter("src/content/none.md", &json!({"a": 1})),
    ];
    insta::assert_snapshot!(outcome(&site(), &changes), @r#"
    find_not_found: src/pages/index.astro: "Rare stampz" does not occur.
    $.action.changes[0].find: src/pages/index.astro: "Rare stampz" does not occur.
    $.action.changes[3].path: src/pages/none.astro: does not exist.
    $.action.changes[4].path: package.json: package manifests, lock files and package manager settings cannot be changed here unless the client's policy has allowDependencies.
    $.action.changes[5].path: src/link: is a symbolic link.
    $.action.changes[6].path: src/link/x: src/link is a symbolic link, not a folder.
    $.action.changes[7].path: vendor/theme: is a submodule.
    $.action.changes[8].path: vendor/theme/x: belongs to the submodule vendor/theme.
    $.action.changes[9].path: src/pages: is a folder.
    $.action.changes[10].path: public/a.jpg/x: public/a.jpg is a file, not a folder.
    $.action.changes[11].path: public/large.psd: is kept by git-lfs.
    $.action.changes[13].to: .env: configuration files cannot be changed here unless the client's policy has allowConfig.
    $.action.changes[14].to: public/a.jpg: exists already.
    $.action.changes[15].path: src/content/none.md: does not exist.
    "#);
}

#[test]
fn after_a_patch_that_cannot_be_read_nothing_else_is_judged() {
    let changes = [
        patch("nonsense"),
        replace(
            "src/pages/index.astro",
            "what the patch may have brought",
            "x",
        ),
        delete(".env"),
    ];
    insta::assert_snapshot!(outcome(&site(), &changes), @r"
    patch_failed: line 1 of the patch: no file is named: neither `diff --git` nor `---` and `+++` lines were found.
    $.action.changes[0].diff: line 1 of the patch: no file is named: neither `diff --git` nor `---` and `+++` lines were found.
    $.action.changes[2].path: .env: configuration files cannot be changed here unless the client's policy has allowConfig.
    ");
}

#[test]
fn what_changes_nothing_is_refused() {
    insta::assert_snapshot!(outcome(&site(), &[write("src/pages/index.astro", PAGE)]), @r"
    empty_change: src/pages/index.astro: is already as asked.
    $.action.changes: src/pages/index.astro: is already as asked.
    ");
    let back = [rename("bin/build", "bin/x"), rename("bin/x", "bin/build")];
    insta::assert_snapshot!(outcome(&site(), &back), @r"
    empty_change: All files are already as asked.
    $.action.changes: All files are already as asked.
    ");
    let year = frontmatter("src/content/penny-black.md", &json!({"year": 1840}));
    assert!(outcome(&site(), &[year]).starts_with("empty_change"));
}

#[test]
fn a_file_can_change_its_case_or_become_a_folder() {
    let changes = [
        rename("public/a.jpg", "public/A.jpg"),
        rename("bin/build", "bin/build/sh"),
    ];
    insta::assert_snapshot!(outcome(&site(), &changes), @r##"
    Edit 4 files
    bin/build: gone
    bin/build/sh: "#!/bin/sh\n" +x
    public/A.jpg: "��\0photo"
    public/a.jpg: gone
    "##);
    insta::assert_snapshot!(outcome(&site(), &[rename("bin/build", "bin/build")]), @r"
    file_exists: bin/build: is where the file already is.
    $.action.changes[0].to: bin/build: is where the file already is.
    ");
}

#[test]
fn a_large_file_of_the_site_can_be_moved_but_not_written() {
    let tree = MapTree::of(&[("a.bin", &[0; 2000])]);
    let policy = Policy {
        max_file_bytes: Some(1000),
        ..Policy::default()
    };
    let planned = |changes: &[Change]| plan(changes, &tree, &policy, &BTreeMap::new());
    assert!(planned(&[rename("a.bin", "b.bin")]).is_ok());
    let Err(PlanError::Rejected(rejection)) = planned(&[write("c.bin", &"x".repeat(1001))]) else {
        panic!("refused")
    };
    insta::assert_snapshot!(refusal_text(&rejection), @r"
    limit_exceeded: c.bin: would have 1001 bytes; one file may have at most 1000 (maxFileBytes).
    $.action.changes[0].path: c.bin: would have 1001 bytes; one file may have at most 1000 (maxFileBytes).
    ");
}

#[test]
fn limits_name_themselves_and_the_actual_number() {
    let policy = Policy {
        max_files: Some(2),
        ..Policy::default()
    };
    let changes = [write("a", "x"), rename("b", "c"), delete("a")];
    let Err(PlanError::Rejected(rejection)) = plan(&changes, &site(), &policy, &BTreeMap::new())
    else {
        panic!("refused")
    };
    insta::assert_snapshot!(rejection.message, @"3 files are named; at most 2 are allowed (maxFiles).");

    let large = Content::Url {
        url: "https://x/large".into(),
        sha256: "0".repeat(64),
    };
    let fetched = BTreeMap::from([("https://x/large".to_owned(), vec![0; 20 << 20])]);
    let write = |name: &str| Change::Write {
        path: path(name),
        content: large.clone(),
        base: None,
    };
    let changes = [write("a"), write("b"), delete("a"), write("c"), write("d")];
    let Err(PlanError::Rejected(rejection)) = plan(&changes, &site(), &Policy::default(), &fetched)
    else {
        panic!("refused")
    };
    insta::assert_snapshot!(refusal_text(&rejection), @r"
    limit_exceeded: d: with it the changed files would have 62914560 bytes together; at most 52428800 are allowed.
    $.action.changes[4].path: d: with it the changed files would have 62914560 bytes together; at most 52428800 are allowed.
    ");
}

#[test]
fn copies_cannot_multiply_a_large_file() {
    let tree = MapTree::of(&[("a", &vec![0; 15 << 20])]);
    let copy = |n| format!("diff --git a/a b/c{n}\ncopy from a\ncopy to c{n}\n");
    let refused = outcome(
        &tree,
        &[patch(&(0..9).map(copy).collect::<Vec<_>>().concat())],
    );
    assert!(
        refused
            .starts_with("limit_exceeded: c3: with it the changed files would have 62914560 bytes"),
        "{refused}"
    );
}

#[test]
fn a_copy_cannot_bring_a_guarded_file_into_the_open() {
    let tree = MapTree::of(&[(".env", b"SECRET=1\n")]);
    let copy =
        patch("diff --git a/.env b/public/env.txt\ncopy from .env\ncopy to public/env.txt\n");
    assert!(outcome(&tree, &[copy]).starts_with("policy_denied: .env"));
}

#[test]
fn bytes_behind_an_address_must_have_been_fetched() {
    let content = Content::Url {
        url: "https://x/y.jpg".into(),
        sha256: "0".repeat(64),
    };
    let change = Change::Write {
        path: path("public/b.jpg"),
        content,
        base: None,
    };
    insta::assert_snapshot!(outcome(&site(), std::slice::from_ref(&change)), @r"
    content_unavailable: public/b.jpg: the bytes behind its `contentUrl` are not there.
    $.action.changes[0].contentUrl: public/b.jpg: the bytes behind its `contentUrl` are not there.
    ");
    let fetched = BTreeMap::from([("https://x/y.jpg".to_owned(), b"photo".to_vec())]);
    assert!(plan(&[change], &site(), &Policy::default(), &fetched).is_ok());
}

/// The site after somebody else changed it.
fn moved_on() -> MapTree {
    let page = PAGE.replace("Welcome.", "Welcome to our shop.");
    let post = POST.replace("Penny Black", "The Penny Black");
    site()
        .with("src/pages/index.astro", page.as_bytes(), false)
        .with("src/content/penny-black.md", post.as_bytes(), false)
        .with("public/a.jpg", b"\xff\xd8\0other", false)
}

#[test]
fn what_the_author_saw_and_what_is_there_are_merged() {
    let changes = [
        seen(
            write("src/pages/index.astro", &PAGE.replace("Rare", "Old")),
            PAGE,
        ),
        seen(replace("src/pages/index.astro", "</h1>", "!</h1>"), PAGE),
        seen(
            frontmatter("src/content/penny-black.md", &json!({"year": 1841})),
            POST,
        ),
    ];
    insta::assert_snapshot!(outcome(&moved_on(), &changes), @r#"
    Edit 2 files in src
    src/content/penny-black.md: "---\ntitle: The Penny Black\nyear: 1841\n---\n\nThe first stamp.\n"
    src/pages/index.astro: "<h1>Old stamps!</h1>\n<hr>\n<p>Welcome to our shop.</p>\n"
    "#);
}

#[test]
fn a_replace_that_only_fits_what_the_author_saw_is_merged_too() {
    let tree = MapTree::of(&[("a.txt", b"x\n1\n2\n3\n")]).with("a.txt", b"x\n1\n2\n3\nx\n", false);
    let change = seen(replace("a.txt", "x", "y"), "x\n1\n2\n3\n");
    insta::assert_snapshot!(outcome(&tree, &[change]), @r#"
    Edit a.txt
    a.txt: "y\n1\n2\n3\nx\n"
    "#);
}

#[test]
fn what_overlaps_is_stale() {
    let changes = [
        seen(
            write("src/pages/index.astro", &PAGE.replace("Welcome.", "Hello.")),
            PAGE,
        ),
        seen(
            frontmatter("src/content/penny-black.md", &json!({"title": "Mine"})),
            POST,
        ),
        seen(write("public/a.jpg", "new"), "\u{0}unknown"),
        seen(delete("bin/build"), "another version"),
        seen(write("src/pages/gone.astro", "x"), PAGE),
    ];
    insta::assert_snapshot!(outcome(&moved_on(), &changes), @r#"
    stale: src/pages/index.astro: changed since the author saw it: both changed line 3.
    $.action.changes[0].base: src/pages/index.astro: changed since the author saw it: both changed line 3.
    $.action.changes[1].base: src/content/penny-black.md: "title" of its front matter changed since the author saw it.
    $.action.changes[2].base: public/a.jpg: changed, and the version that the author saw is not known here.
    $.action.changes[3].base: bin/build: changed since the author saw it.
    $.action.changes[4].base: src/pages/gone.astro: does not exist any more; the author saw a version of it.
    "#);
    let find = seen(
        replace("src/pages/index.astro", "<p>Welcome.", "<p>Hello."),
        PAGE,
    );
    assert!(outcome(&moved_on(), &[find]).starts_with("stale: "));
    let never = seen(replace("src/pages/index.astro", "never there", "x"), PAGE);
    assert!(outcome(&moved_on(), &[never]).starts_with("find_not_found: "));
    let unknown = seen(replace("src/pages/index.astro", "Rare", "Old"), "unknown");
    assert!(
        outcome(&moved_on(), &[unknown]).starts_with("Edit "),
        "unambiguous without the version too"
    );
}

#[test]
fn photos_are_never_merged() {
    let photo = [0xff, 0xd8, 0];
    let tree = MapTree::of(&[("a.jpg", &photo)]).with("a.jpg", &[0xff, 0xd8, 0, 1], false);
    let content = Content::Inline(vec![0xff, 0xd8, 0, 2]);
    let change = Change::Write {
        path: path("a.jpg"),
        content,
        base: Some(blob_id(&photo)),
    };
    insta::assert_snapshot!(outcome(&tree, &[change]), @r"
    stale: a.jpg: changed since the author saw it, and what is no text cannot be merged.
    $.action.changes[0].base: a.jpg: changed since the author saw it, and what is no text cannot be merged.
    ");
}

#[test]
fn one_author_can_change_what_he_saw_several_times() {
    let changes = [
        seen(replace("src/pages/index.astro", "Rare", "Old"), PAGE),
        seen(write("src/pages/index.astro", "all new\n"), PAGE),
        seen(
            rename("src/pages/index.astro", "src/pages/home.astro"),
            PAGE,
        ),
    ];
    insta::assert_snapshot!(outcome(&site(), &changes), @r#"
    Edit 2 files in src/pages
    src/pages/home.astro: "all new\n"
    src/pages/index.astro: gone
    "#);
}

#[test]
fn a_tree_that_cannot_be_read_is_no_fault_of_the_instruction() {
    let tree = site().unreadable_at("src/pages/x.astro");
    assert!(matches!(
        planned(&tree, &[write("src/pages/x.astro", "x")]),
        Err(PlanError::Tree(_))
    ));
}

fn any_change() -> impl Strategy<Value = Change> {
    let file = || {
        proptest::sample::select(vec![
            "a",
            "b",
            "a/b",
            "c.md",
            "bin/build",
            "src/link",
            "package.json",
        ])
    };
    let text = || {
        proptest::sample::select(vec![
            "",
            "x",
            "x\ny\n",
            "#!/bin/sh\n",
            "---\nk: v\n---\n",
            "\0",
        ])
    };
    prop_oneof![
        (file(), text()).prop_map(|(file, text)| write(file, text)),
        (file(), text(), text()).prop_map(|(file, find, with)| replace(file, find, with)),
        file().prop_map(delete),
        (file(), file()).prop_map(|(from, to)| rename(from, to)),
        file().prop_map(|file| frontmatter(file, &json!({"k": "w"}))),
        (file(), file()).prop_map(|(from, to)| patch(&format!(
            "diff --git a/{from} b/{to}\ncopy from {from}\ncopy to {to}\n"
        ))),
        (file(), text()).prop_map(|(file, text)| seen(write(file, "x\n"), text)),
    ]
}

proptest! {
    #[test]
    fn any_changes_are_planned_or_refused(changes in proptest::collection::vec(any_change(), 0..8)) {
        match planned(&site(), &changes) {
            Ok(set) => {
                prop_assert!(!set.files.is_empty());
                prop_assert!(set.files.values().all(|change| change.before != change.after));
                prop_assert!(set.summary().chars().count() <= 72);
            }
            Err(PlanError::Rejected(rejection)) => {
                prop_assert_eq!(&rejection.message, &rejection.details[0].message);
            }
            Err(PlanError::Tree(error)) => prop_assert!(false, "{error}"),
        }
    }
}
