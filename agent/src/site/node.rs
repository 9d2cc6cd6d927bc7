//! Which Node runs the site, and whether the site's Astro takes it.

use std::fs;
use std::path::{Path, PathBuf};

use semver::{Comparator, Op, Version, VersionReq};
use serde::Deserialize;

use super::SiteError;
use super::process::{Program, find};
use crate::isolation::{Isolation, Role, folders};

/// A Node.js that runs.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its version.
    pub(crate) version: Version,
    /// As whom it and the package managers run.
    pub(crate) isolation: Isolation,
}

/// Bytes of a `package.json`.
pub(crate) const MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// How long Node may take to say which one it is.
const VERSION_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(20);

impl Node {
    /// Finds Node and asks for its version. `wanted` is a program named by the user; else it is looked for in `PATH`.
    pub(crate) async fn find(
        wanted: Option<&Path>,
        isolation: Isolation,
    ) -> Result<Self, SiteError> {
        let path = match wanted {
            Some(path) => fs::canonicalize(path).map_err(|source| SiteError::NoNode {
                looked: path.display().to_string(),
                source: Some(source),
            })?,
            None => find("node").ok_or(SiteError::NoNode {
                looked: "PATH".to_owned(),
                source: None,
            })?,
        };
        let failed = |source| SiteError::NoNode {
            looked: path.display().to_string(),
            source: Some(source),
        };
        // It needs nothing of ours, and some of ours is a secret.
        let variables = [("PATH".into(), std::env::var_os("PATH").unwrap_or_default())];
        let (program, words, variables) =
            isolation.confined(Role::Tool, &path, &["--version".into()], variables.into());
        let asked = tokio::process::Command::new(program)
            .args(words)
            .env_clear()
            .envs(variables)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(VERSION_TIME_MAX, asked)
            .await
            .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        let text = String::from_utf8_lossy(&output.stdout);
        match Version::parse(text.trim().trim_start_matches('v')) {
            Ok(version) => Ok(Self {
                path,
                version,
                isolation,
            }),
            Err(_) => Err(SiteError::NoNode {
                looked: format!("{} (which does not say its version)", path.display()),
                source: None,
            }),
        }
    }

    /// The program with its own folder first in `PATH`, so that whatever it starts finds the same Node.
    pub(crate) fn program(&self, role: Role, directory: &Path) -> Program {
        Program::new(&self.path, directory)
            .variable("PATH", self.search_path())
            .confined(&self.isolation, role)
    }

    /// `PATH` with this Node's folder first.
    pub(crate) fn search_path(&self) -> String {
        let own = self
            .path
            .parent()
            .map(|folder| folder.display().to_string())
            .unwrap_or_default();
        format!("{own}:{}", std::env::var("PATH").unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
    #[serde(default)]
    engines: Engines,
}

#[derive(Default, Deserialize)]
struct Engines {
    node: Option<String>,
}

/// The version of the site's installed Astro; none if it is not installed.
pub(crate) fn astro_version(site_root: &Path) -> Option<String> {
    read_manifest(site_root).map(|manifest| manifest.version)
}

/// Checks that the site's installed Astro takes this Node. What it asks for is said, not guessed.
pub(crate) fn check(site_root: &Path, node: &Node) -> Result<(), SiteError> {
    let Some(manifest) = read_manifest(site_root) else {
        return Ok(());
    };
    match &manifest.engines.node {
        Some(range) if !admits(range, &node.version) => Err(SiteError::NodeTooOld {
            astro: manifest.version,
            needed: range.clone(),
            found: node.version.to_string(),
            at: node.path.clone(),
        }),
        _ => Ok(()),
    }
}

fn read_manifest(site_root: &Path) -> Option<Manifest> {
    let path = site_root.join("node_modules/astro/package.json");
    serde_json::from_slice(&folders::read_small(&path, MANIFEST_MAX_BYTES).ok()?).ok()
}

/// Whether npm's version range admits a version. A part that cannot be read admits everything: it is better to try.
fn admits(range: &str, version: &Version) -> bool {
    range
        .split("||")
        .any(|part| requirement(part).is_none_or(|requirement| requirement.matches(version)))
}

/// npm separates comparators by spaces, and a bare version means exactly that one.
fn requirement(part: &str) -> Option<VersionReq> {
    let part = part
        .replace(">= ", ">=")
        .replace("> ", ">")
        .replace("<= ", "<=")
        .replace("< ", "<");
    let mut comparators = Vec::new();
    for word in part.split_whitespace() {
        let bare = word.starts_with(|c: char| c.is_ascii_digit());
        let mut comparator = Comparator::parse(word).ok()?;
        if bare && comparator.patch.is_some() {
            comparator.op = Op::Exact;
        } else if bare {
            comparator.op = Op::Tilde;
        }
        comparators.push(comparator);
    }
    Some(VersionReq { comparators })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npms_ranges_are_read_as_npm_does() {
        let version = |text| Version::parse(text).expect("a version");
        let astro5 = "18.20.8 || ^20.3.0 || >=22.0.0";
        for (range, admitted, refused) in [
            (
                astro5,
                &["18.20.8", "20.20.2", "22.0.0", "26.1.0"][..],
                &["18.20.4", "18.21.0", "20.2.9", "21.0.0"][..],
            ),
            (">=22.12.0", &["22.12.0", "24.0.0"], &["20.20.2", "22.11.9"]),
            (">= 18 <23", &["18.0.0", "22.99.0"], &["17.9.0", "23.0.0"]),
            ("20", &["20.1.0"], &["21.0.0"]),
            ("*", &["1.0.0"], &[]),
        ] {
            for text in admitted {
                assert!(admits(range, &version(text)), "{range} {text}");
            }
            for text in refused {
                assert!(!admits(range, &version(text)), "{range} {text}");
            }
        }
    }
}
