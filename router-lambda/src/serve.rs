//! `edit-router serve`: the gateway, with the intake where no Lambda is subscribed to it, the sweep, and on a laptop the launcher.
//!
//! ```text
//!  read everything ─▶ bind ─▶ put the rooms together ─▶ serve ─┬─ HTTP, WebSockets
//!                                                              ├─ intake queue
//!                                                              ├─ sweep
//!                                                              └─ metrics, once a minute
//!  Ctrl-C ─▶ no new visitors ─▶ those under way ─▶ environments save everything ─▶ 0
//! ```

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::{ClientConfig, Timestamp};
use platform::Instructions;
use platform::aws::{Aws, AwsSettings, EcsSettings};
use platform::local::{LocalLauncher, LocalLauncherSettings, QueueSettings};
use telemetry::{Embedded, Output};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assembly::{Assembly, Pace, Ports};
use crate::cli::ServeArguments;
use crate::failure::{Exit, Failure};
use crate::gateway::{self, Gateway};
use crate::laptop::{self, Folder, HOLD, Running, say};
use crate::link::{Link, LinkKeys};
use crate::policy::Policy;
use crate::reply;
use crate::settings::Settings;
use crate::sweep;
use crate::wake::CLAIMED_WITHIN_ON_ECS;

/// The port of a laptop's router.
const LAPTOP_PORT: u16 = 8787;
/// The port of a gateway in a container.
const GATEWAY_PORT: u16 = 8080;
/// The clients where none are named: those of this repository.
const CLIENTS: &str = "fixtures/clients";
/// How old what is known of a session may be where reading is paid for.
const FRESH: Duration = Duration::from_secs(1);
/// How often a laptop is swept: a person sits before it.
const LAPTOP_SWEEP: Duration = Duration::from_secs(10);
/// How often what was counted is written.
const METRICS_EVERY: Duration = Duration::from_secs(60);
/// How long the environments of a laptop may take to save everything: as long as an agent gives itself, and a little.
const SAVE_TIME_MAX: Duration = Duration::from_secs(25);
/// The conversation that a laptop's links go on with, so that the same session is found again.
const LAPTOP_THREAD: &str = "laptop";
/// How many hours a laptop's link can be used.
const LAPTOP_LINK_HOURS: i64 = 24;

/// Everything that serves.
struct Service {
    assembly: Assembly,
    intake: Option<Arc<dyn Instructions>>,
    sweep_every: Duration,
    embedded: Option<Embedded>,
}

/// Serves on a laptop.
pub async fn on_a_laptop(arguments: ServeArguments) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let folder = Folder::open(arguments.place.state.as_deref())?;
    let _lock = folder.lock()?;
    let host = arguments.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let listener = listen(SocketAddr::new(host, arguments.port.unwrap_or(LAPTOP_PORT))).await?;
    let port = port(&listener)?;
    let program = laptop::agent(arguments.agent.as_deref()).await?;
    let clients = arguments.clients.as_deref().unwrap_or(Path::new(CLIENTS));
    let clients = laptop::clients(clients, &folder, &program).await?;
    let store = folder.store()?;
    for config in &clients {
        let put = store.clients().put(config).await;
        put.map_err(|error| Failure::backend("write a client", &error))?;
    }
    let keys = folder.keys()?;
    let running = Running {
        port,
        pid: std::process::id(),
        previews: !arguments.shared_host,
    };
    folder.announce(&running)?;
    let policy = laptop::policy(&running);
    let logs = folder.path.join("logs");
    let launcher = LocalLauncher::new(LocalLauncherSettings {
        agent: program,
        state: folder.path.clone(),
        environment: laptop::agent_environment(&policy),
        log: logs.clone(),
    });
    let ports = Ports {
        clients: store.clients(),
        sessions: store.sessions(),
        receipts: store.receipts(),
        queues: store.queues(laptop::DEAD),
        launcher: Arc::new(launcher.clone()),
        dead: Arc::new(store.queue(laptop::DEAD, QueueSettings::default())),
    };
    let assembly = Assembly::new(&ports, &policy, keys.clone(), &laptop::pace());
    let gateway = Gateway::on(
        listener,
        gateway::Settings::default(),
        assembly.router.clone(),
    )
    .map_err(|error| Failure::internal("serve", &error))?;
    show_links(&clients, &keys, &policy, &folder.path, &logs)?;
    let intake = store.queue(
        laptop::INTAKE,
        QueueSettings {
            max_receive_count: 10,
            dead: Some(laptop::DEAD.to_owned()),
        },
    );
    let service = Service {
        assembly,
        intake: Some(Arc::new(intake)),
        sweep_every: LAPTOP_SWEEP,
        embedded: None,
    };
    let mut interrupt = service.run(gateway, interrupt).await;
    say("Stopping: environments save everything; Ctrl-C again does not wait for them.");
    tokio::select! {
        () = launcher.shutdown(SAVE_TIME_MAX) => {}
        () = interrupt.requested() => launcher.shutdown(Duration::ZERO).await,
    }
    Ok(Exit::Success)
}

