//! `edit-router inspect`: what a request for a session would get, in words, and why. For whoever is called at night.

use contract::client_config::ClientStatus;
use contract::session::State;
use contract::{ClientConfig, Session, Timestamp};
use platform::{Depth, Task, TaskState};

use crate::host::preview_host;
use crate::policy::Policy;
use crate::rollout;
use crate::route::{Why, standing};
use crate::wake::again_at;

/// Everything that is known of a session.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its record.
    pub session: Session,
    /// Its client; none if there is no such client.
    pub config: Option<ClientConfig>,
    /// The task of its generation, if the launcher can be asked and knows of one.
    pub task: Asked,
    /// What waits for it.
    pub depth: Option<Depth>,
}

/// What the launcher said.
#[derive(Debug, Clone)]
pub enum Asked {
    /// The task.
    Task(Task),
    /// That there is none, or that it has been gone for long.
    None,
    /// Nothing: only the router that started it could say.
    Nothing,
}

/// What a request would get, and why.
pub fn explain(facts: &Facts, policy: &Policy, now: Timestamp) -> String {
    let Facts {
        session, config, ..
    } = facts;
    let mut lines = vec![format!(
        "Session {}… of client {}, thread {:?}, generation {}.",
        session.session_id.redacted(),
        session.client_id,
        session.thread_id.as_str(),
        session.generation
    )];
    let Some(config) = config else {
        lines.push(
            "There is no configuration of this client: every request is answered 404.".to_owned(),
        );
        return lines.join("\n");
    };
    lines.push(answer(config, session, policy, now));
    lines.extend(details(facts, now));
    match preview_host(&config.client_id, &session.session_id, policy) {
        Some(host) => lines.push(format!(
            "It is seen at {}, by a browser that came through its entry.",
            policy.public.address(&host, "/")
        )),
        None => lines.push(
            "It is seen on its client's edit host, by a browser that came through its entry."
                .to_owned(),
        ),
    }
    lines.join("\n")
}

fn answer(config: &ClientConfig, session: &Session, policy: &Policy, now: Timestamp) -> String {
    if let Some(away) = rollout::session(config, &session.session_id) {
        return format!(
            "A visitor is sent to {}: the client's `rollout` leaves this session with the old system.",
            away.host
        );
    }
    let lease = match session.lease_until {
        None => "it has no lease".to_owned(),
        Some(until) if until > now => format!(
            "its lease is valid for {} s more",
            until.since(now).as_secs()
        ),
        Some(until) => format!(
            "its lease has been over for {} s",
            now.since(until).as_secs()
        ),
    };
    let address = match (&session.container_ip, session.port) {
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => "no address".to_owned(),
    };
    match standing(config, session, policy, now) {
        Ok(address) => format!(
            "A visitor gets its site, from {address}, if what answers there proves itself: the session is ready, and {lease}."
        ),
        Err(Why::Suspended) => {
            "A visitor is told that editing is switched off: the client's `status` is suspended."
                .to_owned()
        }
        Err(Why::Asleep) => {
            "A visitor gets the waiting page: it sleeps, and the page's own POST wakes it."
                .to_owned()
        }
        Err(Why::Waking) => {
            format!("A visitor gets the waiting page: it is being woken, and {lease}.")
        }
        Err(Why::Draining) => format!(
            "A visitor gets the waiting page: it saves everything before it sleeps, and {lease}."
        ),
        Err(Why::Lost) => format!(
            "A visitor gets the waiting page, and may wake it: the record says {}, but {lease}.",
            state(session.state)
        ),
        Err(Why::Nowhere) => format!(
            "A visitor gets the waiting page: the record says {address}, and no container may be there (ALLOWED_CIDRS)."
        ),
        Err(Why::Unproven | Why::Unreachable) => {
            "A visitor gets the waiting page: what answers at its address did not prove itself."
                .to_owned()
        }
        Err(Why::Failed) => {
            let failure = session.failure.as_ref();
            let code = failure.map_or("unknown", |failure| failure.code.as_str());
            let message = failure.map_or("", |failure| failure.message.as_str());
            let again = match again_at(session) {
                Some(at) if at > now => format!(
                    "it is tried again by itself in {} s",
                    at.since(now).as_secs()
                ),
                Some(_) => "it may be tried again by itself".to_owned(),
                None => "it is not tried again by itself".to_owned(),
            };
            format!(
                "A visitor gets the waiting page with a button: it failed ({code}: {message}), {} times in a row before it was ready; {again}.",
                session.failed_wakes
            )
        }
    }
}

