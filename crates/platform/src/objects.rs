//! The port to a folder of objects.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::Result;

/// The longest key: S3's.
pub const KEY_MAX_BYTES: usize = 1024;

/// Objects by their key: photos that do not fit a message, bundles of work that could not be pushed.
#[async_trait]
pub trait Objects: Send + Sync + Debug {
    /// The object, whole; `None` if there is none.
    ///
    /// Errors: `Refused` for a key that [`check_key`] refuses, and when the object has more than `max_bytes`, of which
    /// then no more than that is read.
    async fn get(&self, key: &str, max_bytes: u64) -> Result<Option<Vec<u8>>>;

    /// Puts an object in place of the one that was there, if any. Who reads meanwhile gets the one or the other, whole.
    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()>;

    /// Removes an object. That there is none is no error.
    async fn delete(&self, key: &str) -> Result<()>;
}

/// Whether every backend takes the key; if not, what is wrong with it.
///
/// A key is 1 to [`KEY_MAX_BYTES`] bytes of UTF-8 without control characters and backslashes: names between single
/// slashes, none of which is `.` or `..`. So it is the path of a file below any folder, and an address as it stands.
pub fn check_key(key: &str) -> std::result::Result<(), String> {
    if key.is_empty() || key.len() > KEY_MAX_BYTES {
        return Err(format!(
            "a key has 1 to {KEY_MAX_BYTES} bytes, not {}",
            key.len()
        ));
    }
    if key.chars().any(|c| c.is_control() || c == '\\') {
        return Err("a key has no control characters and no backslashes".to_owned());
    }
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255;
    if !key.split('/').all(is_name) {
        return Err(
            "a key is made of names between single slashes, none of them `.` or `..`".to_owned(),
        );
    }
    Ok(())
}
