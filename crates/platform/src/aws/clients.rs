//! The clients in DynamoDB: key `clientId`.

use async_trait::async_trait;
use contract::{ClientConfig, ClientId};

use super::Table;
use super::record::{Item, text, to_item, to_json};
use crate::{Clients, Result};

#[derive(Debug)]
pub(super) struct AwsClients {
    pub(super) table: Table,
}

#[async_trait]
impl Clients for AwsClients {
    async fn get(&self, id: &ClientId) -> Result<Option<ClientConfig>> {
        let asked = self.table.asked("read", format!("client {id}"));
        let answer = self
            .table
            .dynamodb
            .get_item()
            .table_name(&self.table.name)
            .key("clientId", text(id.as_str()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        let Some(item) = answer.item else {
            return Ok(None);
        };
        let value = to_json(&item).map_err(|error| asked.corrupt(error))?;
        // Not by serde: operators write these rows, and are told everything that is wrong with one at once.
        let config = ClientConfig::parse(&value).map_err(|problems| asked.corrupt(problems))?;
        Ok(Some(config))
    }

    async fn put(&self, config: &ClientConfig) -> Result<()> {
        let asked = self
            .table
            .asked("write", format!("client {}", config.client_id));
        let item = to_item(config).map_err(|error| asked.corrupt(error))?;
        self.table
            .dynamodb
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ClientId>> {
        let asked = self.table.asked("list", "clients");
        let mut pages = self
            .table
            .dynamodb
            .scan()
            .table_name(&self.table.name)
            .projection_expression("clientId")
            .into_paginator()
            .items()
            .send();
        let mut ids = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| asked.failed(error))?;
            ids.push(id_of(&item).map_err(|error| asked.corrupt(error))?);
        }
        ids.sort();
        Ok(ids)
    }
}

fn id_of(item: &Item) -> std::result::Result<ClientId, contract::IdError> {
    item.get("clientId")
        .and_then(|id| id.as_s().ok())
        .map_or("", String::as_str)
        .parse()
}
