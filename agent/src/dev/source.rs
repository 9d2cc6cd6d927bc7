//! What the developer named: a repository here, a plain folder, or an address.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{IndexAddOption, Repository, RepositoryInitOptions, Signature};

use super::home::Home;
use crate::cli::ImportArguments;
use crate::draft::{self, COMMITTER, Credentials, Remote};
use crate::failure::{Exit, Failure};

/// What an import is committed to.
const IMPORT_BRANCH: &str = "main";

/// What was named.
#[derive(Debug)]
pub(super) enum Source {
    /// A repository of its own on this machine.
    Repository { path: PathBuf },
    /// A folder that is no repository of its own.
    Folder {
        path: PathBuf,
        inside: Option<PathBuf>,
    },
    /// A repository on a server.
    Address {
        url: String,
        credentials: Credentials,
    },
}

/// The remote that instructions are pushed to.
#[derive(Debug)]
pub(super) struct Imported {
    pub(super) remote: Remote,
    /// What was done, in words.
    pub(super) note: Option<String>,
}

impl Source {
    /// Finds out what `text` names.
    pub(super) fn find(
        text: &str,
        deploy_key: Option<&str>,
        host_keys: &[String],
    ) -> Result<Self, Failure> {
        if Remote::is_address(text) && !text.starts_with("file://") {
            let credentials = match deploy_key {
                Some(reference) => Credentials::resolve(reference)
                    .map_err(|error| {
                        Failure::new(
                            Exit::Remote,
                            error.to_string(),
                            "Name a readable file or a set variable: file:PATH or env:NAME.",
                        )
                    })?
                    .known_by(host_keys.to_vec()),
                None => Credentials::Ambient,
            };
            let secret = text.split_once("://").is_some_and(|(_, rest)| {
                rest.split('/').next().is_some_and(|authority| {
                    authority
                        .split_once('@')
                        .is_some_and(|(user, _)| user.contains(':'))
                })
            });
            if secret {
                return Err(Failure::new(
                    Exit::Usage,
                    "the address has a password in it",
                    "Take it out, and name it with --deploy-key env:NAME or file:PATH: an address is shown and logged.",
                ));
            }
            return Ok(Self::Address {
                url: text.to_owned(),
                credentials,
            });
        }
        let named = Path::new(text.strip_prefix("file://").unwrap_or(text));
        let path = fs::canonicalize(named).map_err(|error| {
            Failure::new(
                Exit::Repository,
                format!("could not open {}: {error}", named.display()),
                "Name a folder with an Astro site, or the address of a repository.",
            )
        })?;
        if !path.is_dir() {
            return Err(Failure::new(
                Exit::Repository,
                format!("{} is a file", path.display()),
                "Name the folder of the site.",
            ));
        }
        match Repository::open(&path) {
            Ok(_) => Ok(Self::Repository { path }),
            Err(error) if error.code() == git2::ErrorCode::NotFound => {
                let inside = Repository::discover(&path)
                    .ok()
                    .and_then(|found| found.workdir().map(Path::to_owned));
                Ok(Self::Folder { path, inside })
            }
            Err(error) => Err(Failure::new(
                Exit::Repository,
                format!(
                    "the repository {} cannot be opened: {}",
                    path.display(),
                    error.message()
                ),
                "Check it with `git status` there.",
            )),
        }
    }

