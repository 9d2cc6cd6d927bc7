//! The contract between everything that talks about an edit environment: ids, records, messages and their JSON Schema.
//!
//! This crate is pure. It does no I/O and knows nothing of AWS, git or HTTP, so that its rules can be tested by the
//! thousand and read by a producer in any language through the schemas under `schema/`.
//!
//! Reading order: [`instruction`] (what a producer sends), [`receipt`] (what became of it), [`session`] (who may act),
//! [`client_config`] (what a client is allowed), [`limits`] (how much of everything).

mod canonical;
mod reader;

pub mod client_config;
pub mod id;
pub mod instruction;
pub mod limits;
pub mod problem;
pub mod proof;
pub mod receipt;
pub mod schema;
pub mod session;
pub mod site_path;
pub mod timestamp;

pub use client_config::ClientConfig;
pub use id::{BlobId, ClientId, CommitId, Generation, IdError, InstructionId, SessionId, ThreadId};
pub use instruction::{Action, Change, Instruction};
pub use problem::{Problem, Problems};
pub use receipt::{
    Conflict, ErrorCode, PageProblem, PageResult, Party, Receipt, ReceiptError, Status, Verdict,
};
pub use schema::SchemaName;
pub use session::Session;
pub use site_path::SitePath;
pub use timestamp::Timestamp;