fn details(facts: &Facts, now: Timestamp) -> Vec<String> {
    let session = &facts.session;
    let mut lines = Vec::new();
    if let Some(config) = &facts.config
        && config.status == ClientStatus::Active
        && let (State::Waking, Some(phase)) = (session.state, session.phase)
    {
        let since = session
            .phase_since
            .map_or(0, |since| now.since(since).as_secs());
        lines.push(format!(
            "It has been in the phase {} for {since} s.",
            serde_json::to_value(phase)
                .ok()
                .and_then(|phase| phase.as_str().map(str::to_owned))
                .unwrap_or_default()
        ));
    }
    if let Some(because) = &session.awake_because {
        lines.push(format!("It is awake because {because}."));
    }
    match &facts.task {
        Asked::None => lines.push("The launcher knows of no task of this generation.".to_owned()),
        Asked::Nothing => lines.extend(
            session
                .task_arn
                .as_ref()
                .map(|task| format!("Its task is {task}.")),
        ),
        Asked::Task(task) => {
            let how = match &task.state {
                TaskState::Pending => "is being started".to_owned(),
                TaskState::Running => "runs".to_owned(),
                TaskState::Stopped { reason, exit_code } => match exit_code {
                    Some(code) => format!("has stopped with exit code {code}: {reason}"),
                    None => format!("has stopped: {reason}"),
                },
            };
            lines.push(format!("Its task {} {how}.", task.name));
        }
    }
    if let Some(depth) = &facts.depth {
        lines.push(format!(
            "{} instructions wait, and {} are being carried out.",
            depth.waiting, depth.in_flight
        ));
    }
    for parked in &session.parked {
        lines.push(format!(
            "Work is parked: {:?}, commit {}, {} files changed by hand.",
            parked.place,
            parked.commit,
            parked.files.len()
        ));
    }
    if let Some(expires) = session.expires_at {
        let left = expires - now.unix_ms().div_euclid(1000);
        lines.push(format!(
            "It expires in {} days if nobody wakes it.",
            left.max(0) / 86_400
        ));
    }
    lines
}

fn state(state: State) -> &'static str {
    match state {
        State::Dormant => "dormant",
        State::Waking => "waking",
        State::Ready => "ready",
        State::Draining => "draining",
        State::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use contract::session::Failure;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_ms(10_000_000)
    }

    fn facts(change: impl FnOnce(&mut Session)) -> Facts {
        let config = ClientConfig::parse(&json!({
            "clientId": "amelia",
            "domains": { "production": "ameliastamps.com", "edit": "edit.ameliastamps.com", "api": "api.ameliastamps.com" },
            "repository": { "url": "https://git.example/amelia.git", "branch": "main" },
            "infrastructure": {},
            "settings": { "containerSize": "small", "idleTimeoutMinutes": 30, "maxConcurrentSessions": 2 },
            "status": "active",
        }))
        .expect("valid");
        let mut session = Session::new(
            "amelia_aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().expect("an id"),
            config.client_id.clone(),
            "spring".parse().expect("an id"),
            "amelia".to_owned(),
            now(),
        );
        change(&mut session);
        Facts {
            session,
            config: Some(config),
            task: Asked::None,
            depth: Some(Depth {
                waiting: 2,
                in_flight: 0,
            }),
        }
    }

    #[test]
    fn what_failed_is_said_with_its_reason_and_what_comes_next() {
        let facts = facts(|session| {
            session.state = State::Failed;
            session.failure = Some(Failure {
                code: "no_capacity".to_owned(),
                message: "There is no room at the moment.".to_owned(),
                retryable: true,
            });
            session.failed_at = Some(now());
            session.failed_wakes = 2;
        });
        insta::assert_snapshot!(explain(&facts, &Policy::for_tests(), now()), @r#"
        Session aaaaaaaa… of client amelia, thread "spring", generation 0.
        A visitor gets the waiting page with a button: it failed (no_capacity: There is no room at the moment.), 2 times in a row before it was ready; it is tried again by itself in 15 s.
        The launcher knows of no task of this generation.
        2 instructions wait, and 0 are being carried out.
        It expires in 28 days if nobody wakes it.
        It is seen on its client's edit host, by a browser that came through its entry.
        "#);
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_told_from_one_that_serves() {
        let at = |ip: &str| {
            let facts = facts(|session| {
                session.state = State::Ready;
                session.lease_until = Some(now().plus(Duration::from_secs(20)));
                session.container_ip = Some(ip.to_owned());
                session.port = Some(8080);
            });
            let text = explain(&facts, &Policy::for_tests(), now());
            text.lines().nth(1).expect("an answer").to_owned()
        };
        insta::assert_snapshot!(at("10.0.0.7"), @"A visitor gets its site, from 10.0.0.7:8080, if what answers there proves itself: the session is ready, and its lease is valid for 20 s more.");
        insta::assert_snapshot!(at("169.254.169.254"), @"A visitor gets the waiting page: the record says 169.254.169.254:8080, and no container may be there (ALLOWED_CIDRS).");
    }
}
