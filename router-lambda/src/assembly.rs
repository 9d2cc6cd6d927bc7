//! How the rooms of the router hang together: the same for a Lambda, a gateway and a laptop, on whichever ports.

use std::sync::Arc;
use std::time::Duration;

use platform::{Clients, Instructions, Launcher, Queues, Receipts, Sessions};

use crate::directory::Directory;
use crate::intake::Intake;
use crate::link::LinkKeys;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::registry::Registry;
use crate::router::{Parts, Router};
use crate::sweep::{Memory, Sweep};
use crate::threads::{Entry, Threads};
use crate::wake::Waker;

/// The world outside.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Who may have environments.
    pub clients: Arc<dyn Clients>,
    /// Who acts for a session.
    pub sessions: Arc<dyn Sessions>,
    /// What became of instructions.
    pub receipts: Arc<dyn Receipts>,
    /// The queues of sessions.
    pub queues: Arc<dyn Queues>,
    /// Starts environments.
    pub launcher: Arc<dyn Launcher>,
    /// What nobody could deal with.
    pub dead: Arc<dyn Instructions>,
}

/// What differs between a cloud and a laptop.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How old what is known of a session may be.
    pub fresh: Duration,
    /// How long a task has to claim its session.
    pub claimed_within: Duration,
    /// How long an answer about a session may be held back.
    pub hold: Duration,
}

/// The rooms.
#[derive(Debug, Clone)]
pub struct Assembly {
    /// Answers requests.
    pub router: Router,
    /// Takes in messages of producers.
    pub intake: Intake,
    /// Looks after what nobody asks for.
    pub sweep: Sweep,
    /// Wakes sessions.
    pub waker: Waker,
    /// What is counted.
    pub metrics: Metrics,
}

impl Assembly {
    /// Puts the rooms together. Nothing is asked and nothing is started.
    pub fn new(ports: &Ports, policy: &Policy, keys: LinkKeys, pace: &Pace) -> Self {
        let metrics = Metrics::default();
        let entry = Entry {
            scheme: policy.public.proto.as_str().to_owned(),
            edit_domain: policy.edit_domain.clone(),
            port: policy.public.port,
        };
        let threads = Threads::new(
            Arc::clone(&ports.sessions),
            Arc::clone(&ports.queues),
            entry,
        );
        let waker = Waker::new(
            Arc::clone(&ports.sessions),
            Arc::clone(&ports.launcher),
            pace.claimed_within,
        );
        let router = Router::new(Parts {
            policy: policy.clone(),
            keys,
            directory: Directory::new(Arc::clone(&ports.clients)),
            registry: Registry::new(Arc::clone(&ports.sessions), pace.fresh),
            sessions: Arc::clone(&ports.sessions),
            threads: threads.clone(),
            waker: waker.clone(),
            hold: pace.hold,
            metrics: metrics.clone(),
        });
        let intake = Intake {
            clients: Arc::clone(&ports.clients),
            sessions: Arc::clone(&ports.sessions),
            threads,
            queues: Arc::clone(&ports.queues),
            receipts: Arc::clone(&ports.receipts),
            waker: waker.clone(),
            dead: Arc::clone(&ports.dead),
        };
        let sweep = Sweep {
            clients: Arc::clone(&ports.clients),
            sessions: Arc::clone(&ports.sessions),
            queues: Arc::clone(&ports.queues),
            receipts: Arc::clone(&ports.receipts),
            launcher: Arc::clone(&ports.launcher),
            waker: waker.clone(),
            dead: Arc::clone(&ports.dead),
            memory: Memory::default(),
            metrics: metrics.clone(),
        };
        Self {
            router,
            intake,
            sweep,
            waker,
            metrics,
        }
    }
}
