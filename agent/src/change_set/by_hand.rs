//! Makes a change set of what somebody changed by hand. Pure: the caller has read the files.

use std::collections::BTreeMap;

use contract::client_config::Policy;
use contract::{ErrorCode, Problem, SitePath, limits};

use super::overlay::{LFS_POINTER_START, Limits};
use super::{ChangeSet, FileChange, Rejection, Version, policy};
use crate::draft::Node;

/// One file that is not as the draft has it.
#[derive(Debug)]
pub(crate) struct ByHand {
    /// Path from the root of the repository.
    pub(crate) path: String,
    /// As the draft has it.
    pub(crate) before: Node,
    /// As it stands in the work tree.
    pub(crate) after: Found,
}

/// What stands in the work tree, as far as it was read.
#[derive(Debug)]
pub(crate) enum Found {
    /// This. A folder is nothing: what is in it has paths of its own.
    Node(Node),
    /// A file that is larger than there is room for.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// What is no file, no link and no folder.
    NotAFile,
    /// What cannot be read.
    Unreadable {
        /// Why not.
        why: String,
    },
}

/// How much one commit of changes made by hand may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    limits: Limits,
}

impl Room {
    /// As much as the client's policy allows an instruction.
    pub(crate) fn of(policy: &Policy) -> Self {
        Self {
            limits: Limits::of(policy),
        }
    }

    /// Whether a file of `bytes` is still read, after `read` of others. What is not is too large either way.
    pub(crate) fn admits(self, bytes: u64, read: u64) -> bool {
        bytes <= self.limits.file_bytes as u64
            && bytes.saturating_add(read) <= self.limits.total_bytes as u64
    }

    /// Refuses more files than one commit may have, before any of them is read.
    pub(crate) fn refuse_many(self, count: usize) -> Result<(), Rejection> {
        if count <= self.limits.files {
            return Ok(());
        }
        let limit = self.limits.files;
        Err(refusal(
            ErrorCode::LimitExceeded,
            format!("{count} files were changed by hand; at most {limit} are allowed (maxFiles)."),
        ))
    }
}

/// Makes one change set of all of it, or says everything that is wrong with it.
pub(crate) fn plan(
    changes: Vec<ByHand>,
    site_root: &str,
    policy: &Policy,
) -> Result<ChangeSet, Rejection> {
    let room = Room::of(policy);
    room.refuse_many(changes.len())?;
    let mut files = BTreeMap::new();
    let mut faults: Vec<(ErrorCode, String)> = Vec::new();
    for change in changes {
        match read(change, site_root, policy, room) {
            Ok((path, change)) if change.before != change.after => {
                files.insert(path, change);
            }
            // It came to be as the draft has it meanwhile.
            Ok(_) => {}
            Err(fault) => faults.push(fault),
        }
    }
    faults.extend(files.keys().filter_map(|path| swapped(path, &files)));
    if let Some((code, message)) = faults.first() {
        let (code, message) = (*code, message.clone());
        let details = faults
            .into_iter()
            .take(limits::PROBLEMS_MAX)
            .map(|(_, message)| problem(message))
            .collect();
        return Err(Rejection {
            code,
            message,
            details,
        });
    }
    if files.is_empty() {
        return Err(refusal(
            ErrorCode::EmptyChange,
            "Nothing was changed by hand.".to_owned(),
        ));
    }
    Ok(ChangeSet { files })
}

