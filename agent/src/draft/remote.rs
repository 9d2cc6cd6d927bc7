//! The client's repository: a path on this machine, or a server.
//!
//! A push to a path does not go through libgit2's local transport, which refuses repositories that are not bare. The
//! objects are written into the repository's own store, bottom up, and then the one branch moves by compare-and-set. Neither
//! way runs hooks; a server's hooks run on the server.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use git2::{
    Direction, ErrorClass, ErrorCode, FetchOptions, ObjectType, Oid, PushOptions, RemoteRedirect,
    Repository, RepositoryInitOptions,
};

use super::error::says_disk_full;
use super::janitor::{self, CloneNote, file_error};
use super::{Credentials, Draft, DraftError, Settings};

/// What a server says beside its answer is kept up to here, and one packet more. A receipt shows a part of it.
const SAID_MAX_BYTES: usize = 4096;

/// Where the client's repository is.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// On this machine.
    Local {
        /// Its folder (bare or not).
        path: PathBuf,
    },
    /// On a server.
    Server {
        /// `https://…`, `ssh://…` or `user@host:path`; without a secret in it.
        url: String,
        /// How we prove who we are.
        credentials: Credentials,
    },
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { path } => write!(f, "{}", path.display()),
            Self::Server { url, .. } => f.write_str(url),
        }
    }
}

impl Remote {
    /// Whether `text` names a server, not a path.
    pub(crate) fn is_address(text: &str) -> bool {
        let scp_like = text
            .split_once(':')
            .is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
        scp_like
            || ["https://", "http://", "ssh://", "file://"]
                .iter()
                .any(|scheme| text.starts_with(scheme))
    }

