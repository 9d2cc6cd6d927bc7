//! The clients in SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use contract::{ClientConfig, ClientId};
use rusqlite::OptionalExtension as _;

use super::store::{Store, from_json, to_json, write};
use crate::{Clients, Result};

#[derive(Debug)]
pub(super) struct LocalClients {
    pub(super) store: Arc<Store>,
}

#[async_trait]
impl Clients for LocalClients {
    async fn get(&self, id: &ClientId) -> Result<Option<ClientConfig>> {
        let key = id.to_string();
        self.store
            .run("read", format!("client {id}"), move |_, connection| {
                let json: Option<String> = connection
                    .prepare_cached("SELECT json FROM clients WHERE client_id = ?1")?
                    .query_row([key], |row| row.get(0))
                    .optional()?;
                json.as_deref().map(from_json).transpose()
            })
            .await
    }

    async fn put(&self, config: &ClientConfig) -> Result<()> {
        let config = config.clone();
        let thing = format!("client {}", config.client_id);
        self.store
            .run("write", thing, move |_, connection| {
                let json = to_json(&config)?;
                let transaction = write(connection)?;
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO clients (client_id, json) VALUES (?1, ?2)",
                    )?
                    .execute((config.client_id.as_str(), json))?;
                transaction.commit()?;
                Ok(())
            })
            .await
    }

    async fn list(&self) -> Result<Vec<ClientId>> {
        self.store
            .run("list", "clients", |_, connection| {
                let mut statement =
                    connection.prepare_cached("SELECT json FROM clients ORDER BY client_id")?;
                let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
                rows.map(|json| Ok(from_json::<ClientConfig>(&json?)?.client_id))
                    .collect()
            })
            .await
    }
}
