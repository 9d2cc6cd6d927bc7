//! The receipts in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use contract::{ClientId, InstructionId, Receipt, SessionId};
use rusqlite::{Connection, OptionalExtension as _, Params};

use super::store::{Outcome, Store, from_json, to_json, write};
use crate::{Put, Receipts, Result};

#[derive(Debug)]
pub(super) struct LocalReceipts {
    pub(super) store: Arc<Store>,
}

const GET: &str = "SELECT json FROM receipts WHERE session_id = ?1 AND instruction_id = ?2";

const FIND: &str = "SELECT json FROM receipts WHERE client_id = ?1 AND instruction_id = ?2
    ORDER BY accepted_at DESC LIMIT 1";

const RECENT: &str = "SELECT json FROM receipts WHERE session_id = ?1
    ORDER BY accepted_at DESC, instruction_id DESC LIMIT ?2";

const PUT: &str =
    "INSERT OR REPLACE INTO receipts (session_id, instruction_id, client_id, accepted_at, json)
    VALUES (?1, ?2, ?3, ?4, ?5)";

#[async_trait]
impl Receipts for LocalReceipts {
    async fn get(
        &self,
        session: &SessionId,
        instruction: &InstructionId,
    ) -> Result<Option<Receipt>> {
        let key = (session.to_string(), instruction.to_string());
        self.store
            .run("read", thing(instruction), move |_, connection| {
                one(connection, GET, key)
            })
            .await
    }

    async fn find(
        &self,
        client: &ClientId,
        instruction: &InstructionId,
    ) -> Result<Option<Receipt>> {
        let key = (client.to_string(), instruction.to_string());
        self.store
            .run("find", thing(instruction), move |_, connection| {
                one(connection, FIND, key)
            })
            .await
    }

    async fn put(&self, receipt: &Receipt) -> Result<Put> {
        let receipt = receipt.clone();
        let thing = thing(&receipt.instruction_id);
        self.store
            .run("write", thing, move |_, connection| {
                let key = (receipt.session_id.as_str(), receipt.instruction_id.as_str());
                let transaction = write(connection)?;
                if let Some(standing) = one(&transaction, GET, key)? {
                    if standing == receipt {
                        return Ok(Put::Written);
                    }
                    if standing.status.is_final() {
                        return Ok(Put::FinalStands(standing));
                    }
                }
                transaction.prepare_cached(PUT)?.execute((
                    key.0,
                    key.1,
                    receipt.client_id.as_str(),
                    receipt.accepted_at.unix_ms(),
                    to_json(&receipt)?,
                ))?;
                transaction.commit()?;
                Ok(Put::Written)
            })
            .await
    }

    async fn recent(&self, session: &SessionId, limit: usize) -> Result<Vec<Receipt>> {
        let key = (
            session.to_string(),
            i64::try_from(limit).unwrap_or(i64::MAX),
        );
        let thing = format!("receipts of session {}", session.redacted());
        self.store
            .run("list", thing, move |_, connection| {
                let mut statement = connection.prepare_cached(RECENT)?;
                let rows = statement.query_map(key, |row| row.get::<_, String>(0))?;
                rows.map(|json| from_json(&json?)).collect()
            })
            .await
    }
}

fn thing(instruction: &InstructionId) -> String {
    format!("the receipt of {instruction}")
}

fn one(connection: &Connection, sql: &str, key: impl Params) -> Outcome<Option<Receipt>> {
    let json: Option<String> = connection
        .prepare_cached(sql)?
        .query_row(key, |row| row.get(0))
        .optional()?;
    json.as_deref().map(from_json).transpose()
}