/// Serves as the gateway of a cloud.
pub async fn in_the_cloud(
    arguments: &ServeArguments,
    settings: Settings,
    output: Output,
) -> Result<Exit, Failure> {
    if settings.trusted_hops.is_empty() {
        // Nothing that a visitor says of itself is believed, so that everybody would seem to come over plain http.
        return Err(Failure::new(
            Exit::Usage,
            "TRUSTED_HOPS is not set: the gateway cannot tell what its load balancer says from what anybody says",
            "Name the networks of the load balancer, such as 10.0.0.0/16.",
        ));
    }
    let interrupt = Interrupt::listen()?;
    let host = arguments.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let listener = listen(SocketAddr::new(
        host,
        arguments.port.unwrap_or(GATEWAY_PORT),
    ))
    .await?;
    let (assembly, aws) = cloud(&settings, HOLD).await;
    let gateway_settings = gateway::Settings {
        trusted_hops: settings.trusted_hops.clone(),
        ..gateway::Settings::default()
    };
    let gateway = Gateway::on(listener, gateway_settings, assembly.router.clone())
        .map_err(|error| Failure::internal("serve", &error))?;
    tracing::info!(address = %gateway.address(), domain = settings.policy.edit_domain, "the gateway serves");
    let service = Service {
        assembly,
        intake: settings.intake.as_deref().map(|url| aws.queue(url)),
        sweep_every: sweep::EVERY,
        embedded: Some(Embedded::new(output)),
    };
    service.run(gateway, interrupt).await;
    Ok(Exit::Success)
}

/// The rooms on the ports of AWS. Nothing is asked yet.
pub async fn cloud(settings: &Settings, hold: Duration) -> (Assembly, Aws) {
    let (ports, aws) = cloud_ports(settings).await;
    let pace = Pace {
        fresh: FRESH,
        claimed_within: CLAIMED_WITHIN_ON_ECS,
        hold,
    };
    let assembly = Assembly::new(&ports, &settings.policy, settings.keys.clone(), &pace);
    (assembly, aws)
}

/// The ports of AWS. Nothing is asked yet.
pub async fn cloud_ports(settings: &Settings) -> (Ports, Aws) {
    let aws = Aws::load(AwsSettings::default()).await;
    let ecs = &settings.ecs;
    let mut environment = vec![
        (
            "CLIENT_CONFIGS_TABLE".to_owned(),
            settings.clients_table.clone(),
        ),
        ("SESSIONS_TABLE".to_owned(), settings.sessions_table.clone()),
        ("RECEIPTS_TABLE".to_owned(), settings.receipts_table.clone()),
        ("DEAD_QUEUE_URL".to_owned(), settings.dead.clone()),
        (
            "EDIT_DOMAIN".to_owned(),
            settings.policy.edit_domain.clone(),
        ),
    ];
    if let Some(domain) = &settings.policy.preview_domain {
        environment.push(("PREVIEW_DOMAIN".to_owned(), domain.clone()));
    }
    let ports = Ports {
        clients: aws.clients(&settings.clients_table),
        sessions: aws.sessions(&settings.sessions_table),
        receipts: aws.receipts(&settings.receipts_table),
        queues: aws.queues(&settings.dead),
        launcher: aws.launcher(EcsSettings {
            cluster: ecs.cluster.clone(),
            task_definition: ecs.task_definition.clone(),
            container_name: ecs.container_name.clone(),
            subnets: ecs.subnets.clone(),
            security_groups: ecs.security_groups.clone(),
            assign_public_ip: ecs.assign_public_ip,
            environment,
        }),
        dead: aws.queue(&settings.dead),
    };
    (ports, aws)
}

