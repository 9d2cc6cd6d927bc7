//! A launcher whose machines are in this process: what ECS promises, and nothing of what it starts. What it does wrong is told
//! to it beforehand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use contract::{Generation, SessionId, Timestamp};
use platform::{LaunchFailed, Launcher, Order, PortError, Task, TaskState};

/// Launches tasks that are only said to run.
#[derive(Debug, Default)]
pub(crate) struct Fleet(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tasks: BTreeMap<(SessionId, Generation), Task>,
    orders: usize,
    looks: usize,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    stops: Vec<(String, String)>,
}

/// What goes wrong with a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Throttled,
    NoCapacity,
    Refused,
    /// It does not arrive.
    NotAsked,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It never answers.
    Hangs,
}

impl Fleet {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next launches go wrong like this.
    pub(crate) fn will(&self, faults: &[Fault]) {
        self.known().faults.extend(faults);
    }

    /// Every launch goes wrong like this from now on.
    pub(crate) fn always(&self, fault: Fault) {
        self.known().always = Some(fault);
    }

    /// No launch goes wrong any more.
    pub(crate) fn recovers(&self) {
        self.known().always = None;
    }

    /// How many times it was asked to launch.
    pub(crate) fn orders(&self) -> usize {
        self.known().orders
    }

    /// How many times it was asked after one task.
    pub(crate) fn looks(&self) -> usize {
        self.known().looks
    }

    /// How many tasks there ever were.
    pub(crate) fn tasks(&self) -> usize {
        self.known().tasks.len()
    }

    /// What was stopped, and why.
    pub(crate) fn stops(&self) -> Vec<(String, String)> {
        self.known().stops.clone()
    }

    /// A task is there, as if it had been launched at this moment.
    pub(crate) fn add(
        &self,
        session: &SessionId,
        generation: u64,
        created_at: Timestamp,
    ) -> String {
        let generation = Generation(generation);
        let task = new_task(session, generation, created_at);
        let name = task.name.clone();
        self.known()
            .tasks
            .insert((session.clone(), generation), task);
        name
    }

    /// A task ends by itself.
    pub(crate) fn die(
        &self,
        session: &SessionId,
        generation: Generation,
        reason: &str,
        code: Option<i32>,
    ) {
        let mut known = self.known();
        let task = known
            .tasks
            .get_mut(&(session.clone(), generation))
            .expect("it was launched");
        task.state = TaskState::Stopped {
            reason: reason.to_owned(),
            exit_code: code,
        };
    }
}

fn new_task(session: &SessionId, generation: Generation, created_at: Timestamp) -> Task {
    Task {
        name: format!("task-{}-{generation}", session.redacted()),
        session: session.clone(),
        generation,
        state: TaskState::Pending,
        created_at,
    }
}

fn lost() -> LaunchFailed {
    LaunchFailed::Unknown(PortError::Unavailable {
        operation: "launch",
        thing: "a task".to_owned(),
        source: "the connection broke".into(),
    })
}

#[async_trait]
impl Launcher for Fleet {
    async fn launch(&self, order: &Order) -> Result<Task, LaunchFailed> {
        let fault = {
            let mut known = self.known();
            known.orders += 1;
            known.faults.pop_front().or(known.always)
        };
        let reason = "as told".to_owned();
        match fault {
            Some(Fault::Throttled) => return Err(LaunchFailed::Throttled),
            Some(Fault::NoCapacity) => return Err(LaunchFailed::NoCapacity { reason }),
            Some(Fault::Refused) => return Err(LaunchFailed::Refused { reason }),
            Some(Fault::NotAsked) => return Err(lost()),
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::AnswerLost) | None => {}
        }
        // Others get their turn here, as over a network.
        tokio::task::yield_now().await;
        let key = (order.session.clone(), order.generation);
        let task = {
            let mut known = self.known();
            let task = known
                .tasks
                .entry(key)
                .or_insert_with(|| new_task(&order.session, order.generation, Timestamp::now()));
            task.clone()
        };
        if fault == Some(Fault::AnswerLost) {
            return Err(lost());
        }
        Ok(task)
    }

    async fn task(
        &self,
        session: &SessionId,
        generation: Generation,
    ) -> platform::Result<Option<Task>> {
        self.known().looks += 1;
        Ok(self
            .known()
            .tasks
            .get(&(session.clone(), generation))
            .cloned())
    }

    async fn running(&self) -> platform::Result<Vec<Task>> {
        let known = self.known();
        let runs = |task: &&Task| !matches!(task.state, TaskState::Stopped { .. });
        Ok(known.tasks.values().filter(runs).cloned().collect())
    }

    async fn stop(&self, task: &str, why: &str) -> platform::Result<()> {
        let mut known = self.known();
        if let Some(found) = known.tasks.values_mut().find(|found| found.name == task) {
            found.state = TaskState::Stopped {
                reason: why.to_owned(),
                exit_code: Some(0),
            };
        }
        known.stops.push((task.to_owned(), why.to_owned()));
        Ok(())
    }
}
