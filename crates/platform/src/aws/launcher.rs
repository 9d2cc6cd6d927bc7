//! Environments as tasks of ECS on Fargate.
//!
//! ```text
//!  launch ─ RunTask (token of session and generation) ──▶ a task, or the one that the token has made already
//!              │ the same token, asked for otherwise (ConflictException)
//!              └──▶ look it up ──▶ that task
//! ```
//!
//! - **One task a session and generation.** ECS remembers a token for as long as the task lives and an hour longer, at most
//!   a day. So a launch may be repeated after every reply that was lost, by whichever router.
//! - **The session's id is a capability** and appears nowhere but in the variables of the container, which only those see
//!   who may describe tasks: token and `startedBy` are made of its digest.
//! - **What it costs** is decided by the size of the client's containers, as an override of the task definition's CPU and
//!   memory. Its containers must not have limits of their own that are larger than the smallest size.
//! - **Who is ours**: tasks of the task definition's family whose container was given a session and a generation. Others of
//!   that family, such as one that somebody runs by hand to look at the image, are none of our business.

use std::fmt;

use async_trait::async_trait;
use aws_sdk_ecs::error::ProvideErrorMetadata as _;
use aws_sdk_ecs::operation::run_task::RunTaskError;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, ContainerOverride, DesiredStatus, Failure, KeyValuePair,
    LaunchType, NetworkConfiguration, PropagateTags, Tag, TaskOverride,
};
use contract::client_config::ContainerSize;
use contract::id::hex;
use contract::{Generation, SessionId, Timestamp};
use sha2::{Digest as _, Sha256};

use super::fault::Asked;
use crate::error::without_session_ids;
use crate::{LaunchFailed, Launcher, Order, PortError, Result, Task, TaskState};

/// How many tasks one `DescribeTasks` describes.
const BATCH: usize = 100;

/// How long the reason for stopping a task may be.
const REASON_MAX_CHARS: usize = 255;

/// The variables by which an environment knows what it is.
const CLIENT_ID: &str = "CLIENT_ID";
const SESSION_ID: &str = "SESSION_ID";
const GENERATION: &str = "GENERATION";

/// The tag of a task that says whose it is, for the bill.
const CLIENT_TAG: &str = "client";

/// Where and how tasks are run.
#[derive(Debug, Clone, Default)]
pub struct EcsSettings {
    /// The cluster, by name or ARN.
    pub cluster: String,
    /// The task definition: its family (the newest revision then), `family:revision`, or its ARN.
    pub task_definition: String,
    /// The agent's container in it.
    pub container_name: String,
    /// Where tasks have their addresses. All of one VPC.
    pub subnets: Vec<String>,
    /// What may reach them and what they may reach.
    pub security_groups: Vec<String>,
    /// Whether they have public addresses as well: in subnets without a NAT gateway they reach no registry otherwise.
    pub assign_public_ip: bool,
    /// Variables for every environment, beside those that say which session it has.
    pub environment: Vec<(String, String)>,
}

pub(super) struct EcsLauncher {
    pub(super) ecs: aws_sdk_ecs::Client,
    pub(super) region: String,
    pub(super) settings: EcsSettings,
}

