//! Everything that the router stands on, for one story: real records and queues in one file, and a fleet of this process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contract::session::{SiteHealth, Transition};
use contract::{ClientConfig, ClientId, Instruction, Receipt, Session, SessionId, Timestamp};
use edit_router::intake::{Intake, Record};
use edit_router::sweep::{Memory, Sweep};
use edit_router::threads::{Entry, Threads};
use edit_router::wake::{CLAIMED_WITHIN_ON_ECS, Waker};
use platform::conformance::emulator::Emulator;
use platform::conformance::records::{client, client_config, dawn, instruction, session, thread};
use platform::local::{LocalStore, QueueSettings};
use platform::{
    Clients, Created, Delivery, DeliveryHandle, Depth, Instructions, Launcher, Lease, Outgoing,
    PortError, Queues, Receipts, Sent, SessionQueue, Sessions,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fleet::Fleet;

/// The dead letters.
pub(crate) const DEAD: &str = "webordinary-edits-dead.fifo";

/// How long a look into a queue waits where there must be something.
const LOOK: Duration = Duration::from_secs(1);
/// How long what was received is ours: until it is deleted, on any machine.
const HELD: Duration = Duration::from_secs(60);

/// One house.
pub(crate) struct House {
    pub(crate) clients: Arc<dyn Clients>,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) receipts: Arc<dyn Receipts>,
    pub(crate) queues: Arc<Weather>,
    pub(crate) dead: Arc<dyn Instructions>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) amelia: ClientConfig,
    memory: Memory,
    _folder: Option<TempDir>,
}

impl House {
    /// A house on a laptop, where the client `amelia` may have two environments.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(&folder.path().join("db")).expect("open");
        let house = Self {
            clients: store.clients(),
            sessions: store.sessions(),
            receipts: store.receipts(),
            queues: Arc::new(Weather::over(store.queues(DEAD))),
            dead: Arc::new(store.queue(DEAD, QueueSettings::default())),
            fleet: Arc::default(),
            amelia: client_config("amelia"),
            memory: Memory::default(),
            _folder: Some(folder),
        };
        house.clients.put(&house.amelia).await.expect("put");
        house
    }

    /// The same in the cloud, as others emulate it.
    pub(crate) async fn in_the_cloud() -> Self {
        let emulator = Emulator::shared(env!("CARGO_TARGET_TMPDIR"));
        let (stack, aws) = (emulator.stack().await, emulator.aws().await);
        let house = Self {
            clients: aws.clients(&stack.clients),
            sessions: aws.sessions(&stack.sessions),
            receipts: aws.receipts(&stack.receipts),
            queues: Arc::new(Weather::over(aws.queues(&stack.dead))),
            dead: aws.queue(&stack.dead),
            fleet: Arc::default(),
            amelia: client_config("amelia"),
            memory: Memory::default(),
            _folder: None,
        };
        house.clients.put(&house.amelia).await.expect("put");
        house
    }

    /// A router, with flights of its own.
    pub(crate) fn waker(&self) -> Waker {
        let launcher: Arc<dyn Launcher> = Arc::clone(&self.fleet) as _;
        Waker::new(Arc::clone(&self.sessions), launcher, CLAIMED_WITHIN_ON_ECS)
    }

    pub(crate) fn threads(&self) -> Threads {
        let entry = Entry {
            scheme: "https".to_owned(),
            edit_domain: "webordinary.com".to_owned(),
            port: None,
        };
        Threads::new(Arc::clone(&self.sessions), self.queues(), entry)
    }

    fn queues(&self) -> Arc<dyn Queues> {
        Arc::clone(&self.queues) as _
    }

    pub(crate) fn intake(&self) -> Intake {
        Intake {
            clients: Arc::clone(&self.clients),
            sessions: Arc::clone(&self.sessions),
            threads: self.threads(),
            queues: self.queues(),
            receipts: Arc::clone(&self.receipts),
            waker: self.waker(),
            dead: Arc::clone(&self.dead),
        }
    }

    pub(crate) fn sweep(&self) -> Sweep {
        Sweep {
            clients: Arc::clone(&self.clients),
            sessions: Arc::clone(&self.sessions),
            queues: self.queues(),
            receipts: Arc::clone(&self.receipts),
            launcher: Arc::clone(&self.fleet) as _,
            waker: self.waker(),
            dead: Arc::clone(&self.dead),
            memory: self.memory.clone(),
            metrics: edit_router::metrics::Metrics::default(),
        }
    }

    /// Session number `number` of amelia, asleep, with its queue.
    pub(crate) async fn sleeper(&self, number: u8) -> Session {
        let mut asleep = session(&self.amelia.client_id, number);
        asleep.session_id = self.fresh_id();
        asleep.queue_url = self
            .queues
            .create(&asleep.session_id)
            .await
            .expect("created");
        asleep.expires_at = Some(after(contract::session::KEPT).unix_ms() / 1000);
        let created = self.sessions.create(&asleep).await;
        assert_eq!(created.expect("answered"), Created::New);
        asleep
    }

    /// An id of amelia's that nobody else has: houses in the cloud are neighbours, with queues of the same account.
    pub(crate) fn fresh_id(&self) -> SessionId {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("there is randomness");
        SessionId::new(&self.amelia.client_id, random)
    }

    /// Takes a transition that has to be taken.
    pub(crate) async fn take(
        &self,
        session: &Session,
        transition: &Transition,
        now: Timestamp,
    ) -> Session {
        let (id, generation) = (&session.session_id, session.generation);
        let taken = self
            .sessions
            .transition(id, generation, transition, 100, now)
            .await;
        taken.expect("answered").expect("taken")
    }

    /// A session that was woken by a router that died before it launched anything.
    pub(crate) async fn waking(&self, number: u8) -> Session {
        let asleep = self.sleeper(number).await;
        let wake = Transition::Wake {
            seen: asleep.generation,
            proof_key: platform::conformance::records::proof_key(),
            lease_until: after(CLAIMED_WITHIN_ON_ECS),
        };
        self.take(&asleep, &wake, dawn()).await
    }

    /// A session whose site answers, with a lease of 30 seconds from dawn.
    pub(crate) async fn ready(&self, number: u8) -> Session {
        let waking = self.waking(number).await;
        let register = Transition::Register {
            ip: "10.0.0.7".to_owned(),
            port: 8080,
            site: SiteHealth::Ok,
            isolation: None,
            lease_until: after(Duration::from_secs(30)),
        };
        self.take(&waking, &register, dawn()).await
    }

    /// The record as it is.
    pub(crate) async fn now(&self, session: &SessionId) -> Session {
        self.sessions
            .get(session)
            .await
            .expect("answered")
            .expect("it is there")
    }

    /// What waits in a queue, first things first; it is taken out.
    pub(crate) async fn drained(&self, address: &str) -> Vec<Delivery> {
        drained(self.queues.open(address).as_ref()).await
    }

    /// What is with the dead letters; it is taken out.
    pub(crate) async fn dead_letters(&self) -> Vec<Delivery> {
        drained(self.dead.as_ref()).await
    }

    pub(crate) async fn waiting(&self, address: &str) -> u64 {
        self.queues
            .open(address)
            .depth()
            .await
            .expect("answered")
            .waiting
    }

    pub(crate) async fn receipt(&self, session: &SessionId, id: &str) -> Option<Receipt> {
        self.receipts
            .get(session, &instruction(id))
            .await
            .expect("answered")
    }

    /// Status and code of a receipt, such as `failed session_expired`.
    pub(crate) async fn answer(&self, session: &SessionId, id: &str) -> String {
        let Some(receipt) = self.receipt(session, id).await else {
            return "nothing".to_owned();
        };
        let code = receipt
            .error
            .map(|error| format!(" {}", error.code.as_str()));
        format!("{}{}", receipt.status.as_str(), code.unwrap_or_default())
    }

    /// Puts a message into a session's queue, as an agent's door does.
    pub(crate) async fn put(&self, session: &Session, body: &str, id: &str) {
        let message = outgoing(body, session.session_id.as_str(), id);
        self.queues
            .open(&session.queue_url)
            .send(&message)
            .await
            .expect("sent");
    }
}

