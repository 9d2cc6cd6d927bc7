//! The queues of sessions in SQS: made like the intake in `infra/data.yaml`, each with the dead letters that all share.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sqs::operation::create_queue::CreateQueueError;
use aws_sdk_sqs::operation::delete_queue::DeleteQueueError;
use aws_sdk_sqs::operation::get_queue_attributes::GetQueueAttributesError;
use aws_sdk_sqs::types::QueueAttributeName;
use contract::SessionId;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::Aws;
use super::fault::Asked;
use super::queue::{SqsQueue, asked, name_of};
use crate::queues::{NO_SESSION, session_of};
use crate::{Instructions, QUEUE_PREFIX, Queues, Result, SessionQueue, queue_name};

/// What a queue of a session is made with, beside its dead letters. All of it is as in `infra/data.yaml`, and for the
/// reasons given there.
const ATTRIBUTES: [(QueueAttributeName, &str); 7] = [
    (QueueAttributeName::FifoQueue, "true"),
    (QueueAttributeName::DeduplicationScope, "messageGroup"),
    (QueueAttributeName::FifoThroughputLimit, "perMessageGroupId"),
    (QueueAttributeName::MessageRetentionPeriod, "1209600"),
    (QueueAttributeName::VisibilityTimeout, "60"),
    (QueueAttributeName::ReceiveMessageWaitTimeSeconds, "20"),
    (QueueAttributeName::SqsManagedSseEnabled, "true"),
];

/// Deliveries of one message before it is a dead letter (DESIGN §4).
const RECEIVES_MAX: u32 = 10;

/// How many queues one answer lists: the most that SQS gives, and without a number it gives no further pages.
const PAGE: i32 = 1000;

#[derive(Debug)]
pub(super) struct SqsQueues {
    aws: Aws,
    dead: String,
    /// The ARN of the dead letters, once it is known.
    dead_arn: OnceCell<String>,
}

impl SqsQueues {
    pub(super) fn new(aws: &Aws, dead: &str) -> Self {
        Self {
            aws: aws.clone(),
            dead: dead.to_owned(),
            dead_arn: OnceCell::new(),
        }
    }

    fn asked(&self, operation: &'static str, name: &str) -> Asked {
        asked(operation, name, &self.aws.region)
    }

    async fn dead_arn(&self) -> Result<&String> {
        let find = async || {
            let asked = self.asked("find", name_of(&self.dead));
            let answer = self
                .aws
                .sqs
                .get_queue_attributes()
                .queue_url(&self.dead)
                .attribute_names(QueueAttributeName::QueueArn)
                .send()
                .await
                .map_err(|error| asked.failed(error))?;
            answer
                .attributes
                .and_then(|mut found| found.remove(&QueueAttributeName::QueueArn))
                .ok_or_else(|| asked.unavailable("the answer names no ARN"))
        };
        self.dead_arn.get_or_try_init(find).await
    }
}

#[async_trait]
impl Queues for SqsQueues {
    async fn create(&self, session: &SessionId) -> Result<String> {
        let name = queue_name(session);
        let asked = self.asked("create", &name).of(session);
        let redrive = json!({
            "deadLetterTargetArn": self.dead_arn().await?,
            "maxReceiveCount": RECEIVES_MAX,
        });
        let mut request = self.aws.sqs.create_queue().queue_name(&name);
        for (attribute, value) in ATTRIBUTES {
            request = request.attributes(attribute, value);
        }
        let sent = request
            .attributes(QueueAttributeName::RedrivePolicy, redrive.to_string())
            .send()
            .await;
        match sent {
            Ok(made) => made
                .queue_url
                .ok_or_else(|| asked.unavailable("the answer names no URL")),
            // Made by an older build, or changed by an operator: it is there, and that is what is wanted.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateQueueError::is_queue_name_exists) =>
            {
                self.aws.queue_named(&name).await
            }
            Err(error) => Err(asked.failed(error)),
        }
    }

    fn open(&self, address: &str) -> Arc<dyn Instructions> {
        Arc::new(SqsQueue::new(&self.aws, address))
    }

    async fn remove(&self, address: &str) -> Result<()> {
        let asked = self.asked("remove", name_of(address));
        if session_of(address, &self.dead).is_none() {
            return Err(asked.refused(NO_SESSION));
        }
        let sent = self.aws.sqs.delete_queue().queue_url(address).send().await;
        match sent {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DeleteQueueError::is_queue_does_not_exist) =>
            {
                Ok(())
            }
            Err(error) => Err(asked.failed(error)),
        }
    }

    async fn list(&self) -> Result<Vec<SessionQueue>> {
        let asked = Asked {
            operation: "list",
            thing: "the queues of sessions".to_owned(),
            place: format!(
                "queue whose name begins with {QUEUE_PREFIX} in {}",
                self.aws.region
            ),
            capability: None,
        };
        let mut urls = self
            .aws
            .sqs
            .list_queues()
            .queue_name_prefix(QUEUE_PREFIX)
            .into_paginator()
            .page_size(PAGE)
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(address) = urls.next().await {
            let address = address.map_err(|error| asked.failed(error))?;
            if let Some(session) = session_of(&address, &self.dead) {
                found.push(SessionQueue { session, address });
            }
        }
        Ok(found)
    }

    async fn is_ours(&self, address: &str) -> Result<bool> {
        let asked = self.asked("look at", name_of(address));
        let Some(session) = session_of(address, &self.dead) else {
            return Ok(false);
        };
        let asked = asked.of(&session);
        let answer = self
            .aws
            .sqs
            .get_queue_attributes()
            .queue_url(address)
            .attribute_names(QueueAttributeName::RedrivePolicy)
            .send()
            .await;
        let attributes = match answer {
            Ok(answer) => answer.attributes.unwrap_or_default(),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetQueueAttributesError::is_queue_does_not_exist) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(asked.failed(error)),
        };
        let redrive = attributes
            .get(&QueueAttributeName::RedrivePolicy)
            .and_then(|policy| serde_json::from_str::<Value>(policy).ok())
            .unwrap_or_default();
        Ok(redrive["deadLetterTargetArn"] == **self.dead_arn().await?)
    }
}
