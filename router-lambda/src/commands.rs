//! The commands that are over in a moment: `link`, `inspect`, `sweep`.

use std::io::{self, Write as _};
use std::sync::Arc;

use contract::{Session, SessionId, Timestamp};
use platform::local::{LocalLauncher, LocalLauncherSettings, QueueSettings};
use platform::{Clients, Sessions};

use crate::assembly::{Assembly, Ports};
use crate::cli::{HealthArguments, InspectArguments, LinkArguments, LocalArguments};
use crate::failure::{Exit, Failure};
use crate::inspect::{Asked, Facts, explain};
use crate::laptop::{self, Folder, Running};
use crate::link::Link;
use crate::policy::Policy;
use crate::reply;
use crate::serve;
use crate::settings::Settings;

/// Prints a signed link.
pub fn link(arguments: &LinkArguments) -> Result<Exit, Failure> {
    let (keys, policy) = if arguments.place.local {
        let folder = Folder::open(arguments.place.state.as_deref())?;
        (folder.keys()?, laptop::policy(&running(&folder)?))
    } else {
        let settings = Settings::read(&serve::variables())?;
        (settings.keys, settings.policy)
    };
    let claims = Link {
        client_id: arguments.client.clone(),
        thread_id: arguments.thread.clone(),
        user_id: arguments.user.clone(),
        exp: Timestamp::now().unix_ms().div_euclid(1000) + i64::from(arguments.hours) * 3600,
        nonce: reply::nonce(),
    };
    print(&serve::link(&keys, &policy, &claims))
}

/// Asks the gateway of this machine whether it is well.
pub fn health(arguments: &HealthArguments) -> Result<Exit, Failure> {
    let said = telemetry::health::ask(arguments.port).map_err(|why| {
        Failure::new(
            Exit::Unwell,
            format!("the gateway is not well: {why}"),
            "Look at its log.",
        )
    })?;
    print(&said)
}

/// Says what a request for a session would get.
pub async fn inspect(arguments: &InspectArguments) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let (ports, policy) = ports(&arguments.place).await?;
    let session = find(arguments, &*ports.sessions, &*ports.clients).await?;
    let (session_id, client) = (session.session_id.clone(), session.client_id.clone());
    let config = ports.clients.get(&client).await;
    let config = config.map_err(|error| Failure::backend("read the client", &error))?;
    let task = if arguments.place.local {
        Asked::Nothing
    } else {
        let task = ports.launcher.task(&session_id, session.generation).await;
        let task = task.map_err(|error| Failure::backend("ask for the task", &error))?;
        task.map_or(Asked::None, Asked::Task)
    };
    let depth = match session.queue_url.as_str() {
        "" => None,
        address => ports.queues.open(address).depth().await.ok(),
    };
    let facts = Facts {
        session,
        config,
        task,
        depth,
    };
    print(&explain(&facts, &policy, now))
}

/// Sweeps once, and says what it did.
pub async fn sweep(arguments: &LocalArguments) -> Result<Exit, Failure> {
    let (ports, policy) = ports(arguments).await?;
    let keys = crate::link::LinkKeys::of(reply::random());
    let assembly = Assembly::new(&ports, &policy, keys, &laptop::pace());
    let report = assembly.sweep.once(Timestamp::now()).await;
    print(&format!("{report:?}"))?;
    if report.errors > 0 {
        return Err(Failure::new(
            Exit::Backend,
            format!("{} things did not answer", report.errors),
            "What they were is above; the next sweep looks at them again.",
        ));
    }
    Ok(Exit::Success)
}

async fn ports(arguments: &LocalArguments) -> Result<(Ports, Policy), Failure> {
    if !arguments.local {
        let settings = Settings::read(&serve::variables())?;
        let ports = serve::cloud_ports(&settings).await.0;
        return Ok((ports, settings.policy));
    }
    let folder = Folder::open(arguments.state.as_deref())?;
    let store = folder.store()?;
    // Its tasks are those of the router that runs; this one knows of none, and starts none.
    let launcher = LocalLauncher::new(LocalLauncherSettings {
        agent: "edit-agent".into(),
        state: folder.path.clone(),
        environment: Vec::new(),
        log: folder.path.join("logs"),
    });
    let ports = Ports {
        clients: store.clients(),
        sessions: store.sessions(),
        receipts: store.receipts(),
        queues: store.queues(laptop::DEAD),
        launcher: Arc::new(launcher),
        dead: Arc::new(store.queue(laptop::DEAD, QueueSettings::default())),
    };
    Ok((ports, laptop::policy(&running(&folder)?)))
}

fn running(folder: &Folder) -> Result<Running, Failure> {
    folder.running().ok_or_else(|| {
        Failure::new(
            Exit::NotThere,
            format!("no router has served {} yet", folder.path.display()),
            "Start one: edit-router serve --local.",
        )
    })
}

/// A session by its id, or by the beginning of it that logs show.
async fn find(
    arguments: &InspectArguments,
    sessions: &dyn Sessions,
    clients: &dyn Clients,
) -> Result<Session, Failure> {
    let asked = |error: platform::PortError| Failure::backend("read the session", &error);
    if let Some(id) = arguments.id()
        && let Some(session) = sessions.get(&id).await.map_err(asked)?
    {
        return Ok(session);
    }
    let clients = match &arguments.client {
        Some(client) => vec![client.clone()],
        None => clients.list().await.map_err(asked)?,
    };
    let begin = arguments.session.trim_end_matches('…');
    let mut found = Vec::new();
    for client in clients {
        let listed = sessions.list(&client).await.map_err(asked)?;
        let named = |session: &Session| session.session_id.label().starts_with(begin);
        found.extend(listed.into_iter().filter(named));
    }
    let several: Vec<&SessionId> = found.iter().map(|session| &session.session_id).collect();
    match several.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(
            Exit::Config,
            format!("there is no session {begin}"),
            "Name its id, or the characters of it that logs show.",
        )),
        number => Err(Failure::new(
            Exit::Usage,
            format!("{number} sessions begin with {begin}"),
            "Name more of its id, or its client with --client.",
        )),
    }
}

fn print(text: &str) -> Result<Exit, Failure> {
    let mut out = io::stdout();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::internal("write to stdout", &error))?;
    Ok(Exit::Success)
}