fn read(
    change: ByHand,
    site_root: &str,
    policy: &Policy,
    room: Room,
) -> Result<(SitePath, FileChange), (ErrorCode, String)> {
    let place = change.path;
    let inside = if site_root.is_empty() {
        Some(place.as_str())
    } else {
        place
            .strip_prefix(site_root)
            .and_then(|rest| rest.strip_prefix('/'))
    };
    let not_allowed = |what: String| (ErrorCode::PathNotAllowed, format!("{place}: {what}"));
    let path: SitePath = inside
        .ok_or_else(|| not_allowed("is outside the site.".to_owned()))?
        .parse()
        .map_err(|error| not_allowed(format!("{error}.")))?;
    if let Err(denial) = policy::verdict(&path, policy) {
        return Err((ErrorCode::PolicyDenied, denial.to_string()));
    }
    let fault = |code, what: &str| (code, format!("{path}: {what}"));
    let version = |node| match node {
        Node::Absent => Ok(None),
        Node::File(version) => Ok(Some(version)),
        Node::Symlink(_) => Err(fault(ErrorCode::PathNotAllowed, "is a symbolic link.")),
        Node::Submodule => Err(fault(ErrorCode::UnsupportedFile, "is a submodule.")),
    };
    let before = version(change.before)?;
    let after = match change.after {
        Found::Node(node) => version(node)?,
        Found::TooLarge { bytes } if bytes > room.limits.file_bytes as u64 => {
            let limit = room.limits.file_bytes;
            let what =
                format!("has {bytes} bytes; one file may have at most {limit} (maxFileBytes).");
            return Err(fault(ErrorCode::LimitExceeded, &what));
        }
        Found::TooLarge { .. } => {
            let limit = room.limits.total_bytes;
            let what = format!(
                "with it the changed files have more than {limit} bytes together, which is the most that is allowed."
            );
            return Err(fault(ErrorCode::LimitExceeded, &what));
        }
        Found::NotAFile => {
            return Err(fault(ErrorCode::PathNotAllowed, "is not an ordinary file."));
        }
        Found::Unreadable { why } => {
            let what = format!("cannot be read: {why}.");
            return Err(fault(ErrorCode::UnsupportedFile, &what));
        }
    };
    let is_pointer = |version: &Option<Version>| {
        version
            .as_ref()
            .is_some_and(|version| version.content.starts_with(LFS_POINTER_START))
    };
    if is_pointer(&before) {
        return Err(fault(ErrorCode::UnsupportedFile, "is kept by git-lfs."));
    }
    Ok((path, FileChange { before, after }))
}

/// A file in the place of a folder, or a folder in the place of a file: no change set says that, because to git they are a tree
/// and a blob of one name.
fn swapped(path: &SitePath, files: &BTreeMap<SitePath, FileChange>) -> Option<(ErrorCode, String)> {
    let other = path
        .as_str()
        .match_indices('/')
        .find_map(|(end, _)| files.get_key_value(&path.as_str()[..end].parse::<SitePath>().ok()?));
    let (above, change) = other?;
    let what = if change.after.is_some() {
        "is a file where the draft has a folder. Give it another name, or remove the folder in a commit before."
    } else {
        "is a folder where the draft has a file. Give it another name, or remove the file in a commit before."
    };
    Some((ErrorCode::UnsupportedFile, format!("{above}: {what}")))
}

fn refusal(code: ErrorCode, message: String) -> Rejection {
    Rejection {
        code,
        details: vec![problem(message.clone())],
        message,
    }
}

