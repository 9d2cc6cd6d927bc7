//! A folder of objects.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::error::without_session_ids;
use crate::{Objects, PortError, Result, check_key};

/// Objects as files of a folder, which is made when the first one is put. The files are readable by their owner alone:
/// they are work that is not published.
///
/// A key is the path of its file. So where S3 keeps both `a` and `a/b`, here the second one is refused.
#[derive(Debug, Clone)]
pub struct LocalObjects {
    folder: PathBuf,
}

impl LocalObjects {
    /// The objects below `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Path) -> std::result::Result<T, Why> + Send + 'static,
    ) -> Result<T> {
        let shown = without_session_ids(key, None);
        let thing = format!("object {shown} of folder {}", self.folder.display());
        if let Err(reason) = check_key(key) {
            return Err(PortError::Refused {
                operation,
                thing,
                reason,
            });
        }
        let path = self.folder.join(key);
        let done = tokio::task::spawn_blocking(move || work(&path)).await;
        let why = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(why)) => why,
            Err(error) => Why::Files(io::Error::other(error)),
        };
        Err(match why {
            Why::Refused(reason) => PortError::Refused {
                operation,
                thing,
                reason,
            },
            Why::Files(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                PortError::Refused {
                    operation,
                    thing,
                    reason: error.to_string(),
                }
            }
            Why::Files(error) => PortError::Unavailable {
                operation,
                thing,
                source: Box::new(error),
            },
        })
    }
}

enum Why {
    Refused(String),
    Files(io::Error),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty => Self::Refused(
                "an object and a folder of objects cannot have one name: choose another key"
                    .to_owned(),
            ),
            _ => Self::Files(error),
        }
    }
}

/// Whether nothing is there under that name.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

#[async_trait]
impl Objects for LocalObjects {
    async fn get(&self, key: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        self.run("read", key, move |path| {
            let file = match fs::File::open(path) {
                Ok(file) if file.metadata()?.is_dir() => return Ok(None),
                Ok(file) => file,
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let mut bytes = Vec::new();
            file.take(max_bytes.saturating_add(1))
                .read_to_end(&mut bytes)?;
            if u64::try_from(bytes.len()).is_ok_and(|length| length > max_bytes) {
                return Err(Why::Refused(format!("it has more than {max_bytes} bytes")));
            }
            Ok(Some(bytes))
        })
        .await
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let folder = self.folder.clone();
        self.run("write", key, move |path| {
            let above = path.parent().unwrap_or(&folder);
            fs::create_dir_all(above)?;
            // Written beside and then renamed: who reads meanwhile reads the whole old one.
            let beside = folder.join(unfinished_name());
            let written = write(&beside, &bytes).and_then(|()| fs::rename(&beside, path));
            if written.is_err() {
                drop(fs::remove_file(&beside));
            }
            Ok(written?)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.run("delete", key, |path| match fs::remove_file(path) {
            Err(error) if !is_absent(&error) => Err(error.into()),
            _ => Ok(()),
        })
        .await
    }
}

/// A name that no key has, because a key has no backslash.
fn unfinished_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(".unfinished\\{}\\{number}", std::process::id())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    // The bytes before the name: after a power cut an object is there whole, or not at all.
    file.sync_all()
}
