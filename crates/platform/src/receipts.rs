//! The port to the receipts.

use std::fmt::Debug;

use async_trait::async_trait;
use contract::{ClientId, InstructionId, Receipt, SessionId};

use crate::Result;

/// What became of each instruction.
#[async_trait]
pub trait Receipts: Send + Sync + Debug {
    /// The receipt of an instruction of a session, as it was last put.
    async fn get(
        &self,
        session: &SessionId,
        instruction: &InstructionId,
    ) -> Result<Option<Receipt>>;

    /// The receipt of an instruction of a client, in whichever session: the one with the latest `accepted_at` if
    /// several sessions used the id. Answered from an index that may lag behind a `put` by about a second.
    async fn find(&self, client: &ClientId, instruction: &InstructionId)
    -> Result<Option<Receipt>>;

    /// Writes a receipt, unless a final one with other content stands in its place. Of several writers at once,
    /// exactly one gets its final receipt in.
    async fn put(&self, receipt: &Receipt) -> Result<Put>;

    /// The latest receipts of a session by `accepted_at`, newest first, at most `limit`.
    async fn recent(&self, session: &SessionId, limit: usize) -> Result<Vec<Receipt>>;
}

/// What became of a receipt that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is looked at once and never kept by the thousand"
)]
pub enum Put {
    /// It stands, now or (with the same content) already before.
    Written,
    /// This final receipt stood before and still does.
    FinalStands(Receipt),
}
