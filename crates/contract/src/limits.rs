//! Limits of messages: name, default, reason. Hitting one is a clear error that names it.

/// Bytes of one message: SQS's historic ceiling, which every queue takes. Larger content goes by `contentUrl`.
pub const MESSAGE_MAX_BYTES: usize = 256 * 1024;
/// Changes of one `edit`: more is an import, which belongs into a commit of a developer.
pub const CHANGES_MAX: usize = 200;
/// Files that one instruction may touch, patches included.
pub const FILES_MAX: usize = 500;
/// Bytes of one file that an instruction writes: what common forges take without complaint.
pub const FILE_MAX_BYTES: usize = 20 * 1024 * 1024;
/// Bytes of all files that one instruction writes.
pub const CHANGE_SET_MAX_BYTES: usize = 50 * 1024 * 1024;
/// Bytes of a prompt's text.
pub const PROMPT_MAX_BYTES: usize = 64 * 1024;
/// Attachments of a prompt.
pub const ATTACHMENTS_MAX: usize = 20;
/// Bytes of an attachment's name: what every file system takes.
pub const ATTACHMENT_NAME_MAX_BYTES: usize = 255;
/// Bytes of the producer's name for a person.
pub const USER_ID_MAX_BYTES: usize = 256;
/// Bytes of an author's name: it stands in every commit.
pub const AUTHOR_NAME_MAX_BYTES: usize = 200;
/// Bytes of an author's address: the longest that mail can be sent to.
pub const AUTHOR_EMAIL_MAX_BYTES: usize = 254;
/// Occurrences that a `replace` may expect: more is a job for a developer's script.
pub const EXPECT_MAX: u32 = 10_000;
/// Bytes of a front matter key, dots included.
pub const KEY_MAX_BYTES: usize = 200;
/// Bytes of a `contentUrl`: a presigned one with a session token has some 2,000.
pub const CONTENT_URL_MAX_BYTES: usize = 4096;
/// Problems listed of one message: enough to mend it, and a bound on what a hostile one costs.
pub const PROBLEMS_MAX: usize = 100;
/// Instructions of one call to the door.
pub const INSTRUCTIONS_PER_CALL_MAX: usize = 500;
/// Instructions that wait in one session's queue before the door refuses more.
pub const QUEUE_DEPTH_MAX: usize = 1000;