    /// Asks the remote for the tip of a branch without a clone.
    pub(crate) fn ask(&self, branch: &str) -> Result<Oid, DraftError> {
        let failed = |operation: &'static str, source| DraftError::Local {
            operation,
            path: std::env::temp_dir(),
            source,
        };
        let folder = tempfile::tempdir().map_err(|error| {
            file_error("make a folder to ask from in", &std::env::temp_dir(), error)
        })?;
        let asking = Repository::init_bare(folder.path())
            .and_then(|asking| asking.set_config(&git2::Config::new()?).map(|()| asking))
            .map_err(|source| failed("make a repository to ask from in", source))?;
        match self.tip(&asking, branch)? {
            Some(tip) => Ok(tip),
            None => Err(DraftError::NoBranch {
                remote: self.to_string(),
                branch: branch.to_owned(),
                known: self
                    .heads(&asking)?
                    .into_iter()
                    .filter_map(|(name, _)| name.strip_prefix("refs/heads/").map(str::to_owned))
                    .collect(),
            }),
        }
    }

    /// Reads the tip of a branch on the remote itself; none if there is no such branch.
    pub(super) fn tip(&self, clone: &Repository, branch: &str) -> Result<Option<Oid>, DraftError> {
        self.reference_tip(clone, &format!("refs/heads/{branch}"))
    }

    /// Reads where a reference of the remote itself points; none if there is no such reference.
    pub(super) fn reference_tip(
        &self,
        clone: &Repository,
        reference: &str,
    ) -> Result<Option<Oid>, DraftError> {
        match self {
            Self::Local { path } => {
                let remote = self.open_local(path)?;
                reference_target(&remote, reference)
                    .map_err(|source| self.unreachable("read a branch of", source))
            }
            Self::Server { .. } => {
                let references = self.references(clone, reference)?;
                Ok(references
                    .into_iter()
                    .find(|(name, _)| name == reference)
                    .map(|(_, id)| id))
            }
        }
    }

    /// Fetches a reference of the remote into the one of the same name here, and says where it points; none if the remote has
    /// no such reference.
    pub(super) fn fetch_reference(
        &self,
        clone: &Repository,
        reference: &str,
    ) -> Result<Option<Oid>, DraftError> {
        let Some(found) = self.reference_tip(clone, reference)? else {
            return Ok(None);
        };
        let fail = |source| self.unreachable("fetch from", source);
        let mut remote = clone.remote_anonymous(&self.address()?).map_err(fail)?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks())
            .follow_redirects(RemoteRedirect::None)
            .download_tags(git2::AutotagOption::None);
        let refspec = format!("+{reference}:{reference}");
        remote
            .fetch(&[refspec], Some(&mut options), Some("fetch"))
            .map_err(fail)?;
        // It may have moved since.
        Ok(reference_target(clone, reference)
            .map_err(fail)?
            .or(Some(found)))
    }

    /// Fetches the two branches whole into `refs/remotes/origin/*`; what the remote no longer has is forgotten there.
    pub(super) fn fetch(
        &self,
        clone: &Repository,
        published: &str,
        draft: &str,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), DraftError> {
        let fail = |source| self.unreachable("fetch from", source);
        let url = self.address()?;
        let mut remote = clone.remote_anonymous(&url).map_err(fail)?;
        let heads = self.heads(clone)?;
        let mut refspecs = Vec::new();
        for branch in [published, draft] {
            let seen = format!("refs/remotes/origin/{branch}");
            match heads
                .iter()
                .find(|(name, _)| *name == format!("refs/heads/{branch}"))
            {
                Some((name, id)) if reference_target(clone, &seen).map_err(fail)? != Some(*id) => {
                    refspecs.push(format!("+{name}:{seen}"));
                }
                Some(_) => {}
                None => {
                    // Only the draft is a branch that we make.
                    if branch == draft {
                        self.refuse_taken_name(branch, &heads)?;
                    }
                    if let Ok(mut stale) = clone.find_reference(&seen) {
                        stale.delete().map_err(fail)?;
                    }
                }
            }
        }
        if refspecs.is_empty() {
            return Ok(());
        }
        let mut callbacks = self.callbacks();
        callbacks.transfer_progress(move |received| {
            progress(received.received_objects(), received.total_objects());
            true
        });
        let mut options = FetchOptions::new();
        // Never with a depth: a shallow fetch loses the merge base, and with it the rebase.
        options
            .remote_callbacks(callbacks)
            .follow_redirects(RemoteRedirect::None)
            .download_tags(git2::AutotagOption::None);
        remote
            .fetch(&refspecs, Some(&mut options), Some("fetch"))
            .map_err(fail)
    }

    /// Fails if git cannot have `branch` beside a branch that is there: `edit` beside `edit/local`.
    fn refuse_taken_name(&self, branch: &str, heads: &[(String, Oid)]) -> Result<(), DraftError> {
        let below = |one: &str, other: &str| {
            one.strip_prefix(other)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        let taken = heads
            .iter()
            .filter_map(|(name, _)| name.strip_prefix("refs/heads/"))
            .find(|taken| below(branch, taken) || below(taken, branch));
        match taken {
            Some(taken) => Err(DraftError::NameTaken {
                remote: self.to_string(),
                branch: branch.to_owned(),
                taken: taken.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Moves `branch` of the remote from `expected` to `tip`, which the clone has as `source`, never by force. What is returned is why the remote
    /// refused, if it said so; whether the branch did move is a question to [`Remote::tip`] alone.
    pub(super) fn push(
        &self,
        clone: &Repository,
        source: &str,
        branch: &str,
        tip: Oid,
        expected: Option<Oid>,
    ) -> Result<Option<String>, DraftError> {
        self.push_reference(
            clone,
            source,
            &format!("refs/heads/{branch}"),
            tip,
            expected,
        )
    }

    /// As [`Remote::push`], for any reference of the remote.
    pub(super) fn push_reference(
        &self,
        clone: &Repository,
        source: &str,
        reference: &str,
        tip: Oid,
        expected: Option<Oid>,
    ) -> Result<Option<String>, DraftError> {
        match self {
            Self::Local { path } => self.push_local(path, clone, reference, tip, expected),
            Self::Server { url, .. } => {
                self.push_to_server(url, clone, source, reference, expected)
            }
        }
    }

    /// Removes a reference of the remote if it points at `expected`. As with a push, whether it is gone is a question to
    /// [`Remote::reference_tip`] alone.
    pub(super) fn delete_reference(
        &self,
        clone: &Repository,
        reference: &str,
        expected: Oid,
    ) -> Result<Option<String>, DraftError> {
        match self {
            Self::Local { path } => {
                let remote = self.open_local(path)?;
                let delete = || match remote.find_reference(reference) {
                    // libgit2 removes it only where it was found, which is compare-and-set.
                    Ok(mut found) if found.target() == Some(expected) => found.delete(),
                    Ok(_) => Ok(()),
                    Err(error) if error.code() == ErrorCode::NotFound => Ok(()),
                    Err(error) => Err(error),
                };
                let lock = remote.commondir().join(format!("{reference}.lock"));
                janitor::with_noted_lock(clone.path(), &lock, delete)?
                    .map_err(|source| self.unreachable("push to", source))?;
                Ok(None)
            }
            Self::Server { url, .. } => {
                self.push_to_server(url, clone, "", reference, Some(expected))
            }
        }
    }

    /// Fails if the developer looks at the branch in a work tree of theirs: it would move under their hands.
    pub(super) fn refuse_checked_out(&self, branch: &str) -> Result<(), DraftError> {
        let Self::Local { path } = self else {
            return Ok(());
        };
        self.refuse_checked_out_reference(path, &format!("refs/heads/{branch}"))
    }

    fn refuse_checked_out_reference(&self, path: &Path, reference: &str) -> Result<(), DraftError> {
        match checked_out_at(&self.open_local(path)?, reference) {
            Some(place) => Err(DraftError::CheckedOut {
                branch: reference
                    .strip_prefix("refs/heads/")
                    .unwrap_or(reference)
                    .to_owned(),
                place,
            }),
            None => Ok(()),
        }
    }

    fn push_local(
        &self,
        path: &Path,
        clone: &Repository,
        reference: &str,
        tip: Oid,
        expected: Option<Oid>,
    ) -> Result<Option<String>, DraftError> {
        self.refuse_checked_out_reference(path, reference)?;
        let remote = self.open_local(path)?;
        let move_branch = || -> Result<(), git2::Error> {
            match expected {
                Some(expected) => {
                    remote.reference_matching(reference, tip, true, expected, "edit-agent")?
                }
                None => remote.reference(reference, tip, false, "edit-agent")?,
            };
            Ok(())
        };
        let lock = remote.commondir().join(format!("{reference}.lock"));
        let pushed = match write_objects(clone, &remote, tip) {
            Ok(()) => janitor::with_noted_lock(clone.path(), &lock, move_branch)?,
            Err(error) => Err(error),
        };
        match pushed {
            Ok(()) => Ok(None),
            // Somebody was faster; the tip will show it.
            Err(error)
                if matches!(
                    error.code(),
                    ErrorCode::Modified | ErrorCode::Exists | ErrorCode::NotFound
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(self.unreachable("push to", source)),
        }
    }

    fn push_to_server(
        &self,
        url: &str,
        clone: &Repository,
        source: &str,
        reference: &str,
        expected: Option<Oid>,
    ) -> Result<Option<String>, DraftError> {
        let mut refusal = None;
        let mut said = String::new();
        let result = {
            let fail = |source| self.unreachable("push to", source);
            let mut remote = clone.remote_anonymous(url).map_err(fail)?;
            let mut connection = remote
                .connect_auth(Direction::Push, Some(self.callbacks()), None)
                .map_err(fail)?;
            // The push goes through this connection, and the server moves the branch from what it said here or not at all.
            let there = connection.list().map_err(fail)?;
            let there = there.iter().find(|head| head.name() == reference);
            if there.map(git2::RemoteHead::oid) != expected {
                return Ok(None);
            }
            let mut callbacks = self.callbacks();
            // `push` says Ok when the server refuses the branch: only this callback tells.
            callbacks.push_update_reference(|_, status| {
                refusal = status.map(str::to_owned);
                Ok(())
            });
            callbacks.sideband_progress(|text| {
                if said.len() < SAID_MAX_BYTES {
                    said.push_str(&String::from_utf8_lossy(text));
                }
                true
            });
            let mut options = PushOptions::new();
            options
                .remote_callbacks(callbacks)
                .follow_redirects(RemoteRedirect::None);
            connection
                .remote()
                .push(&[format!("{source}:{reference}")], Some(&mut options))
        };
        match result {
            Ok(()) => Ok(refusal.map(|status| explain(&status, &said))),
            Err(error) if error.code() == ErrorCode::NotFastForward => Ok(None),
            Err(source) => Err(self.unreachable("push to", source)),
        }
    }

    /// The branches of the remote and their tips.
    pub(super) fn heads(&self, clone: &Repository) -> Result<Vec<(String, Oid)>, DraftError> {
        self.references(clone, "refs/heads/")
    }

    /// The references of the remote whose names begin so, and where they point.
    pub(super) fn references(
        &self,
        clone: &Repository,
        beginning: &str,
    ) -> Result<Vec<(String, Oid)>, DraftError> {
        if let Self::Local { path } = self {
            let remote = self.open_local(path)?;
            let read = || -> Result<Vec<(String, Oid)>, git2::Error> {
                let mut heads = Vec::new();
                for reference in remote.references_glob(&format!("{beginning}*"))? {
                    let reference = reference?;
                    if let (Ok(name), Some(id)) = (reference.name(), reference.target()) {
                        heads.push((name.to_owned(), id));
                    }
                }
                Ok(heads)
            };
            return read().map_err(|source| self.unreachable("read the branches of", source));
        }
        let fail = |source| self.unreachable("connect to", source);
        let mut remote = clone.remote_anonymous(&self.address()?).map_err(fail)?;
        let connection = remote
            .connect_auth(Direction::Fetch, Some(self.callbacks()), None)
            .map_err(fail)?;
        let heads = connection
            .list()
            .map_err(fail)?
            .iter()
            .filter(|head| head.name().starts_with(beginning))
            .map(|head| (head.name().to_owned(), head.oid()))
            .collect();
        Ok(heads)
    }

    /// The branch that the remote says is its default.
    fn default_branch(&self, clone: &Repository) -> Result<String, DraftError> {
        let name = match self {
            Self::Local { path } => {
                let remote = self.open_local(path)?;
                let head = remote
                    .find_reference("HEAD")
                    .map_err(|source| self.unreachable("read the HEAD of", source))?;
                match head.symbolic_target() {
                    Ok(Some(name)) => name.to_owned(),
                    _ => {
                        return Err(DraftError::NoBranch {
                            remote: self.to_string(),
                            branch: "(its HEAD is detached)".to_owned(),
                            known: self.branch_names(clone)?,
                        });
                    }
                }
            }
            Self::Server { .. } => {
                let fail = |source| self.unreachable("connect to", source);
                let mut remote = clone.remote_anonymous(&self.address()?).map_err(fail)?;
                let connection = remote
                    .connect_auth(Direction::Fetch, Some(self.callbacks()), None)
                    .map_err(fail)?;
                match connection.default_branch() {
                    Ok(name) => name.as_str().unwrap_or_default().to_owned(),
                    Err(_) => {
                        return Err(DraftError::NoBranch {
                            remote: self.to_string(),
                            branch: "(its HEAD names none that is there)".to_owned(),
                            known: self.branch_names(clone)?,
                        });
                    }
                }
            }
        };
        Ok(name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned())
    }

    fn branch_names(&self, clone: &Repository) -> Result<Vec<String>, DraftError> {
        Ok(self
            .heads(clone)?
            .into_iter()
            .filter_map(|(name, _)| name.strip_prefix("refs/heads/").map(str::to_owned))
            .take(20)
            .collect())
    }

    fn callbacks(&self) -> git2::RemoteCallbacks<'_> {
        match self {
            Self::Local { .. } => git2::RemoteCallbacks::new(),
            Self::Server { url, credentials } => credentials.callbacks(url),
        }
    }

    fn address(&self) -> Result<String, DraftError> {
        match self {
            Self::Local { path } => {
                path.to_str()
                    .map(str::to_owned)
                    .ok_or_else(|| DraftError::NoRepository {
                        remote: self.to_string(),
                    })
            }
            Self::Server { url, .. } => Ok(url.clone()),
        }
    }

    fn open_local(&self, path: &Path) -> Result<Repository, DraftError> {
        let repository = Repository::open(path).map_err(|source| match source.code() {
            ErrorCode::NotFound => DraftError::NoRepository {
                remote: self.to_string(),
            },
            _ => self.unreachable("open", source),
        })?;
        if repository.is_shallow() {
            return Err(DraftError::Shallow {
                remote: self.to_string(),
            });
        }
        Ok(repository)
    }

    fn unreachable(&self, operation: &'static str, source: git2::Error) -> DraftError {
        let remote = self.to_string();
        let refused = source.code() == ErrorCode::Auth
            || source.message().contains("status code: 401")
            || source.message().contains("status code: 403");
        if refused
            || (source.class() == ErrorClass::Ssh && source.message().contains("authenticate"))
        {
            return DraftError::Credentials { remote, source };
        }
        if says_disk_full(&source) {
            return DraftError::DiskFull {
                operation,
                remote,
                source,
            };
        }
        if source.code() == ErrorCode::Certificate
            && let Self::Server { credentials, .. } = self
            && let Some(shown) = credentials.refused_host_key()
        {
            return DraftError::OtherHostKey { remote, shown };
        }
        if source.code() == ErrorCode::Certificate {
            return DraftError::UnknownServer { remote, source };
        }
        if source.message().contains("status code: 404") {
            return DraftError::NoRepository { remote };
        }
        DraftError::Unreachable {
            operation,
            remote,
            source,
        }
    }
}

/// Clones into the staging folder and renames: a clone is whole or not there.
pub(super) fn clone_beside(
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Repository, String), DraftError> {
    let beside = settings.staging.join("clone");
    let local = |operation, source| DraftError::Local {
        operation,
        path: beside.clone(),
        source,
    };
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .external_template(false)
        .initial_head(&settings.draft_branch);
    Repository::init_opts(&beside, &options).map_err(|source| local("make the clone", source))?;
    restrict(&beside)?;
    let clone = janitor::open(&beside).map_err(|source| local("open the clone", source))?;

    let remote = &settings.remote;
    let names = remote.branch_names(&clone)?;
    if names.is_empty() {
        return Err(DraftError::Empty {
            remote: remote.to_string(),
        });
    }
    let published = match &settings.published_branch {
        Some(branch) => branch.clone(),
        None => remote.default_branch(&clone)?,
    };
    if !names.contains(&published) {
        return Err(DraftError::NoBranch {
            remote: remote.to_string(),
            branch: published,
            known: names,
        });
    }
    remote.fetch(&clone, &published, &settings.draft_branch, progress)?;
    janitor::write_note(
        &beside,
        &CloneNote {
            remote: remote.to_string(),
            published_branch: published.clone(),
        },
    )?;
    drop(clone);
    fs::rename(&beside, &settings.git_directory)
        .map_err(|error| file_error("put the clone at", &settings.git_directory, error))?;
    let clone =
        janitor::open(&settings.git_directory).map_err(|source| local("open the clone", source))?;
    Ok((clone, published))
}

fn restrict(folder: &Path) -> Result<(), DraftError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
        .map_err(|error| file_error("restrict", folder, error))
}

/// The commit a reference points at; none if there is no such reference.
pub(super) fn reference_target(
    repository: &Repository,
    name: &str,
) -> Result<Option<Oid>, git2::Error> {
    match repository.refname_to_id(name) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes everything into `to` that `tip` needs and the branches of `to` do not have, bottom up: a reader of `to`
/// never finds an object whose parts are missing.
fn write_objects(from: &Repository, to: &Repository, tip: Oid) -> Result<(), git2::Error> {
    let mut walk = from.revwalk()?;
    walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::REVERSE)?;
    walk.push(tip)?;
    for reference in to.references_glob("refs/heads/*")? {
        if let Some(id) = reference?.target()
            && from.find_commit(id).is_ok()
        {
            walk.hide(id)?;
        }
    }
    let (source, target) = (from.odb()?, to.odb()?);
    for id in walk {
        let commit = from.find_commit(id?)?;
        let base = match commit.parent(0) {
            Ok(parent) => Some(parent.tree()?),
            Err(_) => None,
        };
        write_tree(from, &source, &target, &commit.tree()?, base.as_ref())?;
        copy_object(&source, &target, commit.id())?;
    }
    Ok(())
}

fn write_tree(
    from: &Repository,
    source: &git2::Odb<'_>,
    target: &git2::Odb<'_>,
    tree: &git2::Tree<'_>,
    base: Option<&git2::Tree<'_>>,
) -> Result<(), git2::Error> {
    for entry in tree {
        let known = base.and_then(|base| {
            base.get_name_bytes(entry.name_bytes())
                .map(|entry| entry.id())
        });
        if known == Some(entry.id()) {
            continue;
        }
        match entry.kind() {
            Some(ObjectType::Tree) => {
                let below = known.and_then(|id| from.find_tree(id).ok());
                write_tree(
                    from,
                    source,
                    target,
                    &from.find_tree(entry.id())?,
                    below.as_ref(),
                )?;
            }
            Some(ObjectType::Blob) => copy_object(source, target, entry.id())?,
            // A submodule's commit lives in another repository.
            _ => {}
        }
    }
    copy_object(source, target, tree.id())
}

fn copy_object(source: &git2::Odb<'_>, target: &git2::Odb<'_>, id: Oid) -> Result<(), git2::Error> {
    let object = source.read(id)?;
    target.write(object.kind(), object.data()).map(drop)
}

/// Where `reference` is checked out, in the repository's own work tree or any other of its work trees.
fn checked_out_at(repository: &Repository, reference: &str) -> Option<PathBuf> {
    let head_is = |head: &Path| {
        fs::read_to_string(head)
            .is_ok_and(|text| text.trim().strip_prefix("ref: ") == Some(reference))
    };
    let common = repository.commondir();
    // What was named may itself be a linked work tree; the main one is that of the common directory.
    if let Ok(main) = Repository::open(common)
        && let Some(place) = main.workdir()
        && head_is(&common.join("HEAD"))
    {
        return Some(place.to_owned());
    }
    for worktree in fs::read_dir(common.join("worktrees")).ok()?.flatten() {
        if head_is(&worktree.path().join("HEAD")) {
            let link = fs::read_to_string(worktree.path().join("gitdir")).unwrap_or_default();
            return Some(
                Path::new(link.trim())
                    .parent()
                    .map_or_else(|| worktree.path(), Path::to_owned),
            );
        }
    }
    None
}

/// Whether a refusal speaks of the server's own trouble, not of the commit. These are git's own words: for somebody else's
/// lock on the branch, and for a disk that is full there.
pub(super) fn may_pass(refusal: &str) -> bool {
    ["failed to update ref", "cannot lock ref", "unpacker error"]
        .iter()
        .any(|words| refusal.contains(words))
}

/// The server's status and what it said beside it, in one bounded line.
fn explain(status: &str, said: &str) -> String {
    let said: String = said
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(1000)
        .collect();
    let said = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" / ");
    if said.is_empty() {
        status.to_owned()
    } else {
        format!("{status}: {said}")
    }
}

impl Draft {
    /// The remote's address, for people.
    pub(crate) fn remote_name(&self) -> String {
        self.remote.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_server_that_says_nothing_is_waited_for_no_longer_than_the_limit() {
        // The limits are the whole process's. No other unit test asks a server.
        let limit = Duration::from_millis(200);
        crate::draft::set_time_limits(limit, limit).expect("set");
        // Nobody accepts: the kernel takes the connection, and that is all.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = silent.local_addr().expect("bound");
        let secret = Credentials::Secret("token".to_owned());
        for url in [
            format!("http://{address}/amelia.git"),
            format!("ssh://git@{address}/amelia.git"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let settings = Settings {
                git_directory: folder.path().join("draft.git"),
                staging: folder.path().join("staging"),
                remote: Remote::Server {
                    url: url.clone(),
                    credentials: secret.clone(),
                },
                published_branch: None,
                draft_branch: "edit/local".to_owned(),
                site_root: String::new(),
                offline: false,
            };
            let (sender, receiver) = mpsc::channel();
            std::thread::spawn(move || {
                let opened = Draft::open(&settings, &mut |_, _| ());
                sender.send(opened.map(drop)).ok();
            });
            let opened = receiver
                .recv_timeout(Duration::from_secs(30))
                .expect("the limit ends it");
            let error = opened.expect_err("there is no answer");
            assert!(
                matches!(error, DraftError::Unreachable { .. }),
                "{url}: {error:?}"
            );
            assert!(!folder.path().join("draft.git").exists());
        }
    }

    #[test]
    fn only_the_servers_own_trouble_may_pass() {
        for (refusal, expected) in [
            ("failed to update ref", true),
            ("unpacker error", true),
            ("pre-receive hook declined: no", false),
            ("protected branch hook declined", false),
        ] {
            assert_eq!(may_pass(refusal), expected, "{refusal}");
        }
    }
}
