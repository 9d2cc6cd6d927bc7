//! Why an environment could not start, or was lost: the code and the words of the session's record.
//!
//! The message is for whoever owns the site, who has never heard of tasks and images. What a developer needs is in the log, and
//! with the task.

use contract::session::Failure;
use platform::{LaunchFailed, Task, TaskState};

/// What an image cannot be fetched for that does not pass by itself, as registries and ECS say it.
const IMAGE_STAYS_AWAY: [&str; 9] = [
    "not found",
    "manifest unknown",
    "does not exist",
    "denied",
    "unauthorized",
    "no basic auth",
    "403",
    "invalid reference",
    "platform",
];

/// Exit codes of the agent that say the same the next time: how it was called, the repository, Node, the configuration, a
/// client that may not (see `edit-agent --help`).
const EXIT_STAYS: [i32; 5] = [2, 10, 12, 20, 21];

const AGAIN: &str = "Please try again in a few minutes.";
const ASK: &str = "Please ask whoever set up your preview.";

fn failure(code: &str, what: &str, retryable: bool) -> Failure {
    let then = if retryable { AGAIN } else { ASK };
    Failure {
        code: code.to_owned(),
        message: format!("{what} {then}"),
        retryable,
    }
}

/// Why it was not launched.
pub(super) fn of_launch(failed: &LaunchFailed) -> Failure {
    match failed {
        LaunchFailed::Throttled => failure(
            "launch_throttled",
            "Too many previews are being started at the moment.",
            true,
        ),
        LaunchFailed::NoCapacity { .. } => failure(
            "no_capacity",
            "There is no free machine for your preview at the moment.",
            true,
        ),
        LaunchFailed::Unknown(error) if error.is_transient() => failure(
            "launch_unknown",
            "Something went wrong on our side while your preview was started.",
            true,
        ),
        LaunchFailed::Refused { .. } | LaunchFailed::Unknown(_) => failure(
            "launch_refused",
            "Your preview is not set up rightly.",
            false,
        ),
    }
}

/// Why it did not become ready in time.
pub(super) fn wake_timeout() -> Failure {
    failure("wake_timeout", "Your preview took too long to start.", true)
}

/// Why an environment that served is there no more.
pub fn environment_lost() -> Failure {
    failure(
        "environment_lost",
        "Your preview stopped unexpectedly. What was saved is safe.",
        true,
    )
}

/// Why a session whose task has ended cannot become ready; none while the task has not ended.
pub(super) fn of_task(task: &Task) -> Option<Failure> {
    let TaskState::Stopped { reason, exit_code } = &task.state else {
        return None;
    };
    Some(of_stop(reason, *exit_code))
}

fn of_stop(reason: &str, exit_code: Option<i32>) -> Failure {
    const CODE: &str = "task_stopped";
    let said = reason.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["cannotpull", "pull image", "imagepull"]) {
        return failure(
            CODE,
            "What shows your preview could not be fetched.",
            !says(&IMAGE_STAYS_AWAY),
        );
    }
    if says(&["outofmemory", "out of memory", "oom-kill"]) {
        return failure(CODE, "Your preview needs more memory than it has.", false);
    }
    if says(&["resourceinitializationerror"]) {
        return failure(
            CODE,
            "What your preview needs could not be put in place.",
            !says(&["denied", "not authorized", "notfound", "not found"]),
        );
    }
    if exit_code.is_some_and(|code| EXIT_STAYS.contains(&code)) {
        return failure(CODE, "Your preview is not set up rightly.", false);
    }
    failure(CODE, "Your preview stopped before it was ready.", true)
}
