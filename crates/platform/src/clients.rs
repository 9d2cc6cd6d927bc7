//! The port to the clients.

use std::fmt::Debug;

use async_trait::async_trait;
use contract::{ClientConfig, ClientId};

use crate::Result;

/// Who may have environments, and how. Written by operators, read by everybody.
#[async_trait]
pub trait Clients: Send + Sync + Debug {
    /// The configuration of a client, as it was last put.
    async fn get(&self, id: &ClientId) -> Result<Option<ClientConfig>>;

    /// Puts a configuration in place of the one that was there, if any. The last writer wins.
    async fn put(&self, config: &ClientConfig) -> Result<()>;

    /// All clients, sorted. May lag behind a `put` by about a second.
    async fn list(&self) -> Result<Vec<ClientId>>;
}
