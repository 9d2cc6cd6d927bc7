//! The port to what starts and stops environments.

use std::fmt::Debug;

use async_trait::async_trait;
use contract::client_config::ContainerSize;
use contract::{ClientId, Generation, SessionId, Timestamp};

use crate::{PortError, Result};

/// Starts the environments of sessions and says what became of them. ECS in the cloud, processes on a laptop.
///
/// An environment is one task of one session in one generation. Whoever launches it again, because a reply was lost or
/// because another router did the same, gets the task that there is: of one generation there are never two.
#[async_trait]
pub trait Launcher: Send + Sync + Debug {
    /// Starts the environment of a session in a generation, and returns as soon as it is accepted.
    async fn launch(&self, order: &Order) -> std::result::Result<Task, LaunchFailed>;

    /// The task of a session in a generation, also for a while after it has stopped; none if there never was one, or if
    /// it stopped so long ago that nobody knows of it (ECS: an hour).
    async fn task(&self, session: &SessionId, generation: Generation) -> Result<Option<Task>>;

    /// Every task of ours that has not stopped, of all clients.
    async fn running(&self) -> Result<Vec<Task>>;

    /// Stops a task: SIGTERM, and after its stop timeout SIGKILL. A task that has stopped, or that there is not, is as wanted.
    ///
    /// `why` is kept with the task, for whoever looks at it later.
    async fn stop(&self, task: &str, why: &str) -> Result<()>;
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Whose.
    pub client: ClientId,
    /// For which session.
    pub session: SessionId,
    /// In which generation.
    pub generation: Generation,
    /// How large.
    pub size: ContainerSize,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name: an ARN, or a process. What the agent writes as `taskArn` is the same.
    pub name: String,
    /// For which session; none if it cannot be told, and then it is none that we started.
    pub session: SessionId,
    /// In which generation.
    pub generation: Generation,
    /// How it is.
    pub state: TaskState,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// How a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// It is being given a machine and its image.
    Pending,
    /// Its process runs.
    Running,
    /// It has ended, or is about to.
    Stopped {
        /// Why, in the words of whoever ended it.
        reason: String,
        /// The exit code of the agent, if it came so far.
        exit_code: Option<i32>,
    },
}

/// Why a task was not started. `Debug` and `Display` name no session.
#[derive(Debug, thiserror::Error)]
pub enum LaunchFailed {
    /// Too many are started at the moment: to be tried again after a while.
    #[error("the launcher takes no more orders at the moment")]
    Throttled,
    /// There is no machine for it at the moment: to be tried again after a while.
    #[error("there is no capacity for it at the moment: {reason}")]
    NoCapacity {
        /// In the launcher's words.
        reason: String,
    },
    /// It will never work like this: an operator has to put something right.
    #[error("the launcher refuses: {reason}")]
    Refused {
        /// In the launcher's words.
        reason: String,
    },
    /// It is not known whether it was started: to be asked again, with the same order.
    #[error(transparent)]
    Unknown(#[from] PortError),
}