impl fmt::Debug for EcsLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsLauncher")
            .field("cluster", &self.settings.cluster)
            .field("task_definition", &self.settings.task_definition)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Launcher for EcsLauncher {
    async fn launch(&self, order: &Order) -> std::result::Result<Task, LaunchFailed> {
        let asked = self.asked("launch", &order.session);
        let mark = mark(&order.session, order.generation);
        let tag = Tag::builder()
            .key(CLIENT_TAG)
            .value(order.client.as_str())
            .build();
        let sent = self
            .ecs
            .run_task()
            .cluster(&self.settings.cluster)
            .task_definition(&self.settings.task_definition)
            .launch_type(LaunchType::Fargate)
            .count(1)
            .client_token(&mark)
            .started_by(&mark)
            .network_configuration(self.network(&asked)?)
            .overrides(self.overrides(order))
            .propagate_tags(PropagateTags::TaskDefinition)
            .tags(tag)
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(RunTaskError::ConflictException(_)) = error.as_service_error() {
                    return self.launched_before(&asked, order).await;
                }
                let said = error.message().unwrap_or_default();
                return Err(match judge(error.code().unwrap_or_default(), said) {
                    Verdict::Throttled => LaunchFailed::Throttled,
                    Verdict::NoCapacity => LaunchFailed::NoCapacity {
                        reason: asked.shown(said),
                    },
                    Verdict::Other => match asked.failed(error) {
                        PortError::Refused { reason, .. } => LaunchFailed::Refused { reason },
                        unknown => LaunchFailed::Unknown(unknown),
                    },
                });
            }
        };
        if let Some(task) = answer.tasks().first() {
            return self
                .read(task)
                .ok_or_else(|| asked.corrupt(Unreadable).into());
        }
        Err(match answer.failures().first() {
            Some(failure) => failed(&asked, failure),
            None => asked
                .unavailable("the answer has neither a task nor a failure")
                .into(),
        })
    }

    async fn task(&self, session: &SessionId, generation: Generation) -> Result<Option<Task>> {
        let asked = self.asked("look for", session);
        let mark = mark(session, generation);
        let mut arns = Vec::new();
        // One question is about one of them.
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            arns.extend(self.list(&asked, Some(&mark), status).await?);
        }
        let found = self.describe(&asked, &arns).await?;
        Ok(found
            .into_iter()
            .filter(|task| task.session == *session && task.generation == generation)
            // Should ECS ever have started two: the one that runs, and of several the newest.
            .max_by_key(|task| {
                let stopped = matches!(task.state, TaskState::Stopped { .. });
                (!stopped, task.created_at)
            }))
    }

    async fn running(&self) -> Result<Vec<Task>> {
        let asked = self.asked_about("list", "the tasks of environments");
        let arns = self.list(&asked, None, DesiredStatus::Running).await?;
        let mut found = self.describe(&asked, &arns).await?;
        found.retain(|task| !matches!(task.state, TaskState::Stopped { .. }));
        Ok(found)
    }

    async fn stop(&self, task: &str, why: &str) -> Result<()> {
        let asked = self.asked_about("stop", format!("task {}", short(task)));
        let why: String = without_session_ids(why, None)
            .chars()
            .take(REASON_MAX_CHARS)
            .collect();
        let sent = self
            .ecs
            .stop_task()
            .cluster(&self.settings.cluster)
            .task(task)
            .reason(why)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(error) if is_gone(error.code(), error.message()) => Ok(()),
            Err(error) => Err(asked.failed(error)),
        }
    }
}

impl EcsLauncher {
    fn asked(&self, operation: &'static str, session: &SessionId) -> Asked {
        let thing = format!("the environment of session {}", session.redacted());
        self.asked_about(operation, thing).of(session)
    }

    fn asked_about(&self, operation: &'static str, thing: impl Into<String>) -> Asked {
        Asked {
            operation,
            thing: thing.into(),
            place: format!(
                "task definition {} in cluster {} in {}",
                self.settings.task_definition, self.settings.cluster, self.region
            ),
            capability: None,
        }
    }

    fn network(&self, asked: &Asked) -> Result<NetworkConfiguration> {
        let public = if self.settings.assign_public_ip {
            AssignPublicIp::Enabled
        } else {
            AssignPublicIp::Disabled
        };
        let vpc = AwsVpcConfiguration::builder()
            .set_subnets(Some(self.settings.subnets.clone()))
            .set_security_groups(Some(self.settings.security_groups.clone()))
            .assign_public_ip(public)
            .build()
            .map_err(|error| asked.refused(error.to_string()))?;
        Ok(NetworkConfiguration::builder()
            .awsvpc_configuration(vpc)
            .build())
    }

    fn overrides(&self, order: &Order) -> TaskOverride {
        let variable =
            |name: &str, value: String| KeyValuePair::builder().name(name).value(value).build();
        let mut container = ContainerOverride::builder().name(&self.settings.container_name);
        for (name, value) in &self.settings.environment {
            container = container.environment(variable(name, value.clone()));
        }
        let container = container
            .environment(variable(CLIENT_ID, order.client.to_string()))
            .environment(variable(SESSION_ID, order.session.to_string()))
            .environment(variable(GENERATION, order.generation.to_string()))
            .build();
        let (cpu, memory) = size(order.size);
        TaskOverride::builder()
            .cpu(cpu)
            .memory(memory)
            .container_overrides(container)
            .build()
    }