    /// What tells this source from every other.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Repository { path } | Self::Folder { path, .. } => path.display().to_string(),
            Self::Address { url, .. } => url.clone(),
        }
    }

    /// The folder, if it is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Repository { path } | Self::Folder { path, .. } => Some(path),
            Self::Address { .. } => None,
        }
    }

    /// Its name in lower-case letters, digits and dashes: at most 24, at least 2, as a client id.
    pub(super) fn slug(&self) -> String {
        let identity = self.identity();
        let name = identity
            .trim_end_matches('/')
            .rsplit(['/', ':'])
            .next()
            .unwrap_or_default()
            .trim_end_matches(".git");
        let mut slug = String::new();
        for c in name.to_lowercase().chars() {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        let slug = slug.chars().take(24).collect::<String>();
        let slug = slug.trim_matches('-');
        if slug.len() < 2 {
            "site".to_owned()
        } else {
            slug.to_owned()
        }
    }

    /// The remote; a folder that is none is imported first.
    pub(super) async fn import(
        &self,
        home: &Home,
        branch: Option<&str>,
    ) -> Result<Imported, Failure> {
        let (path, inside) = match self {
            Self::Repository { path } => {
                return Ok(Imported {
                    remote: Remote::Local { path: path.clone() },
                    note: None,
                });
            }
            Self::Address { url, credentials } => {
                return Ok(Imported {
                    remote: Remote::Server {
                        url: url.clone(),
                        credentials: credentials.clone(),
                    },
                    note: None,
                });
            }
            Self::Folder { path, inside } => (path.clone(), inside.clone()),
        };
        if let Some(branch) = branch.filter(|branch| *branch != IMPORT_BRANCH) {
            return Err(Failure::new(
                Exit::Repository,
                format!(
                    "{} is a plain folder and has no branch {branch}",
                    path.display()
                ),
                "Leave out --branch, or name a repository.",
            ));
        }
        if !path.join("package.json").is_file() {
            let error = crate::site::SiteError::NoAstro { root: path };
            return Err(error.into());
        }
        let target = home.folder.join("import.git");
        let from = path.clone();
        let into = target.clone();
        let imported = tokio::task::spawn_blocking(move || import(&from, &into))
            .await
            .map_err(|error| Failure::internal("import the folder", &error))?;
        imported.map_err(|error| {
            Failure::new(
                Exit::Storage,
                format!("could not import {}: {}", path.display(), error.message()),
                "Check that its files can be read and that the disk has room.",
            )
        })?;
        let why = match inside {
            Some(repository) => format!("inside the repository {}", repository.display()),
            None => "not a repository".to_owned(),
        };
        Ok(Imported {
            remote: Remote::Local {
                path: target.clone(),
            },
            note: Some(format!(
                "{} is {why}; imported into {}",
                path.display(),
                target.display()
            )),
        })
    }
}

/// What `edit-agent import` does: a repository of its own for a plain folder, made once. One that is there is left as it is: what
/// was published into it is worth more than what the folder says by now.
pub(crate) async fn import_once(arguments: ImportArguments) -> Result<Exit, Failure> {
    let ImportArguments { folder, repository } = arguments;
    if repository.exists() {
        return match Repository::open_bare(&repository) {
            Ok(_) => Ok(Exit::Success),
            Err(error) => Err(Failure::new(
                Exit::Storage,
                format!(
                    "{} is there and is no bare repository: {}",
                    repository.display(),
                    error.message()
                ),
                "Name another one, or remove it.",
            )),
        };
    }
    let from = fs::canonicalize(&folder).map_err(|error| {
        Failure::new(
            Exit::Repository,
            format!("could not open {}: {error}", folder.display()),
            "Name the folder of an Astro site.",
        )
    })?;
    if !from.join("package.json").is_file() {
        return Err(crate::site::SiteError::NoAstro { root: from }.into());
    }
    if let Some(parent) = repository.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::storage("make", parent, &error))?;
    }
    let imported = tokio::task::spawn_blocking(move || import(&from, &repository))
        .await
        .map_err(|error| Failure::internal("import the folder", &error))?;
    imported.map_err(|error| {
        Failure::new(
            Exit::Storage,
            format!("could not import {}: {}", folder.display(), error.message()),
            "Check that its files can be read and that the disk has room.",
        )
    })?;
    Ok(Exit::Success)
}

/// Commits the folder as it is to a bare repository, if it differs from what was imported before. What git would ignore
/// is left out.
fn import(folder: &Path, target: &Path) -> Result<(), git2::Error> {
    if !target.exists() {
        // Beside and renamed: half an import would be taken for a whole one.
        let beside = target.with_extension("incoming");
        match fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file_error(&error));
            }
            _ => {}
        }
        let mut options = RepositoryInitOptions::new();
        options
            .bare(true)
            .external_template(false)
            .initial_head(IMPORT_BRANCH);
        let repository = Repository::init_opts(&beside, &options)?;
        snapshot(&repository, folder)?;
        drop(repository);
        return fs::rename(&beside, target).map_err(|error| file_error(&error));
    }
    // The environment's lock is ours, so whoever locked anything here is dead.
    draft::remove_stale_locks(target).map_err(|error| git2::Error::from_str(&error.to_string()))?;
    snapshot(&Repository::open_bare(target)?, folder)
}

