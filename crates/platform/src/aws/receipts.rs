//! The receipts in DynamoDB: key `(sessionId, instructionId)`, index `clientId-instructionId-index`.

use async_trait::async_trait;
use contract::{ClientId, InstructionId, Receipt, SessionId, Status};

use super::fault::Asked;
use super::record::{Item, from_item, text, to_item};
use super::{Table, stand_back};
use crate::{Put, Receipts, Result};

const INDEX: &str = "clientId-instructionId-index";

/// A writer is beaten only by one whose receipt stands, or by a row that is removed in that very moment.
const TURNS: u32 = 5;

#[derive(Debug)]
pub(super) struct AwsReceipts {
    pub(super) table: Table,
}

impl AwsReceipts {
    fn asked(&self, operation: &'static str, instruction: &InstructionId) -> Asked {
        self.table
            .asked(operation, format!("the receipt of {instruction}"))
    }
}

#[async_trait]
impl Receipts for AwsReceipts {
    async fn get(
        &self,
        session: &SessionId,
        instruction: &InstructionId,
    ) -> Result<Option<Receipt>> {
        let asked = self.asked("read", instruction).of(session);
        let answer = self
            .table
            .dynamodb
            .get_item()
            .table_name(&self.table.name)
            .key("sessionId", text(session.as_str()))
            .key("instructionId", text(instruction.as_str()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        answer.item.map(|item| decode(&asked, &item)).transpose()
    }

    async fn find(
        &self,
        client: &ClientId,
        instruction: &InstructionId,
    ) -> Result<Option<Receipt>> {
        let asked = self.asked("find", instruction);
        let mut pages = self
            .table
            .dynamodb
            .query()
            .table_name(&self.table.name)
            .index_name(INDEX)
            .key_condition_expression("clientId = :client AND instructionId = :instruction")
            .expression_attribute_values(":client", text(client.as_str()))
            .expression_attribute_values(":instruction", text(instruction.as_str()))
            .into_paginator()
            .items()
            .send();
        let mut latest: Option<Receipt> = None;
        while let Some(item) = pages.next().await {
            let found = decode(&asked, &item.map_err(|error| asked.failed(error))?)?;
            if latest
                .as_ref()
                .is_none_or(|latest| latest.accepted_at < found.accepted_at)
            {
                latest = Some(found);
            }
        }
        Ok(latest)
    }

    async fn put(&self, receipt: &Receipt) -> Result<Put> {
        let asked = self
            .asked("write", &receipt.instruction_id)
            .of(&receipt.session_id);
        let item = to_item(receipt).map_err(|error| asked.corrupt(error))?;
        for turn in 0..TURNS {
            if turn > 0 {
                stand_back(turn).await;
            }
            let mut put = self
                .table
                .dynamodb
                .put_item()
                .table_name(&self.table.name)
                .set_item(Some(item.clone()))
                .condition_expression(
                    "attribute_not_exists(sessionId) OR #status IN (:accepted, :running, :applied)",
                )
                .expression_attribute_names("#status", "status");
            for passing in [Status::Accepted, Status::Running, Status::Applied] {
                let name = format!(":{}", passing.as_str());
                put = put.expression_attribute_values(name, text(passing.as_str()));
            }
            let Err(error) = put.send().await else {
                return Ok(Put::Written);
            };
            let standing = match error.as_service_error() {
                Some(service) if service.is_conditional_check_failed_exception() => {
                    self.get(&receipt.session_id, &receipt.instruction_id)
                        .await?
                }
                _ => return Err(asked.failed(error)),
            };
            match standing {
                // Also after a reply that was lost: what stands there is what we wrote.
                Some(standing) if standing == *receipt => return Ok(Put::Written),
                Some(standing) if standing.status.is_final() => {
                    return Ok(Put::FinalStands(standing));
                }
                _ => {}
            }
        }
        Err(asked.unavailable("others write it all the time"))
    }

    async fn recent(&self, session: &SessionId, limit: usize) -> Result<Vec<Receipt>> {
        let thing = format!("receipts of session {}", session.redacted());
        let asked = self.table.asked("list", thing).of(session);
        // The rows of a session are sorted by the instruction's id, so that all of them have to be looked at. They are a
        // kilobyte each, and a session has dozens.
        let mut pages = self
            .table
            .dynamodb
            .query()
            .table_name(&self.table.name)
            .key_condition_expression("sessionId = :session")
            .expression_attribute_values(":session", text(session.as_str()))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut receipts: Vec<Receipt> = Vec::new();
        while let Some(item) = pages.next().await {
            receipts.push(decode(&asked, &item.map_err(|error| asked.failed(error))?)?);
        }
        receipts.sort_by(|one, other| {
            let key = |receipt: &Receipt| (receipt.accepted_at, receipt.instruction_id.clone());
            key(other).cmp(&key(one))
        });
        receipts.truncate(limit);
        Ok(receipts)
    }
}

fn decode(asked: &Asked, item: &Item) -> Result<Receipt> {
    from_item(item).map_err(|error| asked.corrupt(error))
}
