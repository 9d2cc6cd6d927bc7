//! Developer mode: an edit environment of a repository on this machine, with the local adapters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::client_config::{Policy, SiteSettings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod console;
mod seat;
mod source;
mod suggestion;

use console::Console;
use source::Source;
pub(crate) use source::import_once;

use crate::cli::{Allowance, DevArguments};
use crate::content::Fetcher;
use crate::door::Hosts;
use crate::environment::home::{self, Home};
use crate::environment::interrupt::Interrupt;
use crate::environment::{self, Boot, Halted, Haste, Plan, Progress, Running};
use crate::events::{Event, Events, PhaseName};
use crate::failure::{Exit, Failure};
use crate::isolation::Isolation;
use crate::isolation::proof::Guarded;
use crate::loops::Loops;
use crate::site;
use crate::site::node::Node;

/// How long a stop may take: an instruction that runs is finished within it.
const HALT_TIME_MAX: Duration = Duration::from_secs(20);
/// How often the remote is asked. What is pushed is to be seen within 10 s, the fetch and the work tree included; and one
/// connection in 5 s is no burden to a server.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Runs an environment until it is interrupted.
pub(crate) async fn run(arguments: DevArguments) -> Result<Exit, Failure> {
    let events = Events::new();
    let mut tasks = JoinSet::new();
    let console = Console::start(arguments.json, &events, &mut tasks);
    let mut interrupt = Interrupt::listen()?;
    let started = tokio::select! {
        started = start(&arguments, &events, &console) => started,
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
    announce(&running, &arguments, &events, &console);
    let keeping = CancellationToken::new();
    let mut renewing = Loops::new();
    renewing.spawn(running.seat.lease.clone().keep(keeping.clone()));
    let renewal_broke = renewing.broken();
    tokio::select! {
        () = interrupt.requested() => {}
        () = async { tokio::select! { () = running.broke() => {} () = renewal_broke.heard_of() => {} } } => {
            console.finish(&mut tasks).await;
            return Err(Failure::new(
                Exit::Crashed,
                "a loop of the agent broke",
                "Look above for the panic, which is a defect of the agent. Nothing is lost: start it again, and it goes on where it was.",
            ));
        }
    }
    console.say("Stopping: what runs is finished and pushed. Press Ctrl-C again to stop at once.");
    let stopped = tokio::select! {
        stopped = stop(running, &events) => stopped,
        () = interrupt.requested() => Err(Failure::new(Exit::Interrupted, "stopped at once", "What was not finished goes on at the next start.")),
    };
    keeping.cancel();
    while renewing.join_next().await.is_some() {}
    console.finish(&mut tasks).await;
    stopped.map(|()| Exit::Success)
}

/// Starts it; returns once its site has answered.
async fn start(
    arguments: &DevArguments,
    events: &Events,
    console: &Console,
) -> Result<Running, Failure> {
    let mut boot = Boot {
        events: events.clone(),
        lease: None,
        budget: None,
        progress: Progress {
            say: {
                let console = console.clone();
                Arc::new(move |words| console.say(words))
            },
            transfer: {
                let progress = console.progress();
                Arc::new(move |received, all| progress.set(received, all))
            },
        },
        metrics: None,
    };
    let (plan, source) = boot.phase(PhaseName::Config, configure(arguments)).await?;
    let branch = arguments.branch.as_deref();
    let claim = async {
        let seat = seat::take(&plan.home, &source, &arguments.thread, plan.address, branch).await?;
        plan.home
            .announce(&seat.identity.preview_url, source.folder())?;
        Ok((seat, None))
    };
    let seat = boot.phase(PhaseName::Claim, claim).await?;
    boot.lease = Some(seat.lease.clone());
    Box::pin(environment::start(plan, seat, &boot)).await
}

/// Everything that can be known before anything is touched.
async fn configure(arguments: &DevArguments) -> Result<((Plan, Source), Option<String>), Failure> {
    let source = Source::find(
        &arguments.repository,
        arguments.deploy_key.as_deref(),
        &arguments.host_key,
    )?;
    let home = Home::open(
        home::state_folder(arguments.state.as_deref())?,
        &home::key(&source.slug(), &source.identity()),
        arguments.workspace.as_deref(),
    )?;
    site::end_orphans(&home.tree()).await;
    let listener =
        environment::listen(SocketAddr::new(arguments.address(), arguments.port)).await?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::internal("read the port", &error))?;
    let node = Node::find(arguments.node.as_deref(), Isolation::none()).await?;
    let imported = source.import(&home, arguments.branch.as_deref()).await?;
    let plan = Plan {
        home,
        remote: imported.remote,
        published_branch: arguments.branch.clone(),
        listener,
        address,
        reached_at: address.ip(),
        hosts: Hosts {
            names: arguments.host_names(),
        },
        node,
        site: SiteSettings::default(),
        policy: policy(arguments),
        install: !arguments.no_install,
        content: Fetcher::on_a_laptop(),
        bar: !arguments.no_bar,
        developer: true,
        guarded: Guarded::none(address),
        idle: None,
        look_every: LOOK_EVERY,
    };
    Ok(((plan, source), imported.note))
}

fn policy(arguments: &DevArguments) -> Policy {
    Policy {
        allow_config: arguments.allow.contains(&Allowance::Config),
        allow_dependencies: arguments.allow.contains(&Allowance::Dependencies),
        on_broken: arguments.on_broken.into(),
        publish_check: arguments.publish_check.into(),
        content_sources: arguments.content_source.clone(),
        ..Policy::default()
    }
}

fn announce(running: &Running, arguments: &DevArguments, events: &Events, console: &Console) {
    console.suggest(&suggestion::suggest(
        &running.site_root,
        arguments.state.as_deref(),
    ));
    events.publish(Event::Ready {
        preview_url: running.seat.identity.preview_url.clone(),
        port: running.address.port(),
        draft_branch: running.seat.identity.branch.clone(),
        workspace: running.home.workspace.display().to_string(),
        remote: running.remote.clone(),
        site: running.health,
    });
}

/// Stops, and says what is left.
async fn stop(running: Running, events: &Events) -> Result<(), Failure> {
    let halted = running.halt(Haste::Finish, HALT_TIME_MAX).await;
    let slept = seat::sleep(&halted.seat).await;
    let Halted {
        home,
        seat,
        commit,
        unpushed,
        uncommitted,
        ..
    } = halted;
    let queued = seat
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
    home.withdraw();
    slept
}