impl Service {
    /// Serves until somebody wants it to stop; what was under way has ended then.
    async fn run(
        self,
        gateway: Gateway<crate::router::Router>,
        mut interrupt: Interrupt,
    ) -> Interrupt {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        if let Some(intake) = self.intake {
            tasks.spawn(self.assembly.intake.clone().run(intake, stop.clone()));
        }
        tasks.spawn(
            self.assembly
                .sweep
                .clone()
                .run(self.sweep_every, stop.clone()),
        );
        if let Some(embedded) = self.embedded {
            tasks.spawn(write_metrics(self.assembly.clone(), embedded, stop.clone()));
        }
        tasks.close();
        let served = gateway.serve(stop.clone());
        let mut served = std::pin::pin!(served);
        tokio::select! {
            drained = &mut served => {
                tracing::error!(?drained, "the gateway ended by itself");
            }
            () = interrupt.requested() => {
                stop.cancel();
                let drained = served.await;
                tracing::info!(cut = drained.connections_cut, "the gateway has drained");
            }
        }
        stop.cancel();
        tasks.wait().await;
        // A wake that was ordered is not left half done.
        self.assembly.waker.settle().await;
        interrupt
    }
}

async fn write_metrics(assembly: Assembly, embedded: Embedded, stop: CancellationToken) {
    let mut pace = tokio::time::interval(METRICS_EVERY);
    loop {
        let stopped = tokio::select! {
            _ = pace.tick() => false,
            () = stop.cancelled() => true,
        };
        assembly.metrics.write(&embedded, Timestamp::now());
        if stopped {
            return;
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(
            Exit::Port,
            format!("could not listen on {address}: {error}"),
            "Stop what is there, or name another port with --port N; 0 takes any free one.",
        )
    })
}

fn port(listener: &TcpListener) -> Result<u16, Failure> {
    let address = listener.local_addr();
    address
        .map(|address| address.port())
        .map_err(|error| Failure::internal("read the port", &error))
}

/// A link that makes a session of a client, or goes on with the one that its thread has.
pub fn link(keys: &LinkKeys, policy: &Policy, claims: &Link) -> String {
    let token = keys.sign(claims);
    let host = format!("edit.{}.{}", claims.client_id, policy.edit_domain);
    policy.public.address(&host, &format!("/new?t={token}"))
}

/// The links of a laptop, on stdout.
fn show_links(
    clients: &[ClientConfig],
    keys: &LinkKeys,
    policy: &Policy,
    state: &Path,
    logs: &Path,
) -> Result<(), Failure> {
    let now = Timestamp::now().unix_ms().div_euclid(1000);
    let mut text = String::new();
    for config in clients {
        let claims = Link {
            client_id: config.client_id.clone(),
            thread_id: Some(LAPTOP_THREAD.parse().expect("a thread")),
            user_id: None,
            exp: now + LAPTOP_LINK_HOURS * 3600,
            nonce: reply::nonce(),
        };
        let name = config
            .brand
            .as_ref()
            .and_then(|brand| brand.name.as_deref())
            .unwrap_or(config.client_id.as_str());
        text.push_str(&format!("{name}\n  {}\n", link(keys, policy, &claims)));
    }
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::internal("write to stdout", &error))?;
    if io::stderr().is_terminal() {
        say(&format!(
            "\nEach link opens once, within {LAPTOP_LINK_HOURS} hours; `edit-router link --local --client ID` makes another.\nEverything is in {}; what environments say is in {}. Ctrl-C stops.",
            state.display(),
            logs.display()
        ));
    }
    Ok(())
}

/// The variables of this process that are text.
pub fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Listens for the wish to stop: Ctrl-C, and SIGTERM, which asks for the same.
#[derive(Debug)]
pub struct Interrupt([tokio::signal::unix::Signal; 3]);

impl Interrupt {
    /// From here on the wish does not end the process by itself.
    pub fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::internal("listen for Ctrl-C", &error));
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next one.
    pub async fn requested(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
