//! A FIFO queue of SQS.
//!
//! **When a delivery is over.** SQS documents that a FIFO message is neither deleted nor extended by a handle whose
//! visibility timeout is over, and answers `InvalidParameterValue` ("The receipt handle has expired"),
//! `ReceiptHandleIsInvalid` or `MessageNotInflight`. All of these are [`Lease::Lost`]. Beside that, this adapter knows by
//! a clock of its own when the timeout that it asked for is over, and answers `Lost` from then on without asking: who
//! comes too late must not go on, even if SQS has not noticed yet. So it is stricter than SQS and never laxer.
//!
//! A handle that this process does not know is `Lost` too: it is of a delivery that is over, or of somebody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::config::Builder;
use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
};
use contract::Timestamp;
use tokio::time::Instant;

use super::fault::Asked;
use super::{Aws, Patience};
use crate::error::without_session_ids;
use crate::random::random;
use crate::{
    Delivery, DeliveryHandle, Depth, Instructions, Lease, Outgoing, Result, Sent, VISIBILITY_MAX,
};

/// The longest that SQS waits for a message.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The attribute of a message that carries its trace, by its name in W3C's recommendation.
const TRACE_PARENT: &str = "traceparent";

#[derive(Debug)]
pub(super) struct SqsQueue {
    sqs: aws_sdk_sqs::Client,
    url: String,
    region: String,
    patience: Patience,
    deliveries: Arc<Deliveries>,
}

/// About the queue `name`. The name of a session's queue has the session's id in it.
pub(super) fn asked(operation: &'static str, name: &str, region: &str) -> Asked {
    let capability = name
        .strip_prefix("webordinary-edits-")
        .and_then(|rest| rest.strip_suffix(".fifo"))
        .filter(|rest| *rest != "dead")
        .map(str::to_owned);
    let shown = without_session_ids(name, capability.as_deref());
    Asked {
        operation,
        thing: format!("queue {shown}"),
        place: format!("queue {shown} in {region}"),
        capability,
    }
}

/// The name of a queue in its URL.
pub(super) fn name_of(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url)
}

impl SqsQueue {
    pub(super) fn new(aws: &Aws, url: &str) -> Self {
        Self {
            sqs: aws.sqs.clone(),
            url: url.to_owned(),
            region: aws.region.clone(),
            patience: aws.patience.clone(),
            deliveries: Arc::clone(&aws.deliveries),
        }
    }

    fn asked(&self, operation: &'static str) -> Asked {
        asked(operation, name_of(&self.url), &self.region)
    }

    /// One long poll.
    async fn poll(&self, wait: u64, visibility: i32) -> Result<Option<Delivery>> {
        let asked = self.asked("receive from");
        // Repeated by the SDK after a reply that was lost, it brings the same message instead of the next one.
        let attempt = format!("{:016x}{:016x}", random(), random());
        let deadlines = self.patience.with(Duration::from_secs(wait));
        let answer = self
            .sqs
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(1)
            .wait_time_seconds(i32::try_from(wait).unwrap_or(i32::MAX))
            .visibility_timeout(visibility)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .receive_request_attempt_id(attempt)
            .customize()
            .config_override(Builder::new().timeout_config(deadlines))
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        let Some(message) = answer.messages.into_iter().flatten().next() else {
            return Ok(None);
        };
        let kept = Duration::from_secs(u64::try_from(visibility).unwrap_or_default());
        let delivery = read(message).map_err(|lacking| asked.corrupt(lacking))?;
        self.deliveries.begin(&delivery.handle, kept);
        Ok(Some(delivery))
    }
}

#[async_trait]
impl Instructions for SqsQueue {
    async fn send(&self, message: &Outgoing) -> Result<Sent> {
        let asked = self.asked("send to");
        message.check().map_err(|reason| asked.refused(reason))?;
        let mut request = self
            .sqs
            .send_message()
            .queue_url(&self.url)
            .message_body(&message.body);
        // A client's results may go to a standard queue, which takes neither.
        if name_of(&self.url).strip_suffix(".fifo").is_some() {
            request = request
                .message_group_id(&message.group)
                .message_deduplication_id(&message.deduplication_id);
        }
        if let Some(trace) = &message.trace_parent {
            let attribute = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(trace)
                .build()
                .map_err(|error| asked.refused(error.to_string()))?;
            request = request.message_attributes(TRACE_PARENT, attribute);
        }
        let answer = request.send().await.map_err(|error| asked.failed(error))?;
        Ok(Sent {
            message_id: answer.message_id.unwrap_or_default(),
            // SQS does not say.
            duplicate: false,
        })
    }

