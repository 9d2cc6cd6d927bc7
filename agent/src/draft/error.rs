//! What can go wrong with a repository: what happened, to what, and what to do now.

use std::path::PathBuf;

/// An operation on the draft or its remote that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DraftError {
    /// The repository is not there.
    #[error("there is no git repository at {remote}")]
    NoRepository {
        /// Which one.
        remote: String,
    },
    /// Its history is cut off, and what is built on a part of it cannot be put together again.
    #[error("the repository {remote} is a shallow clone")]
    Shallow {
        /// Which one.
        remote: String,
    },
    /// It has no commit.
    #[error("the repository {remote} has no commit yet")]
    Empty {
        /// Which one.
        remote: String,
    },
    /// It has no such branch.
    #[error("the repository {remote} has no branch {branch}{}", known_branches(.known))]
    NoBranch {
        /// Which one.
        remote: String,
        /// The branch.
        branch: String,
        /// The branches it has.
        known: Vec<String>,
    },
    /// A branch of the remote has a name beside which git cannot have ours.
    #[error("the repository {remote} cannot have the branch {branch} beside its branch {taken}")]
    NameTaken {
        /// Which one.
        remote: String,
        /// The branch that is wanted.
        branch: String,
        /// The branch that is there.
        taken: String,
    },
    /// The remote does not know us.
    #[error("the repository {remote} did not accept the credentials")]
    Credentials {
        /// Which one.
        remote: String,
        /// What it said.
        source: git2::Error,
    },
    /// The remote cannot prove that it is itself.
    #[error("the server of {remote} is not known to be the right one")]
    UnknownServer {
        /// Which one.
        remote: String,
        /// What is wrong with its key or certificate.
        source: git2::Error,
    },
    /// The remote shows a key by which it is not known. Nothing was said to it.
    #[error(
        "the server of {remote} shows the key {shown}, by which it is not known, so nothing was sent to it"
    )]
    OtherHostKey {
        /// Which one.
        remote: String,
        /// The fingerprint of the key.
        shown: String,
    },
    /// The remote did not answer, or not what a git server answers.
    #[error("could not {operation} {remote}")]
    Unreachable {
        /// What was tried.
        operation: &'static str,
        /// Which one.
        remote: String,
        /// What happened.
        source: git2::Error,
    },
    /// The disk is full, here or (for a repository on this machine) there.
    #[error("could not {operation} {remote}")]
    DiskFull {
        /// What was tried.
        operation: &'static str,
        /// Which repository.
        remote: String,
        /// What could not be written.
        source: git2::Error,
    },
    /// The draft branch of the developer's own repository is checked out there.
    #[error("the branch {branch} is checked out in {place}")]
    CheckedOut {
        /// The branch.
        branch: String,
        /// Where.
        place: PathBuf,
    },
    /// The remote could not take the commit now.
    #[error("{remote} could not take the commit: {reason}")]
    PushUndone {
        /// Which one.
        remote: String,
        /// What it said.
        reason: String,
    },
    /// The draft is not what the change was made for any more.
    #[error("the draft {branch} moved while a change of it was prepared")]
    Moved {
        /// The draft branch.
        branch: String,
    },
    /// The push was accepted, and yet the commit is not there.
    #[error("{remote} accepted a push to {branch}, but the branch did not move")]
    PushVanished {
        /// Which one.
        remote: String,
        /// The branch.
        branch: String,
    },
    /// Others push faster than we can.
    #[error("{remote} moved {rounds} times while we pushed")]
    RemoteBusy {
        /// Which one.
        remote: String,
        /// How often we tried.
        rounds: usize,
    },
    /// The workspace holds a clone of something else.
    #[error("{path} is a clone of {of}, not of {wanted}", path = .path.display())]
    OtherClone {
        /// The git directory.
        path: PathBuf,
        /// Of what it is a clone.
        of: String,
        /// What was wanted.
        wanted: String,
    },
    /// What was parked is not where it was put.
    #[error("what was parked at {place} cannot be taken up: {why}")]
    ParkedGone {
        /// A ref of the remote, or the name of a bundle.
        place: String,
        /// What is missing.
        why: String,
    },
    /// Something is wrong with the clone.
    #[error("could not {operation} ({path})", path = .path.display())]
    Local {
        /// What was tried.
        operation: &'static str,
        /// The git directory.
        path: PathBuf,
        /// What happened.
        source: git2::Error,
    },
    /// Something is wrong with a file around the clone.
    #[error("could not {operation} {path}", path = .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}

impl DraftError {
    /// What to do now.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoRepository { .. } => {
                "Check the path or address of the repository (`repository.url` of the client's configuration), and that our key may read it."
            }
            Self::Shallow { .. } => "Get the rest of its history with `git fetch --unshallow`.",
            Self::Empty { .. } => "Commit the site to the repository first.",
            Self::NoBranch { .. } => {
                "Name an existing branch: `repository.branch` of the client's configuration (on a laptop: --branch)."
            }
            Self::NameTaken { .. } => "Rename that branch, or use another --thread.",
            Self::Credentials { .. } => {
                "Name a key or token that may write to the repository: `repository.deployKey` of the client's configuration (on a laptop: --deploy-key file:PATH or env:NAME)."
            }
            Self::UnknownServer { .. } => {
                "Check its host key (connecting once with `ssh` puts it into ~/.ssh/known_hosts), or its certificate."
            }
            Self::OtherHostKey { .. } => {
                "Ask whoever runs the server whether this is its key; if so, put it into `repository.hostKeys` of the client's configuration (on a laptop: --host-key)."
            }
            Self::Unreachable { .. } => {
                "Check the address and the network; the work done so far is kept."
            }
            Self::CheckedOut { .. } => {
                "Check out another branch there (for example `git switch -`), or use another --thread."
            }
            Self::PushUndone { .. } | Self::PushVanished { .. } | Self::RemoteBusy { .. } => {
                "It is tried again; if it stays so, look at what else pushes to this branch."
            }
            Self::ParkedGone { .. } => {
                "The draft goes on without it. If somebody moved it, its commit can still be brought in by hand."
            }
            Self::Moved { .. } => "It is tried again on what the draft is now.",
            Self::OtherClone { .. } => "Name another --workspace.",
            Self::DiskFull { .. } | Self::Local { .. } | Self::File { .. } => {
                "Check that the disk has room and that the workspace is writable; removing the workspace makes a fresh clone."
            }
        }
    }

    /// Whether the disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Local { source, .. } => says_disk_full(source),
            Self::DiskFull { .. } => true,
            _ => false,
        }
    }

    /// Whether the same may work a moment later: the remote does not answer, or is busy.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::RemoteBusy { .. } | Self::PushVanished { .. }
        )
    }

    /// Whether the remote is to blame, not the clone.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(
            self,
            Self::NoRepository { .. }
                | Self::Shallow { .. }
                | Self::NoBranch { .. }
                | Self::NameTaken { .. }
                | Self::Credentials { .. }
                | Self::UnknownServer { .. }
                | Self::OtherHostKey { .. }
                | Self::Unreachable { .. }
                | Self::PushUndone { .. }
                | Self::PushVanished { .. }
                | Self::RemoteBusy { .. }
                | Self::Empty { .. }
        )
    }
}

/// libgit2 keeps of the system's error only its words.
pub(super) fn says_disk_full(error: &git2::Error) -> bool {
    ["No space left", "Disk quota exceeded"]
        .iter()
        .any(|words| error.message().contains(words))
}

fn known_branches(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!("; it has {}", known.join(", "))
    }
}