    /// The task that the order's token made, asked for otherwise: perhaps the client's size was changed in between.
    async fn launched_before(
        &self,
        asked: &Asked,
        order: &Order,
    ) -> std::result::Result<Task, LaunchFailed> {
        self.task(&order.session, order.generation)
            .await?
            .ok_or_else(|| {
                // What has just been started is listed a moment later.
                asked
                    .unavailable("it was launched already, and is not listed yet")
                    .into()
            })
    }

    /// The ARNs of tasks: those with a mark, or those of the family.
    async fn list(
        &self,
        asked: &Asked,
        mark: Option<&str>,
        status: DesiredStatus,
    ) -> Result<Vec<String>> {
        let family = family(&self.settings.task_definition);
        let mut request = self
            .ecs
            .list_tasks()
            .cluster(&self.settings.cluster)
            .desired_status(status);
        // With a mark, ECS takes no family.
        request = match mark {
            Some(mark) => request.started_by(mark),
            None => request.family(family),
        };
        let mut pages = request.into_paginator().items().send();
        let mut arns = Vec::new();
        while let Some(arn) = pages.next().await {
            arns.push(arn.map_err(|error| asked.failed(error))?);
        }
        Ok(arns)
    }

    /// What ECS says of tasks; those that are not ours are left out, and those that are gone by now.
    async fn describe(&self, asked: &Asked, arns: &[String]) -> Result<Vec<Task>> {
        let mut found = Vec::new();
        for some in arns.chunks(BATCH) {
            let answer = self
                .ecs
                .describe_tasks()
                .cluster(&self.settings.cluster)
                .set_tasks(Some(some.to_vec()))
                .send()
                .await
                .map_err(|error| asked.failed(error))?;
            found.extend(answer.tasks().iter().filter_map(|task| self.read(task)));
        }
        Ok(found)
    }

    /// What ECS says of a task, if it is one of ours.
    fn read(&self, task: &aws_sdk_ecs::types::Task) -> Option<Task> {
        let told = task
            .overrides()?
            .container_overrides()
            .iter()
            .find(|container| container.name() == Some(&self.settings.container_name))?;
        let variable = |name: &str| {
            let mut variables = told.environment().iter();
            variables.find(|one| one.name() == Some(name))?.value()
        };
        let session: SessionId = variable(SESSION_ID)?.parse().ok()?;
        let generation = Generation(variable(GENERATION)?.parse().ok()?);
        let container = task
            .containers()
            .iter()
            .find(|container| container.name() == Some(&self.settings.container_name));
        let ending = Ending {
            reason: task.stopped_reason(),
            code: task
                .stop_code()
                .map(aws_sdk_ecs::types::TaskStopCode::as_str),
            container: container.and_then(|container| container.reason()),
            exit_code: container.and_then(aws_sdk_ecs::types::Container::exit_code),
        };
        let state = state(task.desired_status(), task.last_status(), &ending, &session);
        let created_at = task.created_at().and_then(|at| at.to_millis().ok());
        Some(Task {
            name: task.task_arn()?.to_owned(),
            session,
            generation,
            state,
            created_at: Timestamp::from_unix_ms(created_at.unwrap_or_default()),
        })
    }
}

/// CPU units and MiB of memory.
fn size(size: ContainerSize) -> (&'static str, &'static str) {
    match size {
        ContainerSize::Small => ("512", "1024"),
        ContainerSize::Medium => ("1024", "2048"),
        ContainerSize::Large => ("2048", "4096"),
    }
}

/// What stands for a session in a generation where others may see it: 36 characters, the fewest that `startedBy` ever took.
fn mark(session: &SessionId, generation: Generation) -> String {
    let digest = Sha256::digest(format!("{session} {generation}").as_bytes());
    format!("edit-{:.31}", hex(&digest))
}

/// The family in the name of a task definition: `edit-agent` in `edit-agent:7` and in an ARN.
fn family(task_definition: &str) -> &str {
    let name = task_definition
        .rsplit_once('/')
        .map_or(task_definition, |(_, name)| name);
    name.split_once(':').map_or(name, |(family, _)| family)
}