    async fn receive(&self, wait: Duration, visibility: Duration) -> Result<Option<Delivery>> {
        let kept = checked(&self.asked("receive from"), visibility)?;
        let until = Instant::now().checked_add(wait);
        loop {
            let left = until.map_or(WAIT_MAX, |until| until - Instant::now());
            let found = self.poll(whole_seconds(left.min(WAIT_MAX)), kept).await?;
            if found.is_some() || until.is_some_and(|until| until <= Instant::now()) {
                return Ok(found);
            }
        }
    }

    async fn extend(&self, handle: &DeliveryHandle, visibility: Duration) -> Result<Lease> {
        let asked = self.asked("extend a delivery of");
        let seconds = checked(&asked, visibility)?;
        let begun = Instant::now();
        let kept = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        match self.deliveries.held(handle) {
            None => return Ok(Lease::Lost),
            Some(received) if begun + kept > received + VISIBILITY_MAX => {
                return Err(asked.refused(format!(
                    "a delivery is kept for at most {} hours in all",
                    VISIBILITY_MAX.as_secs() / 3600
                )));
            }
            Some(_) => {}
        }
        let answer = self
            .sqs
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(handle.as_str())
            .visibility_timeout(seconds)
            .send()
            .await;
        match answer {
            Ok(_) if seconds == 0 => {
                self.deliveries.end(handle);
                Ok(Lease::Held)
            }
            Ok(_) => {
                // From before the request: SQS began to count later than that.
                self.deliveries.keep(handle, begun + kept);
                Ok(Lease::Held)
            }
            Err(error) if is_over(error.code(), error.message()) => {
                self.deliveries.end(handle);
                Ok(Lease::Lost)
            }
            Err(error) => Err(asked.failed(error)),
        }
    }

    async fn delete(&self, handle: &DeliveryHandle) -> Result<Lease> {
        let asked = self.asked("delete a message of");
        if self.deliveries.held(handle).is_none() {
            return Ok(Lease::Lost);
        }
        let answer = self
            .sqs
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(handle.as_str())
            .send()
            .await;
        match answer {
            Ok(_) => {
                self.deliveries.end(handle);
                Ok(Lease::Held)
            }
            Err(error) if is_over(error.code(), error.message()) => {
                self.deliveries.end(handle);
                Ok(Lease::Lost)
            }
            Err(error) => Err(asked.failed(error)),
        }
    }

    async fn depth(&self) -> Result<Depth> {
        let asked = self.asked("count");
        let (waiting, in_flight) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        );
        let answer = self
            .sqs
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(waiting.clone())
            .attribute_names(in_flight.clone())
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        let count = |name: &QueueAttributeName| {
            let text = answer.attributes()?.get(name)?;
            text.parse().ok()
        };
        match (count(&waiting), count(&in_flight)) {
            (Some(waiting), Some(in_flight)) => Ok(Depth { waiting, in_flight }),
            _ => Err(asked.corrupt(Lacking("its counts"))),
        }
    }
}

/// The deliveries that this process holds, and until when. Shared by all queues of an [`Aws`], so that it does not matter
/// through which of them a message is deleted.
#[derive(Debug, Default)]
pub(super) struct Deliveries(Mutex<HashMap<DeliveryHandle, Kept>>);

#[derive(Debug, Clone, Copy)]
struct Kept {
    received: Instant,
    until: Instant,
}

impl Deliveries {
    /// Counted from the answer, because a long poll may hand out at its very end. SQS counts from a moment earlier and
    /// has the last word.
    fn begin(&self, handle: &DeliveryHandle, kept: Duration) {
        let received = Instant::now();
        let until = received + kept;
        let mut deliveries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever died or forgot about one leaves it here until its time is over.
        deliveries.retain(|_, delivery| delivery.until > received);
        deliveries.insert(handle.clone(), Kept { received, until });
    }

    /// When a delivery was received that is still held.
    fn held(&self, handle: &DeliveryHandle) -> Option<Instant> {
        let deliveries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let delivery = deliveries.get(handle)?;
        (delivery.until > Instant::now()).then_some(delivery.received)
    }