pub(crate) fn outgoing(body: &str, group: &str, id: &str) -> Outgoing {
    Outgoing {
        body: body.to_owned(),
        group: group.to_owned(),
        deduplication_id: id.to_owned(),
        trace_parent: None,
    }
}

async fn drained(queue: &dyn Instructions) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    // In an empty queue there is nothing to wait for.
    while queue.depth().await.expect("answered").waiting > 0 {
        let Some(delivery) = queue.receive(LOOK, HELD).await.expect("answered") else {
            break;
        };
        assert_eq!(
            queue.delete(&delivery.handle).await.expect("answered"),
            Lease::Held
        );
        deliveries.push(delivery);
    }
    deliveries
}

/// So long after dawn.
pub(crate) fn after(time: Duration) -> Timestamp {
    dawn().plus(time)
}

/// So many seconds after dawn.
pub(crate) fn second(second: u64) -> Timestamp {
    after(Duration::from_secs(second))
}

/// An instruction of amelia's for a thread, which deletes a file.
pub(crate) fn for_thread(id: &str, name: &str) -> String {
    message(id, json!({ "threadId": name }))
}

/// The same for a session.
pub(crate) fn for_session(id: &str, session: &SessionId) -> String {
    message(id, json!({ "sessionId": session.as_str() }))
}

