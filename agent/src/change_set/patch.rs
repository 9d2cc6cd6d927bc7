//! A git patch as one change: reading it, and carrying it out strictly.
//!
//! What `git diff` and `git format-patch` write is taken: text and binary files, new, deleted, renamed and copied files,
//! the executable bit, quoted names, missing final newlines; also a plain unified diff without git's header. Symbolic
//! links, submodules and combined diffs are refused.
//!
//! **Order.** In one `git diff` every file is described as it was before all of it: a copy comes from what its source
//! was, and two files can swap names. A series of mails, or a file that is changed a second time, begins a new *stage*,
//! which sees what the one before did.
//!
//! **Strict** means:
//! - Every old line of every hunk matches exactly, white space and line endings included.
//! - Either all hunks of a file stand where they say, or the old lines of each occur exactly once in the file, in
//!   order. Never a guess, never fuzz. A hunk without any old line applies to an empty file only.
//! - A deleted file has exactly the content the patch deletes, a new one does not exist yet, and the second half of a
//!   binary patch, which leads back, leads back to what is there.
//! - Every path passes through [`SitePath`] and policy, that of a copy's source too: otherwise `.env` could be copied
//!   to where everybody can read it.
//!
//! diffy's patch parser is not used: it gives no line numbers, passes over what it does not know, puts a hunk at the
//! nearest of several places, and decodes binary files without a bound. The tests hold this one against it.

use std::collections::BTreeSet;

use contract::{ErrorCode, SitePath};

use super::fault::{Fault, Stop, quote};
use super::overlay::Overlay;

mod binary;
mod hunks;
mod names;
mod read;
mod stage;

use binary::Block;
use stage::Stage;

/// The member of the change that all faults of a patch are about.
const AT: &str = ".diff";

/// A patch that was read, with the paths it names.
#[derive(Debug)]
pub(super) struct Patch<'d> {
    files: Vec<(FilePatch<'d>, Target<SitePath>)>,
}

/// One file of a patch.
#[derive(Debug)]
struct FilePatch<'d> {
    /// The line of the patch at which it begins.
    line: usize,
    /// The number of the mail or commit that it is in.
    message: usize,
    target: Target<String>,
    /// With git's header: the modes it names.
    mode: Option<Modes>,
    body: Body<'d>,
}

/// Modes as the patch spells them.
#[derive(Debug)]
struct Modes {
    all: Vec<String>,
    /// The one the file gets, if the patch says so.
    new: Option<String>,
}

/// What happens to which file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target<P> {
    Modify(P),
    Create(P),
    Delete(P),
    Rename { from: P, to: P },
    Copy { from: P, to: P },
}

/// How its content changes.
#[derive(Debug)]
enum Body<'d> {
    None,
    Hunks(Vec<Hunk<'d>>),
    Binary { forward: Block, reverse: Block },
}

/// Lines that change, and lines around them.
#[derive(Debug)]
struct Hunk<'d> {
    /// The line of the patch at which it begins.
    line: usize,
    /// Its first line in the old file, from 1; the line before it if it has no old lines.
    start: usize,
    lines: Vec<HunkLine<'d>>,
}

#[derive(Debug, Clone, Copy)]
struct HunkLine<'d> {
    side: Side,
    /// Without its newline.
    text: &'d str,
    /// Whether it has a newline.
    terminated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
    Both,
}

