//! Messages of the intake queue.

use contract::Timestamp;

/// A message of the intake queue, as SQS hands it to a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The id that SQS gave it; a failed one is named by it.
    pub message_id: String,
    /// What the producer sent.
    pub body: String,
    /// The group in which its order holds.
    pub group: String,
    /// How often it has been received, this time included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// The trace that it belongs to, a W3C `traceparent`.
    pub trace_parent: Option<String>,
}
