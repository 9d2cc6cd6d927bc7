//! The list of paths that are being changed: one small file, there only while something is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::WorkTreeError;

/// The paths in the journal; none if there is no journal.
pub(super) fn read(journal: &Path) -> Result<Vec<String>, WorkTreeError> {
    match fs::read(journal) {
        Ok(text) => {
            // A torn journal cannot be: it is renamed into place.
            let mut paths: Vec<String> = serde_json::from_slice(&text)
                .map_err(|error| WorkTreeError::new("read", journal, error.into()))?;
            paths.sort();
            paths.dedup();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(WorkTreeError::new("read", journal, error)),
    }
}

/// Puts `paths` in the journal's place. Not synced: it has to outlive the process, not the machine.
pub(super) fn write(journal: &Path, paths: &BTreeSet<String>) -> Result<(), WorkTreeError> {
    let text = serde_json::to_vec(paths).expect("a list of texts is JSON");
    let beside = journal.with_extension("new");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, journal))
        .map_err(|error| WorkTreeError::new("write", journal, error))
}

/// Nothing is being changed any more.
pub(super) fn clear(journal: &Path) -> Result<(), WorkTreeError> {
    match fs::remove_file(journal) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(WorkTreeError::new("remove", journal, error))
        }
        _ => Ok(()),
    }
}