impl Target<SitePath> {
    /// The paths it names.
    fn paths(&self) -> impl Iterator<Item = &SitePath> {
        let (first, second) = match self {
            Self::Modify(path) | Self::Create(path) | Self::Delete(path) => (path, None),
            Self::Rename { from, to } | Self::Copy { from, to } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

impl<'d> Patch<'d> {
    /// Reads a patch; all names and modes that are not allowed are reported at once.
    pub(super) fn read(diff: &'d str) -> Result<Self, Vec<Fault>> {
        let fault = |code, message: String| Fault {
            code,
            at: AT.to_owned(),
            message,
        };
        let files = read::read(diff)
            .map_err(|broken| vec![fault(ErrorCode::PatchFailed, format!("{broken}."))])?;
        let mut faults = Vec::new();
        let mut read = Vec::with_capacity(files.len());
        for file in files {
            let line = file.line;
            match file
                .target
                .clone()
                .try_map(|name| name.parse::<SitePath>().map_err(|why| (name, why)))
            {
                Ok(target) => read.push((file, target)),
                Err((name, why)) => {
                    let message = format!(
                        "line {line} of the patch: {} is not allowed: {why}.",
                        quote(&name)
                    );
                    faults.push(fault(ErrorCode::PathNotAllowed, message));
                }
            }
        }
        for (file, target) in &read {
            let Some(path) = target.paths().last() else {
                continue;
            };
            for mode in file.mode.iter().flat_map(|modes| &modes.all) {
                faults.extend(refused_mode(path, mode));
            }
        }
        if faults.is_empty() {
            Ok(Self { files: read })
        } else {
            Err(faults)
        }
    }

    /// All paths that it names, each once.
    pub(super) fn paths(&self) -> BTreeSet<&SitePath> {
        self.files
            .iter()
            .flat_map(|(_, target)| target.paths())
            .collect()
    }

    /// Carries it out; all files that do not work are reported at once.
    pub(super) fn carry_out(&self, overlay: &mut Overlay<'_>) -> Result<(), Stop> {
        let mut faults = Vec::new();
        let mut stage = Stage::default();
        for (index, (file, target)) in self.files.iter().enumerate() {
            if overlay.is_exhausted() {
                break;
            }
            stage.enter(file.message, target);
            let moves_later = |path: &SitePath| {
                let mut later = self.files[index + 1..]
                    .iter()
                    .take_while(|(later, _)| later.message == file.message);
                later.any(|(_, later)| matches!(later, Target::Rename { from, .. } if from == path))
            };
            match file.carry_out(target, overlay, &mut stage, moves_later) {
                Ok(()) => {}
                Err(Stop::Faults(found)) => faults.extend(found),
                Err(stop) => return Err(stop),
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Stop::Faults(faults))
        }
    }
}

fn refused_mode(path: &SitePath, mode: &str) -> Option<Fault> {
    let (code, what) = match mode {
        "100644" | "100755" => return None,
        "120000" => (
            ErrorCode::PathNotAllowed,
            "is a symbolic link in the patch.".to_owned(),
        ),
        "160000" => (
            ErrorCode::UnsupportedFile,
            "is a submodule in the patch.".to_owned(),
        ),
        other => (
            ErrorCode::PatchFailed,
            format!(
                "has the mode {}; only 100644 and 100755 are known.",
                quote(other)
            ),
        ),
    };
    Some(Fault::of(path, AT, code, what))
}

impl Hunk<'_> {
    /// Whether on each side only the last line can lack its newline.
    fn ends_once(&self) -> bool {
        [Side::Old, Side::New].iter().all(|other| {
            let mut side = self.lines.iter().filter(|line| line.side != *other);
            side.next_back();
            side.all(|line| line.terminated)
        })
    }
}

impl<P> Target<P> {
    fn try_map<Q, E>(self, mut map: impl FnMut(P) -> Result<Q, E>) -> Result<Target<Q>, E> {
        Ok(match self {
            Self::Modify(path) => Target::Modify(map(path)?),
            Self::Create(path) => Target::Create(map(path)?),
            Self::Delete(path) => Target::Delete(map(path)?),
            Self::Rename { from, to } => Target::Rename {
                from: map(from)?,
                to: map(to)?,
            },
            Self::Copy { from, to } => Target::Copy {
                from: map(from)?,
                to: map(to)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use contract::client_config::Policy;
    use proptest::prelude::*;

    use super::super::map_tree::MapTree;
    use super::super::overlay::Limits;
    use super::super::{Entry, Tree};
    use super::*;

    /// The files that a patch changes, as lines; what is wrong with it otherwise.
    fn patched(tree: &dyn Tree, diff: &str) -> Result<String, String> {
        let message = |faults: Vec<Fault>| {
            let lines: Vec<String> = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.code.as_str(), fault.message))
                .collect();
            lines.join("\n")
        };
        let patch = Patch::read(diff).map_err(message)?;
        let mut overlay = Overlay::new(tree, Limits::of(&Policy::default()));
        patch.carry_out(&mut overlay).map_err(|stop| match stop {
            Stop::Faults(faults) => message(faults),
            Stop::Tree(error) => error.to_string(),
        })?;
        let mut files = String::new();
        for (path, change) in overlay.finish() {
            let after = change.after.map_or("gone".to_owned(), |version| {
                let mode = if version.executable { " +x" } else { "" };
                format!("{:?}{mode}", String::from_utf8_lossy(&version.content))
            });
            writeln!(files, "{path}: {after}").expect("writing to a String never fails");
        }
        Ok(files)
    }

    /// What `git diff --binary -M` writes.
    const GIT_DIFF: &str = include_str!("patch/example.diff");

    fn example() -> MapTree {
        MapTree::of(&[
            ("edit.txt", b"one\ntwo\nthree\nfour\nfive\nsix\n"),
            ("gone.txt", b"gone\n"),
            ("old.txt", b"rename me\nline 2\nline 3\nline 4\nline 5\n"),
            ("run.sh", b"#!/bin/sh\n"),
            ("crlf.txt", b"a\r\nb\r\nc\r\n"),
            ("noeol.txt", b"end"),
            ("café \"q\".txt", b"x\n"),
            ("small.bin", b"\0\x01\x02"),
        ])
    }

    #[test]
    fn what_git_diff_writes_is_applied() {
        insta::assert_snapshot!(patched(&example(), GIT_DIFF).expect("applies"), @r##"
        café "q".txt: "y\n"
        crlf.txt: "a\r\nB\r\nc\r\n"
        edit.txt: "one\ntwo!\nthree\nfour\nfive\nsix\nseven\n"
        empty.txt: ""
        gone.txt: gone
        new.txt: "rename me\nline 2\nLINE 3\nline 4\nline 5\n"
        noeol.txt: "end\nmore"
        old.txt: gone
        run.sh: "#!/bin/sh\n" +x
        small.bin: "\0\u{1}\u{3}"
        with space.txt: "new\n"
        "##);
        assert_eq!(
            patched(&example(), GIT_DIFF.trim_end()),
            patched(&example(), GIT_DIFF),
            "a lost last newline is no matter"
        );
    }

    #[test]
    fn a_patch_whose_own_lines_end_in_crlf_still_names_its_files() {
        let tree = MapTree::of(&[("a", b"x\r\ny\r\n")]);
        let diff = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n"
            .replace('\n', "\r\n");
        assert_eq!(
            patched(&tree, &diff).as_deref(),
            Ok("a: \"x\\r\\nz\\r\\n\"\n")
        );
    }

    #[test]
    fn all_that_is_wrong_with_a_patch_is_said_at_once() {
        let tree = example()
            .with("edit.txt", b"one\n2\nthree\nfour\nfive\nsix\n", false)
            .with("empty.txt", b"", false);
        let tree = tree.with("gone.txt", b"gone\nnot quite\n", false).with(
            "small.bin",
            b"\0\x01\x02\x03",
            false,
        );
        insta::assert_snapshot!(patched(&tree, GIT_DIFF).expect_err("refused"), @r#"
        patch_failed: edit.txt: hunk 1 (line 21 of the patch) does not apply: line 2 is "2" and should be "two".
        file_exists: empty.txt: exists already (line 30 of the patch makes it).
        patch_failed: gone.txt: has more than what the patch deletes.
        patch_failed: small.bin: the patch was made for another version of it.
        "#);
        insta::assert_snapshot!(patched(&MapTree::default(), GIT_DIFF).expect_err("refused"), @r#"
        file_not_found: café "q".txt: does not exist.
        file_not_found: crlf.txt: does not exist.
        file_not_found: edit.txt: does not exist.
        file_not_found: gone.txt: does not exist.
        file_not_found: old.txt: does not exist.
        file_not_found: noeol.txt: does not exist.
        file_not_found: run.sh: does not exist.
        file_not_found: small.bin: does not exist.
        "#);
    }

    #[test]
    fn two_files_can_swap_names_and_a_copy_comes_from_what_its_source_was() {
        let tree = MapTree::of(&[("a", b"A\n"), ("b", b"B\n"), ("c", b"old\n")]);
        let diff = "\
diff --git a/b b/a
rename from b
rename to a
diff --git a/a b/b
rename from a
rename to b
diff --git a/c b/c
--- a/c
+++ b/c
@@ -1 +1 @@
-old
+new
diff --git a/c b/d
copy from c
copy to d
";
        insta::assert_snapshot!(patched(&tree, diff).expect("applies"), @r#"
        a: "B\n"
        b: "A\n"
        c: "new\n"
        d: "old\n"
        "#);
    }

    #[test]
    fn a_series_of_mails_applies_one_after_the_other() {
        let id = "1".repeat(40);
        let mail = |subject: &str, diff: &str| {
            format!(
                "From {id} Mon Sep 17 00:00:00 2001\nSubject: {subject}\n\n- a list\n+ in the message\n---\n x | 2 +-\n\n{diff}-- \n2.47.0\n\n"
            )
        };
        let first = mail(
            "one",
            "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n",
        );
        let second = mail(
            "two",
            "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
        );
        let tree = MapTree::of(&[("x", b"1\n")]);
        assert_eq!(
            patched(&tree, &format!("{first}{second}")).as_deref(),
            Ok("x: gone\ny: \"2\\n\"\n")
        );
    }

    #[test]
    fn a_plain_unified_diff_is_applied() {
        let tree = MapTree::of(&[("src/x", b"a\n"), ("y", b"a\n"), ("z", b"a\n")]);
        let diff = "\
--- a/src/x\t2026-01-01
+++ b/src/x\t2026-01-02
@@ -1 +1 @@
-a
+b
--- y.orig
+++ y
@@ -1 +1 @@
-a
+c
--- z
+++ /dev/null
@@ -1 +0,0 @@
-a
--- /dev/null
+++ b/new
@@ -0,0 +1 @@
+n
";
        insta::assert_snapshot!(patched(&tree, diff).expect("applies"), @r#"
        new: "n\n"
        src/x: "b\n"
        y: "c\n"
        z: gone
        "#);
    }

    #[test]
    fn links_submodules_and_foreign_paths_are_refused() {
        let tree = MapTree::of(&[("a", b"")]).with_entry("link", Entry::Symlink);
        let refusal = |diff: &str| patched(&tree, diff).expect_err("refused");
        let new = |path: &str, mode: &str| {
            format!("diff --git a/{path} b/{path}\nnew file mode {mode}\n")
        };
        let diff = [new("l", "120000"), new("m", "160000"), new("n", "100600")].concat();
        insta::assert_snapshot!(refusal(&diff), @r#"
        path_not_allowed: l: is a symbolic link in the patch.
        unsupported_file: m: is a submodule in the patch.
        patch_failed: n: has the mode "100600"; only 100644 and 100755 are known.
        "#);
        let diff = [
            new("../x", "100644"),
            new(".git/config", "100644"),
            new("node_modules/x", "100644"),
        ]
        .concat();
        insta::assert_snapshot!(refusal(&diff), @r#"
        path_not_allowed: line 1 of the patch: "../x" is not allowed: a path has no . or .. component.
        path_not_allowed: line 3 of the patch: ".git/config" is not allowed: files of git itself (.git, .gitattributes, .gitmodules, …) cannot be edited.
        path_not_allowed: line 5 of the patch: "node_modules/x" is not allowed: files below node_modules come from the lock file and cannot be edited.
        "#);
        insta::assert_snapshot!(refusal(&new("link/x", "100644")), @"path_not_allowed: link/x: link is a symbolic link, not a folder.");
        insta::assert_snapshot!(refusal(&new("link", "100644")), @"path_not_allowed: link: is a symbolic link.");
    }

    #[test]
    fn broken_text_is_refused_with_its_line() {
        let tree = MapTree::of(&[("a", b"x\ny\n")]);
        let refusal = |diff: &str| patched(&tree, diff).expect_err("refused");
        let file = "diff --git a/a b/a\n--- a/a\n+++ b/a\n";
        insta::assert_snapshot!(refusal("hello"), @"patch_failed: line 1 of the patch: no file is named: neither `diff --git` nor `---` and `+++` lines were found.");
        insta::assert_snapshot!(refusal("diff --git a/a b/a\n"), @"patch_failed: line 1 of the patch: the file has no changes; the patch may have been cut.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ 1 +1 @@\n-x\n")), @"patch_failed: line 4 of the patch: the hunk's header is not of the form `@@ -1,2 +1,2 @@`.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ -1,x +1 @@\n-x\n")), @"patch_failed: line 4 of the patch: the hunk's header is not of the form `@@ -1,2 +1,2 @@`.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ -1,2 +1,2 @@\n-x\n")), @"patch_failed: line 6 of the patch: the patch ends in the middle of a hunk.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ -1 +1 @@\n-x\n+z\n y\n")), @"patch_failed: line 7 of the patch: belongs to no hunk; the counts in the hunk's header may be wrong.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ -1,2 +1 @@\n-x\n+z\n+y\n")), @"patch_failed: line 7 of the patch: the hunk has more lines than its header says.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ -1,2 +1,2 @@\n-x\n\\ No newline\n+z\n y\n")), @"patch_failed: line 4 of the patch: only the last line of a file can lack its newline.");
        insta::assert_snapshot!(refusal(&format!("{file}@@ -1,2 +1,2 @@\n*x\n")), @r"patch_failed: line 5 of the patch: a line of a hunk begins with a space, `-`, `+` or `\`.");
        insta::assert_snapshot!(refusal("diff --git a/a b/a\nBinary files a/a and b/a differ\n"), @"patch_failed: line 2 of the patch: the bytes of a binary file are missing; make the patch with `git diff --binary`.");
        insta::assert_snapshot!(refusal("diff --git a/a b/a\nGIT binary patch\nliteral 3\nnonsense\n"), @"patch_failed: line 4 of the patch: is not a line of a binary file in base 85.");
        insta::assert_snapshot!(refusal("diff --git a/a b/a\nGIT binary patch\nliteral 0\nHcmV?d00001\n\n"), @"patch_failed: line 6 of the patch: the patch ends in the middle of a binary file.");
        insta::assert_snapshot!(refusal("diff --git a/a b/a\n--- a/a\n+++ b/b\n@@ -1 +1 @@\n-x\n+z\n"), @"patch_failed: line 1 of the patch: `---` and `+++` name another file than the header.");
        insta::assert_snapshot!(refusal("diff --git a/a b/b\nrename from a\n"), @"patch_failed: line 1 of the patch: `rename from` and `rename to` belong together.");
        insta::assert_snapshot!(refusal("diff --cc a\n"), @"patch_failed: line 1 of the patch: a merge's combined diff cannot be applied.");
    }

    proptest! {
        #[test]
        fn any_text_is_a_patch_or_is_refused(parts in proptest::collection::vec(proptest::sample::select(SOUP.to_vec()), 0..30)) {
            let tree = MapTree::of(&[("a", b"x\ny\n"), ("b", b"\0\x01")]);
            patched(&tree, &parts.concat()).ok();
        }
    }

    const SOUP: [&str; 36] = [
        "diff --git a/a b/a\n",
        "diff --git a/b b/c\n",
        "--- a/a\n",
        "+++ b/a\n",
        "--- /dev/null\n",
        "+++ /dev/null\n",
        "--- ",
        "+++ ",
        "@@ -1 +1 @@\n",
        "@@ -1,2 +1,2 @@\n",
        "@@ -0,0 +1 @@\n",
        "@@ -999999999,999999999 +1 @@\n",
        "@@ -1,99999999999999999999 +1 @@\n",
        " x\n",
        " y\n",
        "-x\n",
        "-y\n",
        "+z\n",
        "\n",
        "\\ No newline at end of file\n",
        "rename from a\n",
        "rename to d\n",
        "copy from a\n",
        "copy to \"\\303\\251\"\n",
        "new file mode 100644\n",
        "deleted file mode 100644\n",
        "old mode 100644\n",
        "new mode 100755\n",
        "index 1..2 100644\n",
        "GIT binary patch\n",
        "literal 0\n",
        "delta 4\n",
        "HcmV?d00001\n",
        "\r\n",
        "\"",
        "a",
    ];
}
