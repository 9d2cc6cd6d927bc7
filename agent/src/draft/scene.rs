//! The scene of the draft's tests: a client's repository, what others do in it, and a draft of it.

use std::path::Path;

use git2::Oid;

use super::{CommitMessage, Credentials, Declined, Draft, Proposal, Remote, Settings};
use crate::change_set::{ChangeSet, FileChange, Version};

/// A repository with one empty commit on `main`.
pub(super) struct Scene {
    pub(super) folder: tempfile::TempDir,
    pub(super) remote: git2::Repository,
}

impl Scene {
    pub(super) fn begin() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        let remote = git2::Repository::init_opts(folder.path().join("remote"), &options);
        let scene = Self {
            remote: remote.expect("made"),
            folder,
        };
        scene.commit("main", &[]);
        scene
    }

    /// With these files on `main`.
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let scene = Self::begin();
        scene.write("main", "Begin", files);
        scene
    }

    /// A commit by somebody else, with no change.
    pub(super) fn commit(&self, branch: &str, parents: &[Oid]) -> Oid {
        let tree = match parents.last() {
            Some(parent) => self
                .remote
                .find_commit(*parent)
                .and_then(|commit| commit.tree()),
            None => self
                .remote
                .treebuilder(None)
                .and_then(|tree| self.remote.find_tree(tree.write()?)),
        };
        self.commit_tree(branch, parents, "Something", &tree.expect("a tree"))
    }

    /// A commit by somebody else that writes files; `-` removes one.
    pub(super) fn write(&self, branch: &str, summary: &str, files: &[(&str, &str)]) -> Oid {
        let tip = self.tip(branch);
        let mut index = git2::Index::new().expect("an index");
        let baseline = self
            .remote
            .find_commit(tip)
            .and_then(|commit| commit.tree());
        index.read_tree(&baseline.expect("a tree")).expect("read");
        for (path, content) in files {
            let path = Path::new(path);
            if *content == "-" {
                index.remove(path, 0).expect("removed");
            } else {
                let held = super::proposal::Held {
                    id: self.remote.blob(content.as_bytes()).expect("written"),
                    mode: 0o100_644,
                };
                index
                    .add(&super::proposal::index_entry(path, held))
                    .expect("added");
            }
        }
        let tree = index.write_tree_to(&self.remote).expect("written");
        let tree = self.remote.find_tree(tree).expect("there");
        self.commit_tree(branch, &[tip], summary, &tree)
    }

    fn commit_tree(
        &self,
        branch: &str,
        parents: &[Oid],
        summary: &str,
        tree: &git2::Tree<'_>,
    ) -> Oid {
        let find = |id: &Oid| self.remote.find_commit(*id).expect("there");
        let parents: Vec<_> = parents.iter().map(find).collect();
        let moment = git2::Time::new(1_790_000_000, 0);
        let dora = git2::Signature::new("Dora", "dora@example.com", &moment).expect("valid");
        self.remote
            .commit(
                Some(&format!("refs/heads/{branch}")),
                &dora,
                &dora,
                summary,
                tree,
                &parents.iter().collect::<Vec<_>>(),
            )
            .expect("committed")
    }

    pub(super) fn tip(&self, branch: &str) -> Oid {
        self.remote
            .refname_to_id(&format!("refs/heads/{branch}"))
            .expect("there")
    }

    /// What a branch of the remote has at a path.
    pub(super) fn read(&self, branch: &str, path: &str) -> Option<String> {
        let object = self
            .remote
            .revparse_single(&format!("{branch}:{path}"))
            .ok()?;
        let blob = object.peel_to_blob().ok()?;
        Some(String::from_utf8(blob.content().to_vec()).expect("text"))
    }

    pub(super) fn draft(&self) -> Draft {
        self.draft_of("edit/local", "draft.git")
    }

    /// Another draft beside it.
    pub(super) fn draft_of(&self, branch: &str, folder: &str) -> Draft {
        let settings = self.settings(branch, folder);
        Draft::open(&settings, &mut |_, _| ()).expect("open")
    }

    /// A draft that speaks to the repository as to a server.
    pub(super) fn draft_from_server(&self) -> Draft {
        let settings = Settings {
            remote: Remote::Server {
                url: format!("file://{}", self.folder.path().join("remote").display()),
                credentials: Credentials::Secret(String::new()),
            },
            ..self.settings("edit/local", "draft.git")
        };
        Draft::open(&settings, &mut |_, _| ()).expect("open")
    }

    /// A draft of a site in a folder of the repository.
    pub(super) fn draft_below(&self, site_root: &str) -> Draft {
        let settings = Settings {
            site_root: site_root.to_owned(),
            ..self.settings("edit/local", "draft.git")
        };
        Draft::open(&settings, &mut |_, _| ()).expect("open")
    }

    pub(super) fn settings(&self, branch: &str, folder: &str) -> Settings {
        let at = |name: &str| self.folder.path().join(name);
        Settings {
            git_directory: at(folder),
            staging: at("staging"),
            remote: Remote::Local { path: at("remote") },
            published_branch: None,
            draft_branch: branch.to_owned(),
            site_root: String::new(),
            offline: false,
        }
    }
}

/// An instruction that makes a file of its name.
pub(super) fn instruct(draft: &mut Draft, name: &str) -> Oid {
    edit(draft, name, &[(name, name)])
}

/// An instruction of Amelia's that writes files; `-` removes one.
pub(super) fn edit(draft: &mut Draft, id: &str, files: &[(&str, &str)]) -> Oid {
    let tip = draft.tip().expect("a tip");
    let changes = files.iter().map(|(path, content)| {
        let place = draft.repository_path(&path.parse().expect("a path"));
        let before = match draft.node(tip, &place).expect("read") {
            super::Node::File(version) => Some(version),
            _ => None,
        };
        let after = (*content != "-").then(|| Version {
            content: (*content).into(),
            executable: false,
        });
        (path.parse().expect("a path"), FileChange { before, after })
    });
    let change_set = ChangeSet {
        files: changes.collect(),
    };
    let proposal = draft.propose_edit(&change_set).expect("proposed");
    draft
        .commit(&proposal, &message(id, "edit", &proposal.summary))
        .expect("committed");
    draft.tip().expect("a tip")
}

/// Commits what was proposed, as the pipeline does.
pub(super) fn accept(
    draft: &mut Draft,
    id: &str,
    action: &'static str,
    proposed: Result<Proposal, Declined>,
) -> Oid {
    let proposal = proposed.expect("nothing stands in the way");
    draft
        .commit(&proposal, &message(id, action, &proposal.summary))
        .expect("committed");
    draft.tip().expect("a tip")
}

pub(super) fn message(id: &str, action: &'static str, summary: &str) -> CommitMessage {
    CommitMessage {
        summary: summary.to_owned(),
        instruction_id: id.parse().expect("an id"),
        session_id: "amelia_1".parse().expect("an id"),
        author: Some(("Amelia".to_owned(), "amelia@example.com".to_owned())),
        authored_at: 1_790_000_000,
        action,
        undoes: None,
    }
}

/// What the draft has at a path.
pub(super) fn read(draft: &Draft, path: &str) -> Option<String> {
    match draft.node(draft.tip().expect("a tip"), path).expect("read") {
        super::Node::File(version) => Some(String::from_utf8(version.content).expect("text")),
        _ => None,
    }
}
