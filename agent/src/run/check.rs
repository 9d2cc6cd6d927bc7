//! `edit-agent check`: would `run` work? Everything is looked at and nothing is started, taken or written.

use std::io::Write as _;

use super::backend::{Backend, failure};
use super::settings::{Settings, Wanted, Where};
use super::{remote, task, usable};
use crate::cli::RunArguments;
use crate::failure::{Exit, Failure};
use crate::isolation::{Isolation, Users};
use crate::site::node::Node;

/// Looks at everything that an environment needs, and says of each how it is. Fails with the first that is not right.
pub(crate) async fn check(arguments: RunArguments) -> Result<Exit, Failure> {
    let settings = Settings::read(&arguments)?;
    let mut report = Report::default();
    Report::fine("variables", &format!("client {}", settings.client_id));
    report.note(
        "node",
        Node::find(None, Isolation::none())
            .await
            .map(|node| node.version.to_string())
            .map_err(Failure::from),
    );
    match settings.isolation {
        Wanted::None => Report::fine("isolation", "none: everything is one user"),
        Wanted::Users => report.note(
            "isolation",
            Users::find().map(|_| "users; it is proven at every start".to_owned()),
        ),
    }
    report.note(
        "task",
        task::find(&settings)
            .await
            .map(|task| format!("{} at {}", task.arn, task.ip)),
    );
    if let Where::Local { folder } = &settings.records
        && !folder.join("edit.sqlite").is_file()
    {
        let missing = Failure::new(
            Exit::Config,
            format!("there are no records in {}", folder.display()),
            "Name the --state of the router that makes them.",
        );
        report.note("records", Err(missing));
        return report.end();
    }
    let backend = Backend::open(&settings).await?;
    let session = backend.sessions.get(&settings.session_id).await;
    let session = session
        .map_err(|error| failure("read the session's record", &error))
        .and_then(|session| {
            session.ok_or_else(|| {
                Failure::new(
                    Exit::Config,
                    format!("there is no session {}…", settings.session_id.redacted()),
                    "Check SESSION_ID and SESSIONS_TABLE.",
                )
            })
        });
    let config = backend.clients.get(&settings.client_id).await;
    let config = config
        .map_err(|error| failure("read the client's configuration", &error))
        .and_then(|config| usable(&settings, config));
    if let (Ok(session), Ok(config)) = (&session, &config) {
        let queues = backend.queues(&settings, session, config);
        let depth = queues.own.depth().await;
        report.note(
            "queue",
            depth
                .map(|depth| format!("{} wait, {} in flight", depth.waiting, depth.in_flight))
                .map_err(|error| failure("ask the session's queue", &error)),
        );
        // What the role may do with those is send to them, and ask where they are.
        for (name, address) in [
            ("dead letters", Some(&queues.dead_address)),
            ("results", config.results_queue_url.as_ref()),
        ] {
            if let Some(address) = address {
                let found = backend.find_queue(address).await;
                let found = found.map(|()| "there".to_owned());
                report.note(name, found.map_err(|error| failure("find a queue", &error)));
            }
        }
        let receipts = backend.receipts.recent(&settings.session_id, 1).await;
        let readable = receipts.map(|_| "can be read".to_owned());
        report.note(
            "receipts",
            readable.map_err(|error| failure("read the receipts", &error)),
        );
    }
    report.note(
        "session",
        session.map(|session| {
            format!("{:?}, generation {}", session.state, session.generation).to_lowercase()
        }),
    );
    match config {
        Ok(config) => {
            Report::fine("client", "active");
            let remote = remote(&backend, &config).await;
            let asked = match remote {
                Ok((remote, _)) => ask(remote, config.repository.branch.clone()).await,
                Err(failure) => Err(failure),
            };
            report.note("repository", asked);
        }
        Err(failure) => report.note("client", Err(failure)),
    }
    report.end()
}

/// Whether the repository lets us read the published branch.
async fn ask(remote: crate::draft::Remote, branch: String) -> Result<String, Failure> {
    let asked = tokio::task::spawn_blocking(move || remote.ask(&branch)).await;
    let tip = asked.map_err(|error| Failure::internal("ask the repository", &error))??;
    Ok(format!(
        "its published branch is at {}",
        &tip.to_string()[..10]
    ))
}

/// A line each, and the first that is not right.
#[derive(Debug, Default)]
struct Report {
    first: Option<Failure>,
}

impl Report {
    fn fine(what: &str, detail: &str) {
        // Whoever read it is gone: then nobody is told.
        writeln!(std::io::stdout(), "ok   {what}: {detail}").ok();
    }

    fn end(self) -> Result<Exit, Failure> {
        self.first.map_or(Ok(Exit::Success), Err)
    }

    fn note(&mut self, what: &str, found: Result<String, Failure>) {
        match found {
            Ok(detail) => Self::fine(what, &detail),
            Err(failure) => {
                writeln!(std::io::stdout(), "FAIL {what}: {}", failure.message).ok();
                self.first.get_or_insert(failure);
            }
        }
    }
}
