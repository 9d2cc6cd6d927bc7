//! The client's own queue for final receipts.

use std::sync::Arc;
use std::time::Duration;

use contract::Receipt;
use contract::id::hex;
use platform::{Instructions, Outgoing};
use sha2::{Digest as _, Sha256};

/// Times that a receipt is sent before it is left at the table: the instructions behind it wait meanwhile.
const ATTEMPTS_MAX: u32 = 4;
/// The pause after the first; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);

/// The client's queue for final receipts, if it has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Results(Option<Arc<dyn Instructions>>);

impl From<Option<Arc<dyn Instructions>>> for Results {
    fn from(queue: Option<Arc<dyn Instructions>>) -> Self {
        Self(queue)
    }
}

impl Results {
    /// Sends a final receipt, with the trace of the message that it answers. The table has it in any case, and is the truth.
    pub(super) async fn tell(&self, receipt: &Receipt, trace_parent: Option<&str>) {
        if let Some(results) = &self.0 {
            tell(results.as_ref(), &message(receipt, trace_parent)).await;
        }
    }
}

async fn tell(results: &dyn Instructions, message: &Outgoing) {
    let mut pause = PAUSE;
    for attempt in 1..=ATTEMPTS_MAX {
        match results.send(message).await {
            Ok(_) => return,
            Err(error) if error.is_transient() && attempt < ATTEMPTS_MAX => {
                tracing::warn!(error = %crate::chain(&error), attempt, "the client's queue does not answer; it is tried again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => {
                tracing::error!(
                    error = %crate::chain(&error),
                    "the client's queue was not told; the receipt is in the table"
                );
                return;
            }
        }
    }
}

/// The same receipt is the same message, however often it is sent.
fn message(receipt: &Receipt, trace_parent: Option<&str>) -> Outgoing {
    let body = serde_json::to_string(receipt).expect("a receipt is JSON");
    let id = format!(
        "{}\n{}\n{}",
        receipt.session_id,
        receipt.instruction_id,
        receipt.status.as_str()
    );
    Outgoing {
        body,
        // A session's id is a capability, and a group id is seen by whoever may look at the queue.
        group: hex(&Sha256::digest(receipt.session_id.as_str()))[..32].to_owned(),
        deduplication_id: hex(&Sha256::digest(id)),
        trace_parent: trace_parent.map(str::to_owned),
    }
}
