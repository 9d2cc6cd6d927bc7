//! A router that is a table, and a gateway before it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use contract::Timestamp;
use edit_router::ask::Head;
use edit_router::gateway::{Decides, Drained, Gateway, Settings};
use edit_router::router::{Forward, Outcome};
use http::{Response, StatusCode};
use relay::RelayError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::wire::{Head as Answered, Wire, within};

/// What the router says in place of a door.
pub const UNPROVEN: &str = "the router: unproven\n";
pub const UNREACHABLE: &str = "the router: unreachable\n";
pub const NOTHING: &str = "the router: nothing here\n";

/// Rows by host.
#[derive(Debug, Clone, Default)]
pub struct Table(Arc<Rows>);

#[derive(Debug, Default)]
struct Rows {
    doors: Mutex<HashMap<String, Forward>>,
    ended: AtomicBool,
    unproven: AtomicUsize,
}

impl Table {
    /// From now on this host's door is there.
    pub fn leads(&self, host: &str, door: Forward) {
        let mut doors = self.0.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.insert(host.to_owned(), door);
    }

    /// No session is live any more; those who ask are still led to where it was.
    pub fn all_have_ended(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }

    /// How often a door was found to be another's.
    pub fn unproven_doors(&self) -> usize {
        self.0.unproven.load(Ordering::SeqCst)
    }
}

impl Decides for Table {
    async fn handle(&self, head: &Head<'_>, _: Timestamp) -> Outcome {
        let host = head.one("host").expect("the gateway judged it");
        if head.path == "/who" {
            let who = format!("{:?} {}\n", head.visitor, head.proto.as_str());
            return Outcome::Answer(says(StatusCode::OK, &who));
        }
        let doors = self.0.doors.lock().unwrap_or_else(PoisonError::into_inner);
        match doors.get(host) {
            Some(door) => Outcome::Forward(Box::new(door.clone())),
            None => Outcome::Answer(says(StatusCode::NOT_FOUND, NOTHING)),
        }
    }

    async fn unproven(&self, _: &Head<'_>, _: &Forward, _: Timestamp) -> Response<Bytes> {
        self.0.unproven.fetch_add(1, Ordering::SeqCst);
        says(StatusCode::SERVICE_UNAVAILABLE, UNPROVEN)
    }

    async fn unreachable(
        &self,
        _: &Head<'_>,
        _: &Forward,
        _: &RelayError,
        _: Timestamp,
    ) -> Response<Bytes> {
        says(StatusCode::BAD_GATEWAY, UNREACHABLE)
    }

    async fn still(&self, _: &Forward, _: Timestamp) -> bool {
        !self.0.ended.load(Ordering::SeqCst)
    }
}

fn says(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text.to_owned()));
    *response.status_mut() = status;
    response
}

/// A gateway that serves.
pub struct Served {
    pub address: SocketAddr,
    pub table: Table,
    stop: CancellationToken,
    serving: JoinHandle<Drained>,
}

impl Served {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other limits.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            address: "127.0.0.1:0".parse().expect("an address"),
            ..Settings::default()
        };
        change(&mut settings);
        let table = Table::default();
        let gateway = Gateway::bind(settings, table.clone()).await.expect("bind");
        let address = gateway.address();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(gateway.serve(stop.clone()));
        Self {
            address,
            table,
            stop,
            serving,
        }
    }

    pub async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Asks once, and waits for the end of the connection.
    pub async fn asked(&self, request: &str) -> (Answered, String) {
        let mut wire = self.connect().await;
        wire.send(request).await;
        let head = wire.head().await;
        (head, wire.rest().await.0)
    }

    /// Gets a page of a host.
    pub async fn get(&self, host: &str, target: &str) -> (Answered, String) {
        self.asked(&format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    /// Asks it to stop.
    pub fn stops(&self) {
        self.stop.cancel();
    }

    /// Waits until it has.
    pub async fn stopped(self) -> Drained {
        self.stop.cancel();
        within("the end of the gateway", self.serving)
            .await
            .expect("no panic")
    }
}