/// The last part of an ARN.
fn short(task: &str) -> &str {
    task.rsplit('/').next().unwrap_or(task)
}

/// Why a task has ended, as far as ECS says.
struct Ending<'a> {
    reason: Option<&'a str>,
    code: Option<&'a str>,
    /// What is said of the container: that its image could not be pulled, that its memory ran out.
    container: Option<&'a str>,
    exit_code: Option<i32>,
}

fn state(
    desired: Option<&str>,
    last: Option<&str>,
    ending: &Ending<'_>,
    session: &SessionId,
) -> TaskState {
    let over = matches!(
        last,
        Some("DEACTIVATING" | "STOPPING" | "DEPROVISIONING" | "STOPPED" | "DELETED")
    );
    if desired == Some("STOPPED") || over {
        let said = match (ending.reason.or(ending.code), ending.container) {
            (Some(reason), Some(container)) => format!("{reason}: {container}"),
            (Some(said), None) | (None, Some(said)) => said.to_owned(),
            (None, None) => "ECS does not say why".to_owned(),
        };
        TaskState::Stopped {
            reason: without_session_ids(&said, Some(session.as_str())),
            exit_code: ending.exit_code,
        }
    } else if last == Some("RUNNING") {
        TaskState::Running
    } else {
        TaskState::Pending
    }
}

/// What a code and its words mean for a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Throttled,
    NoCapacity,
    /// As for every other operation.
    Other,
}

/// ECS says most things in words: the same lack of capacity is a failure in an answer here and a `ClientException` there.
fn judge(code: &str, said: &str) -> Verdict {
    const THROTTLED: [&str; 5] = [
        "Throttling",
        "ThrottledException",
        "TooManyRequests",
        "RequestLimitExceeded",
        "Rate exceeded",
    ];
    const NO_CAPACITY: [&str; 5] = [
        "Capacity is unavailable",
        "RESOURCE:",
        // The account's quotas.
        "You've reached the limit",
        "limit on the number of",
        // No address is left in the subnets.
        "free addresses",
    ];
    let says =
        |words: &str| code.contains(words) || said.to_lowercase().contains(&words.to_lowercase());
    if THROTTLED.iter().any(|words| says(words)) {
        Verdict::Throttled
    } else if NO_CAPACITY.iter().any(|words| says(words)) {
        Verdict::NoCapacity
    } else {
        Verdict::Other
    }
}

/// What a failure in an answer means.
fn failed(asked: &Asked, failure: &Failure) -> LaunchFailed {
    let said = [failure.reason(), failure.detail(), failure.arn()];
    let said: Vec<&str> = said.into_iter().flatten().collect();
    let said = said.join(", ");
    match judge("", &said) {
        Verdict::Throttled => LaunchFailed::Throttled,
        Verdict::NoCapacity => LaunchFailed::NoCapacity {
            reason: asked.shown(&said),
        },
        Verdict::Other => LaunchFailed::Refused {
            reason: asked.shown(&format!("{} answers {said}", asked.place)),
        },
    }
}

/// Whether a task is not there (any more), which ECS says in words.
fn is_gone(code: Option<&str>, said: Option<&str>) -> bool {
    code == Some("InvalidParameterException")
        && said.is_some_and(|said| said.to_lowercase().contains("task was not found"))
}

