//! A tree in a map, for tests.

use std::collections::BTreeMap;

use contract::{BlobId, SitePath};

use super::{Entry, File, Tree, TreeError};

/// Files by path, and the content of every version that there ever was.
#[derive(Debug, Default)]
pub(super) struct MapTree {
    entries: BTreeMap<String, Entry>,
    blobs: BTreeMap<BlobId, Vec<u8>>,
    /// A path at which reading fails.
    unreadable: Option<&'static str>,
}

impl MapTree {
    /// Ordinary files.
    pub(super) fn of(files: &[(&str, &[u8])]) -> Self {
        files.iter().fold(Self::default(), |tree, (path, content)| {
            tree.with(path, content, false)
        })
    }

    /// With another file; one that was at the path stays known as a version.
    pub(super) fn with(mut self, path: &str, content: &[u8], executable: bool) -> Self {
        let blob = blob_id(content);
        self.blobs.insert(blob.clone(), content.to_vec());
        let file = File {
            content: content.to_vec(),
            executable,
            blob,
        };
        self.entries.insert(path.to_owned(), Entry::File(file));
        self
    }

    /// With something that is no ordinary file.
    pub(super) fn with_entry(mut self, path: &str, entry: Entry) -> Self {
        self.entries.insert(path.to_owned(), entry);
        self
    }

    /// That cannot be read at a path.
    pub(super) fn unreadable_at(mut self, path: &'static str) -> Self {
        self.unreadable = Some(path);
        self
    }
}

impl Tree for MapTree {
    fn file(&self, path: &SitePath) -> Result<Option<Entry>, TreeError> {
        if self.unreadable == Some(path.as_str()) {
            return Err(TreeError("the object is missing".to_owned()));
        }
        Ok(self.entries.get(path.as_str()).cloned())
    }

    fn blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, TreeError> {
        Ok(self.blobs.get(id).cloned())
    }

    fn is_directory(&self, path: &SitePath) -> Result<bool, TreeError> {
        let folder = format!("{path}/");
        Ok(self.entries.keys().any(|path| path.starts_with(&folder)))
    }
}

/// An id that differs where contents differ. It need not be git's.
pub(super) fn blob_id(content: &[u8]) -> BlobId {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{hash:040x}")
        .parse()
        .expect("forty hexadecimal digits")
}
