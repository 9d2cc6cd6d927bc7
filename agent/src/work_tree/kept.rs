//! The files that were made by hand and are on their way into a commit: one small file beside the journal, there only while
//! such a commit is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{WorkTreeError, journal};

fn beside(journal: &Path) -> PathBuf {
    journal.with_file_name("kept.json")
}

/// The files that are kept.
pub(super) fn read(journal: &Path) -> Result<BTreeSet<String>, WorkTreeError> {
    Ok(journal::read(&beside(journal))?.into_iter().collect())
}

/// Makes these the files that are kept.
pub(super) fn write(journal: &Path, paths: &BTreeSet<String>) -> Result<(), WorkTreeError> {
    let beside = beside(journal);
    if paths.is_empty() {
        journal::clear(&beside)
    } else {
        journal::write(&beside, paths)
    }
}