    fn keep(&self, handle: &DeliveryHandle, until: Instant) {
        let mut deliveries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(delivery) = deliveries.get_mut(handle) {
            delivery.until = until;
        }
    }

    fn end(&self, handle: &DeliveryHandle) {
        let mut deliveries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        deliveries.remove(handle);
    }
}

/// Whether SQS says that a delivery is over.
fn is_over(code: Option<&str>, message: Option<&str>) -> bool {
    let code = code.unwrap_or_default();
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "ReceiptHandleIsInvalid" | "MessageNotInflight" => true,
        // The same code stands for a timeout that is too long.
        "InvalidParameterValue" => message.is_some_and(|message| {
            let message = message.to_ascii_lowercase();
            message.contains("expired") || message.contains("receipt handle")
        }),
        _ => false,
    }
}

/// A visibility timeout in whole seconds, rounded up: what is not zero must not become a release.
fn checked(asked: &Asked, visibility: Duration) -> Result<i32> {
    if visibility > VISIBILITY_MAX {
        let hours = VISIBILITY_MAX.as_secs() / 3600;
        return Err(asked.refused(format!("a visibility timeout is at most {hours} hours")));
    }
    Ok(i32::try_from(whole_seconds(visibility)).expect("twelve hours fit"))
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn read(message: Message) -> std::result::Result<Delivery, Lacking> {
    let attributes = message.attributes.unwrap_or_default();
    let said = |name: MessageSystemAttributeName, lacking| {
        attributes.get(&name).ok_or(Lacking(lacking)).cloned()
    };
    let moment = |name, lacking| {
        let milliseconds = said(name, lacking)?.parse();
        milliseconds
            .map(Timestamp::from_unix_ms)
            .map_err(|_| Lacking(lacking))
    };
    Ok(Delivery {
        handle: DeliveryHandle::new(message.receipt_handle.ok_or(Lacking("its handle"))?),
        message_id: message.message_id.ok_or(Lacking("its id"))?,
        group: said(MessageSystemAttributeName::MessageGroupId, "its group")?,
        receive_count: said(
            MessageSystemAttributeName::ApproximateReceiveCount,
            "its receive count",
        )?
        .parse()
        .map_err(|_| Lacking("its receive count"))?,
        sent_at: moment(
            MessageSystemAttributeName::SentTimestamp,
            "the time it was sent",
        )?,
        first_received_at: moment(
            MessageSystemAttributeName::ApproximateFirstReceiveTimestamp,
            "the time it was first received",
        )?,
        trace_parent: message
            .message_attributes
            .and_then(|mut attributes| attributes.remove(TRACE_PARENT))
            .and_then(|attribute| attribute.string_value),
        body: message.body.unwrap_or_default(),
    })
}

/// An answer without something that SQS always says.
#[derive(Debug, thiserror::Error)]
#[error("the answer lacks {0}")]
struct Lacking(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_which_sqs_says_that_a_delivery_is_over_is_known() {
        let said = [
            (
                "InvalidParameterValue",
                "Value AQEB… for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
                true,
            ),
            (
                "ReceiptHandleIsInvalid",
                "The input receipt handle is invalid.",
                true,
            ),
            ("AWS.SimpleQueueService.MessageNotInflight", "", true),
            (
                "InvalidParameterValue",
                "Value 43201 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message \
                 is beyond the limit [43200 seconds].",
                false,
            ),
            ("AccessDeniedException", "", false),
        ];
        for (code, message, over) in said {
            assert_eq!(
                is_over(Some(code), Some(message)),
                over,
                "{code}: {message}"
            );
        }
    }

    #[test]
    fn a_queue_of_a_session_is_named_without_its_capability() {
        let session = contract::SessionId::new(&"amelia".parse().expect("valid"), [7; 16]);
        let url =
            format!("https://sqs.eu-central-1.amazonaws.com/1/webordinary-edits-{session}.fifo");
        let asked = asked("send to", name_of(&url), "eu-central-1");
        let refused = asked.refused(format!("no access to {session}")).to_string();
        assert!(!refused.contains(session.as_str()), "{refused}");
        assert!(refused.contains(session.redacted()), "{refused}");
        let plain = super::asked("send to", "webordinary-intake.fifo", "eu-central-1");
        assert_eq!(plain.thing, "queue webordinary-intake.fifo");
    }
}