/// A task of our own that lacks what we gave it.
#[derive(Debug, thiserror::Error)]
#[error("the task that was started has no ARN, or not the session that it was given")]
struct Unreadable;

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionId {
        SessionId::new(&"amelia".parse().expect("valid"), [7; 16])
    }

    #[test]
    fn a_mark_is_of_one_session_and_generation_and_does_not_show_it() {
        let one = mark(&session(), Generation(1));
        assert_eq!(one, mark(&session(), Generation(1)));
        assert_ne!(one, mark(&session(), Generation(11)));
        assert_eq!(one.len(), 36);
        assert!(!one.contains(session().redacted()), "{one}");
        // Else tasks of two builds would not know of each other.
        let other = SessionId::new(&"mia".parse().expect("valid"), [0; 16]);
        assert_eq!(
            mark(&other, Generation(1)),
            "edit-70d67316db3d5d18e0af0a26114e3fa"
        );
    }

    #[test]
    fn a_family_is_read_from_every_name_of_a_task_definition() {
        for name in [
            "edit-agent",
            "edit-agent:7",
            "arn:aws:ecs:eu-central-1:123456789012:task-definition/edit-agent:7",
            "arn:aws:ecs:eu-central-1:123456789012:task-definition/edit-agent",
        ] {
            assert_eq!(family(name), "edit-agent", "{name}");
        }
    }

    #[test]
    fn what_ecs_says_of_a_launch_is_understood() {
        let capacity = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
        for (code, said, verdict) in [
            ("ThrottlingException", "Rate exceeded", Verdict::Throttled),
            ("", "RESOURCE:CPU", Verdict::NoCapacity),
            ("", "RESOURCE:ENI", Verdict::NoCapacity),
            ("", capacity, Verdict::NoCapacity),
            ("ClientException", capacity, Verdict::NoCapacity),
            (
                "ClientException",
                "You've reached the limit on the number of vCPUs you can run concurrently",
                Verdict::NoCapacity,
            ),
            (
                "InvalidParameterException",
                "No Container Instances were found in your cluster.",
                Verdict::Other,
            ),
            (
                "ClientException",
                "TaskDefinition is inactive",
                Verdict::Other,
            ),
            ("ServerException", "Service Unavailable.", Verdict::Other),
            ("", "MISSING", Verdict::Other),
            ("", "", Verdict::Other),
        ] {
            assert_eq!(judge(code, said), verdict, "{code}: {said}");
        }
    }

    #[test]
    fn every_status_of_a_task_is_one_of_three() {
        let nothing = Ending {
            reason: None,
            code: None,
            container: None,
            exit_code: None,
        };
        for (desired, last, expected) in [
            ("RUNNING", "PROVISIONING", "Pending"),
            ("RUNNING", "PENDING", "Pending"),
            ("RUNNING", "ACTIVATING", "Pending"),
            ("RUNNING", "RUNNING", "Running"),
            ("STOPPED", "PENDING", "Stopped"),
            ("STOPPED", "RUNNING", "Stopped"),
            ("RUNNING", "DEACTIVATING", "Stopped"),
            ("STOPPED", "DEPROVISIONING", "Stopped"),
            ("STOPPED", "STOPPED", "Stopped"),
            ("RUNNING", "WHATEVER_IS_NEXT", "Pending"),
        ] {
            let state = state(Some(desired), Some(last), &nothing, &session());
            let said = format!("{state:?}");
            assert!(said.starts_with(expected), "{desired}, {last}: {said}");
        }
    }

    #[test]
    fn a_task_that_has_stopped_says_why_without_naming_its_session() {
        let said = |reason, code, container| {
            let ending = Ending {
                reason,
                code,
                container,
                exit_code: Some(20),
            };
            state(Some("STOPPED"), Some("STOPPED"), &ending, &session())
        };
        let stopped = |reason: &str| TaskState::Stopped {
            reason: reason.to_owned(),
            exit_code: Some(20),
        };
        assert_eq!(
            said(
                Some("Essential container in task exited"),
                Some("EssentialContainerExited"),
                None
            ),
            stopped("Essential container in task exited")
        );
        assert_eq!(
            said(
                Some("Task failed to start"),
                None,
                Some("CannotPullContainerError: no such image")
            ),
            stopped("Task failed to start: CannotPullContainerError: no such image")
        );
        assert_eq!(
            said(None, Some("SpotInterruption"), None),
            stopped("SpotInterruption")
        );
        assert_eq!(said(None, None, None), stopped("ECS does not say why"));
        let id = session();
        let reason = format!("the lease of {id} is over");
        assert_eq!(
            said(Some(&reason), None, None),
            stopped(&format!("the lease of {}… is over", id.redacted()))
        );
    }

    #[test]
    fn a_task_that_is_gone_is_told_from_other_mistakes() {
        let gone = Some("InvalidParameterException");
        assert!(is_gone(gone, Some("The referenced task was not found.")));
        assert!(!is_gone(gone, Some("taskId longer than 36.")));
        assert!(!is_gone(
            Some("ClusterNotFoundException"),
            Some("Cluster not found.")
        ));
        assert!(!is_gone(None, None));
    }
}