/// The same with more fields, which replace those that there are.
pub(crate) fn message(id: &str, more: Value) -> String {
    let mut message = json!({
        "version": 1,
        "instructionId": id,
        "clientId": "amelia",
        "submittedAt": "2026-11-22T09:30:00.000Z",
        "action": { "type": "edit", "changes": [{ "op": "delete", "path": "a.txt" }] },
    });
    let Value::Object(more) = more else {
        panic!("fields are an object")
    };
    message.as_object_mut().expect("an object").extend(more);
    message.to_string()
}

/// A message of the intake queue, the first time that it comes.
pub(crate) fn record(body: &str, group: &str, message_id: &str) -> Record {
    Record {
        message_id: message_id.to_owned(),
        body: body.to_owned(),
        group: group.to_owned(),
        receive_count: 1,
        sent_at: dawn(),
        trace_parent: None,
    }
}

/// The ids of instructions, in order.
pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| {
            let instruction = Instruction::parse(delivery.body.as_bytes()).expect("valid");
            instruction.instruction_id.to_string()
        })
        .collect()
}

pub(crate) fn other_client() -> ClientId {
    client("bertram")
}

pub(crate) async fn thread_of(house: &House, name: &str) -> Option<SessionId> {
    let found = house
        .sessions
        .find(&house.amelia.client_id, &thread(name))
        .await;
    found.expect("answered")
}

/// A session that ends, and where.
pub(crate) type Ending = (Arc<dyn Sessions>, Session);

/// The queues, and what happens to them: a wrapper round the port.
#[derive(Debug)]
pub(crate) struct Weather {
    queues: Arc<dyn Queues>,
    /// No queue takes a message.
    pub(crate) storm: Arc<AtomicBool>,
    /// Queues that were removed behind everybody's back, as their senders see it.
    pub(crate) gone: Arc<Mutex<HashSet<String>>>,
    /// A session that ends before the next message is in its queue.
    pub(crate) ends: Arc<Mutex<Option<Ending>>>,
    /// A message that is taken just before the next queue is removed.
    pub(crate) last_moment: Mutex<Option<(Intake, Record)>>,
}

impl Weather {
    pub(crate) fn over(queues: Arc<dyn Queues>) -> Self {
        Self {
            queues,
            storm: Arc::default(),
            gone: Arc::default(),
            ends: Arc::default(),
            last_moment: Mutex::default(),
        }
    }
}

#[async_trait]
impl Queues for Weather {
    async fn create(&self, session: &SessionId) -> platform::Result<String> {
        let address = self.queues.create(session).await?;
        self.gone.lock().expect("whole").remove(&address);
        Ok(address)
    }

    fn open(&self, address: &str) -> Arc<dyn Instructions> {
        Arc::new(Open {
            queue: self.queues.open(address),
            address: address.to_owned(),
            storm: Arc::clone(&self.storm),
            gone: Arc::clone(&self.gone),
            ends: Arc::clone(&self.ends),
        })
    }

    async fn remove(&self, address: &str) -> platform::Result<()> {
        let last_moment = self.last_moment.lock().expect("whole").take();
        if let Some((intake, record)) = last_moment {
            let failed = intake.take(vec![record], second(0)).await;
            assert!(failed.is_empty(), "{failed:?}");
        }
        self.queues.remove(address).await
    }

    async fn list(&self) -> platform::Result<Vec<SessionQueue>> {
        self.queues.list().await
    }

    async fn is_ours(&self, address: &str) -> platform::Result<bool> {
        self.queues.is_ours(address).await
    }
}

#[derive(Debug)]
struct Open {
    queue: Arc<dyn Instructions>,
    address: String,
    storm: Arc<AtomicBool>,
    gone: Arc<Mutex<HashSet<String>>>,
    ends: Arc<Mutex<Option<Ending>>>,
}

#[async_trait]
impl Instructions for Open {
    async fn send(&self, message: &Outgoing) -> platform::Result<Sent> {
        if self.storm.load(Ordering::SeqCst) {
            return Err(PortError::Unavailable {
                operation: "send to",
                thing: "a queue".to_owned(),
                source: "there is a storm".into(),
            });
        }
        if self.gone.lock().expect("whole").contains(&self.address) {
            return Err(PortError::Refused {
                operation: "send to",
                thing: "a queue".to_owned(),
                reason: "there is none".to_owned(),
            });
        }
        let ending = self.ends.lock().expect("whole").take();
        if let Some((sessions, session)) = ending {
            sessions.remove(&session).await?;
        }
        self.queue.send(message).await
    }

    async fn receive(
        &self,
        wait: Duration,
        visibility: Duration,
    ) -> platform::Result<Option<Delivery>> {
        self.queue.receive(wait, visibility).await
    }

    async fn extend(
        &self,
        handle: &DeliveryHandle,
        visibility: Duration,
    ) -> platform::Result<Lease> {
        self.queue.extend(handle, visibility).await
    }

    async fn delete(&self, handle: &DeliveryHandle) -> platform::Result<Lease> {
        self.queue.delete(handle).await
    }

    async fn depth(&self) -> platform::Result<Depth> {
        self.queue.depth().await
    }
}