fn snapshot(repository: &Repository, folder: &Path) -> Result<(), git2::Error> {
    repository.set_config(&git2::Config::new()?)?;
    repository.set_workdir(folder, false)?;
    let mut index = git2::Index::new()?;
    repository.set_index(&mut index)?;
    let mut own = |path: &Path, _: &[u8]| {
        i32::from(
            path.components()
                .any(|part| matches!(part.as_os_str().to_str(), Some("node_modules" | ".git"))),
        )
    };
    index.add_all(["*"], IndexAddOption::DEFAULT, Some(&mut own))?;
    let tree = repository.find_tree(index.write_tree_to(repository)?)?;
    let reference = format!("refs/heads/{IMPORT_BRANCH}");
    let parent = match repository.refname_to_id(&reference) {
        Ok(id) => Some(repository.find_commit(id)?),
        Err(error) if error.code() == git2::ErrorCode::NotFound => None,
        Err(error) => return Err(error),
    };
    if parent
        .as_ref()
        .is_some_and(|parent| parent.tree_id() == tree.id())
    {
        return Ok(());
    }
    let signature = Signature::now(COMMITTER.0, COMMITTER.1)?;
    let message = format!(
        "Import {}",
        folder.file_name().unwrap_or_default().to_string_lossy()
    );
    repository
        .commit(
            Some(&reference),
            &signature,
            &signature,
            &message,
            &tree,
            &parent.iter().collect::<Vec<_>>(),
        )
        .map(drop)
}

fn file_error(error: &std::io::Error) -> git2::Error {
    git2::Error::new(
        git2::ErrorCode::GenericError,
        git2::ErrorClass::Os,
        error.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_name_that_can_be_a_client() {
        for (identity, slug) in [
            ("/home/anna/sites/Amelia Stamps", "amelia-stamps"),
            ("git@example.com:anna/amelia.git", "amelia"),
            ("https://example.com/x/", "site"),
            (
                "/srv/--odd--name--that-is-far-too-long-for-one",
                "odd-name-that-is-far-too",
            ),
        ] {
            let source = Source::Address {
                url: identity.to_owned(),
                credentials: Credentials::Ambient,
            };
            assert_eq!(source.slug(), slug, "{identity}");
            assert!(source.slug().parse::<contract::ClientId>().is_ok());
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let failure =
            Source::find("https://anna:hunter2@example.com/x.git", None, &[]).expect_err("refused");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.to_string().contains("hunter2"));
    }

    #[test]
    fn a_folder_is_imported_without_what_git_ignores_and_again_only_if_it_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let site = folder.path().join("site");
        fs::create_dir_all(site.join("node_modules/x")).expect("made");
        fs::create_dir_all(site.join("dist")).expect("made");
        for (path, text) in [
            ("package.json", "{}"),
            (".gitignore", "dist\n"),
            ("dist/x", "x"),
            ("node_modules/x/y", "y"),
        ] {
            fs::write(site.join(path), text).expect("written");
        }
        let target = folder.path().join("import.git");
        let tip = || {
            Repository::open_bare(&target)
                .expect("open")
                .refname_to_id("refs/heads/main")
                .expect("a tip")
        };
        import(&site, &target).expect("imported");
        let first = tip();
        let repository = Repository::open_bare(&target).expect("open");
        let tree = repository
            .find_commit(first)
            .and_then(|commit| commit.tree())
            .expect("a tree");
        let names: Vec<String> = tree
            .iter()
            .map(|entry| entry.name().expect("text").to_owned())
            .collect();
        assert_eq!(names, [".gitignore", "package.json"]);
        import(&site, &target).expect("again");
        assert_eq!(tip(), first);
        fs::write(site.join("package.json"), "{ }").expect("written");
        // A crash in the middle of the next import.
        fs::write(target.join("refs/heads/main.lock"), "").expect("written");
        import(&site, &target).expect("again");
        assert_ne!(tip(), first);
    }
}