fn problem(message: String) -> Problem {
    Problem {
        path: "$.action".to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> Node {
        Node::File(Version {
            content: content.into(),
            executable: false,
        })
    }

    fn changed(path: &str, before: Node, after: Node) -> ByHand {
        ByHand {
            path: path.to_owned(),
            before,
            after: Found::Node(after),
        }
    }

    fn refused(changes: Vec<ByHand>, site_root: &str, policy: &Policy) -> String {
        let rejection = plan(changes, site_root, policy).expect_err("refused");
        let details: String = rejection
            .details
            .iter()
            .map(|problem| format!("\n  {}", problem.message))
            .collect();
        format!("{}{details}", rejection.code.as_str())
    }

    #[test]
    fn everything_that_was_changed_by_hand_is_one_change_set() {
        let changes = vec![
            changed("site/src/a.md", text("a"), text("A")),
            changed("site/src/b.md", text("b"), Node::Absent),
            changed("site/src/c.md", Node::Absent, text("c")),
            changed("site/src/same.md", text("d"), text("d")),
        ];
        let change_set = plan(changes, "site", &Policy::default()).expect("planned");
        assert_eq!(
            change_set.paths().map(SitePath::as_str).collect::<Vec<_>>(),
            ["src/a.md", "src/b.md", "src/c.md"]
        );
        assert_eq!(change_set.summary(), "Edit 3 files in src");
    }

    #[test]
    fn nothing_is_nothing_to_commit() {
        insta::assert_snapshot!(refused(Vec::new(), "", &Policy::default()), @r"
        empty_change
          Nothing was changed by hand.
        ");
    }

    #[test]
    fn everything_that_cannot_be_committed_is_named() {
        let found = |path: &str, after| ByHand {
            path: path.to_owned(),
            before: Node::Absent,
            after,
        };
        let changes = vec![
            changed("package.json", text("{}"), text("[]")),
            changed("src/link", Node::Absent, Node::Symlink(b"a".to_vec())),
            changed("theme", Node::Submodule, Node::Absent),
            changed("src/.gitattributes", Node::Absent, text("*.md merge=evil")),
            changed(
                "public/film.mp4",
                text("version https://git-lfs.github.com/spec/v1\n"),
                text("film"),
            ),
            found("public/huge.mp4", Found::TooLarge { bytes: 30_000_000 }),
            found("public/one-more.jpg", Found::TooLarge { bytes: 1000 }),
            found("src/pipe", Found::NotAFile),
            found(
                "src/secret.md",
                Found::Unreadable {
                    why: "Permission denied".to_owned(),
                },
            ),
        ];
        insta::assert_snapshot!(refused(changes, "", &Policy::default()), @r"
        policy_denied
          package.json: package manifests, lock files and package manager settings cannot be changed here unless the client's policy has allowDependencies.
          src/link: is a symbolic link.
          theme: is a submodule.
          src/.gitattributes: files of git itself (.git, .gitattributes, .gitmodules, …) cannot be edited.
          public/film.mp4: is kept by git-lfs.
          public/huge.mp4: has 30000000 bytes; one file may have at most 20971520 (maxFileBytes).
          public/one-more.jpg: with it the changed files have more than 52428800 bytes together, which is the most that is allowed.
          src/pipe: is not an ordinary file.
          src/secret.md: cannot be read: Permission denied.
        ");
        let outside = vec![changed("README.md", text("a"), text("b"))];
        insta::assert_snapshot!(refused(outside, "site", &Policy::default()), @r"
        path_not_allowed
          README.md: is outside the site.
        ");
    }

    #[test]
    fn a_file_does_not_become_a_folder_in_one_commit() {
        let changes = vec![
            changed("src/page", text("a"), Node::Absent),
            changed("src/page/a.md", Node::Absent, text("a")),
            changed("src/posts", Node::Absent, text("b")),
            changed("src/posts/b.md", text("b"), Node::Absent),
        ];
        insta::assert_snapshot!(refused(changes, "", &Policy::default()), @r"
        unsupported_file
          src/page: is a folder where the draft has a file. Give it another name, or remove the file in a commit before.
          src/posts: is a file where the draft has a folder. Give it another name, or remove the folder in a commit before.
        ");
    }

    #[test]
    fn one_commit_has_as_much_room_as_one_instruction() {
        let policy = Policy {
            max_files: Some(2),
            max_file_bytes: Some(10),
            ..Policy::default()
        };
        let room = Room::of(&policy);
        assert!(room.admits(10, 1_000_000));
        assert!(!room.admits(11, 0));
        assert!(!Room::of(&Policy::default()).admits(20_000_000, 40_000_000));
        let changes = ["a.md", "b.md", "c.md"]
            .map(|path| changed(path, Node::Absent, text("x")))
            .into();
        insta::assert_snapshot!(refused(changes, "", &policy), @r"
        limit_exceeded
          3 files were changed by hand; at most 2 are allowed (maxFiles).
        ");
    }
}
