//! Developer mode: an edit environment of a repository on this machine, with the local adapters.
//!
//! [`start`] builds it step by step; [`Running::drain`] takes it apart in the order that is written there.

use std::net::SocketAddr;
use std::time::Duration;

use contract::session::SiteHealth;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod claim;
mod console;
pub(crate) mod home;
mod interrupt;
mod source;
mod start;
mod suggestion;

use claim::Claimed;
use console::Console;
use home::Home;
use interrupt::Interrupt;

use crate::cli::DevArguments;
use crate::door::Stage;
use crate::events::{Event, Events};
use crate::failure::{Exit, Failure, chain};
use crate::pipeline::Workshop;
use crate::site::Site;

/// How long a stop may take: an instruction that runs is finished within it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

/// Runs an environment until it is interrupted.
pub(crate) async fn run(arguments: DevArguments) -> Result<Exit, Failure> {
    let events = Events::new();
    let mut tasks = JoinSet::new();
    let console = Console::start(arguments.json, &events, &mut tasks);
    let mut interrupt = Interrupt::listen()?;
    let started = tokio::select! {
        started = start::start(&arguments, &events, &console) => started,
        () = interrupt.requested() => Err(Failure::new(Exit::Interrupted, "interrupted before the preview was ready", "Nothing is half done: what was fetched and installed is used the next time.")),
    };
    let running = match started {
        Ok(running) => running,
        Err(failure) => {
            Console::phase_failed(&events);
            console.finish(&mut tasks).await;
            return Err(failure);
        }
    };
    running.announce(&events, &console);
    interrupt.requested().await;
    console.say("Stopping: what runs is finished and pushed. Press Ctrl-C again to stop at once.");
    let drained = tokio::select! {
        drained = running.drain(&events) => drained,
        () = interrupt.requested() => Err(Failure::new(Exit::Interrupted, "stopped at once", "What was not finished goes on at the next start.")),
    };
    console.finish(&mut tasks).await;
    drained.map(|()| Exit::Success)
}

/// Everything that runs.
struct Running {
    home: Home,
    claimed: Claimed,
    address: SocketAddr,
    /// Where commits are pushed, for people.
    remote: String,
    site: Site,
    /// How the site was when it first answered.
    health: SiteHealth,
    /// A `send` line that works as printed.
    suggestion: String,
    pipeline: JoinSet<Workshop>,
    tasks: JoinSet<()>,
    stage: watch::Sender<Stage>,
    stop_pipeline: CancellationToken,
    /// Closes the door.
    closing: CancellationToken,
    stop_rest: CancellationToken,
}

impl Running {
    fn announce(&self, events: &Events, console: &Console) {
        console.suggest(&self.suggestion);
        events.publish(Event::Ready {
            preview_url: self.claimed.session.preview_url.clone(),
            port: self.address.port(),
            draft_branch: self.claimed.session.draft_branch.clone(),
            workspace: self.home.workspace.display().to_string(),
            remote: self.remote.clone(),
            site: self.health,
        });
    }

    /// Stops, in this order: nothing new is taken on; the instruction that runs is finished and pushed; the files it
    /// put off are written; the site stops; the door closes; the session sleeps.
    async fn drain(mut self, events: &Events) -> Result<(), Failure> {
        self.stage.send_replace(Stage::Draining);
        self.stop_pipeline.cancel();
        let workshop = tokio::time::timeout(DRAIN_TIME_MAX, self.pipeline.join_next()).await;
        let (mut commit, mut unpushed, mut uncommitted) = (None, 0, Vec::new());
        match workshop {
            Ok(Some(Ok(mut workshop))) => {
                // Whatever goes wrong from here on, the steps after it are taken all the same.
                if let Err(error) = workshop.settled().await {
                    tracing::error!(error = %chain(&error), "not everything could be shown; it is put right at the next start");
                }
                match workshop.summary().await {
                    Ok((tip, waiting)) => {
                        commit = Some(tip.to_string());
                        unpushed = waiting;
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "the draft could not be read");
                    }
                }
                // It is nowhere else: whoever throws the workspace away has to know.
                match workshop.uncommitted().await {
                    Ok(files) => uncommitted = files.into_iter().collect(),
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "what is changed by hand could not be examined");
                    }
                }
            }
            Ok(Some(Err(error))) => tracing::error!(%error, "the pipeline broke"),
            Ok(None) => {}
            Err(_) => tracing::warn!(
                "the running instruction did not end in time; it goes on at the next start"
            ),
        }
        self.stop_rest.cancel();
        self.site.stop().await;
        self.closing.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task broke");
            }
        }
        let slept = self.claimed.sleep().await;
        let queued = self
            .claimed
            .queue
            .depth()
            .await
            .map_or(0, |depth| depth.waiting + depth.in_flight);
        events.publish(Event::Stopped {
            commit,
            unpushed,
            queued,
            uncommitted,
        });
        self.home.withdraw();
        slept
    }
}
