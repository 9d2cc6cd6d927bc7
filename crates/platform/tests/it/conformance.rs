//! Every adapter passes the suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use platform::Instructions;
use platform::conformance::{QueueUnderTest, StoreUnderTest, Stores};
use platform::local::{LocalStore, QueueSettings};
use tempfile::TempDir;

/// The local adapter: all queues in one file, each store in one of its own.
struct Local {
    folder: TempDir,
    made: AtomicU32,
}

impl Local {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            made: AtomicU32::new(0),
        }
    }

    fn name(&self) -> String {
        self.made.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn open(&self, name: &str) -> LocalStore {
        LocalStore::open(&self.folder.path().join(name)).expect("open")
    }
}

#[async_trait]
impl QueueUnderTest for Local {
    async fn fresh(&self) -> Arc<dyn Instructions> {
        Arc::new(
            self.open("queues")
                .queue(&self.name(), QueueSettings::default()),
        )
    }

    async fn fresh_with_dead(
        &self,
        max_receive_count: u32,
    ) -> (Arc<dyn Instructions>, Arc<dyn Instructions>) {
        let store = self.open("queues");
        let (name, dead) = (self.name(), self.name());
        let settings = QueueSettings {
            max_receive_count,
            dead: Some(dead.clone()),
        };
        (
            Arc::new(store.queue(&name, settings)),
            Arc::new(store.queue(&dead, QueueSettings::default())),
        )
    }
}

#[async_trait]
impl StoreUnderTest for Local {
    async fn fresh(&self) -> Stores {
        let store = self.open(&self.name());
        Stores {
            clients: store.clients(),
            sessions: store.sessions(),
            receipts: store.receipts(),
        }
    }
}

mod local {
    mod clients {
        platform::clients_conformance!(super::super::Local::new());
    }
    mod receipts {
        platform::receipts_conformance!(super::super::Local::new());
    }
    mod sessions {
        platform::sessions_conformance!(super::super::Local::new());
    }
    mod queue {
        platform::queue_conformance!(super::super::Local::new());
    }
}

/// A case that is written but not named in its macro would never run.
#[test]
fn every_case_of_the_suite_runs() {
    let sources = [
        include_str!("../../src/conformance/clients.rs"),
        include_str!("../../src/conformance/queue.rs"),
        include_str!("../../src/conformance/receipts.rs"),
        include_str!("../../src/conformance/sessions.rs"),
    ];
    for source in sources {
        let (_, list) = source.split_once("$under_test,\n").expect("a macro");
        let (list, _) = list.split_once('}').expect("the end of the list");
        let listed: Vec<&str> = list.split_whitespace().collect();
        let written: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub async fn "))
            .filter_map(|line| line.split_once('(').map(|(name, _)| name))
            .collect();
        assert_eq!(listed, written);
    }
}
