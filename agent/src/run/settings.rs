//! What an environment is told by whoever launches it: one registry of variables, read whole, every error at once.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use contract::{ClientId, Generation, SessionId};
use telemetry::{Format, Level};

use crate::cli::RunArguments;
use crate::failure::{Exit, Failure};

/// A variable of the environment.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is if it is not set; nothing if it has to be, or may be absent.
    pub(crate) default: Option<&'static str>,
    /// What it is for, in a line.
    pub(crate) meaning: &'static str,
}

/// Every variable that is read, in the order in which they are explained. What the AWS SDK reads for itself is not here.
pub(crate) const VARIABLES: &[Variable] = &[
    variable("CLIENT_ID", None, "whose site (required)"),
    variable("SESSION_ID", None, "which session (required)"),
    variable(
        "GENERATION",
        None,
        "the generation that the router's wake made; without it, the agent wakes the session itself",
    ),
    variable(
        "CLIENT_CONFIGS_TABLE",
        Some("webordinary-client-configs"),
        "the table of the clients",
    ),
    variable(
        "SESSIONS_TABLE",
        Some("webordinary-edit-sessions"),
        "the table of the sessions",
    ),
    variable(
        "RECEIPTS_TABLE",
        Some("webordinary-edit-receipts"),
        "the table of the receipts",
    ),
    variable(
        "INSTRUCTIONS_QUEUE_URL",
        None,
        "the session's queue; what its record says if absent",
    ),
    variable(
        "DEAD_QUEUE_URL",
        None,
        "the dead letters; webordinary-edits-dead.fifo beside the session's queue if absent",
    ),
    variable(
        "RESCUE_BUCKET",
        None,
        "where a bundle goes of what the remote does not take",
    ),
    variable(
        "WORKSPACE_DIR",
        None,
        "where the clone, the work tree and dependencies are kept; --state if absent, and /workspace without that",
    ),
    variable(
        "PORT",
        Some("8080"),
        "the port of the door; 0 takes any free one",
    ),
    variable(
        "EDIT_DOMAIN",
        None,
        "the domain below which edit.<client> is, beside the client's own domains",
    ),
    variable(
        "PREVIEW_DOMAIN",
        None,
        "the domain below which every session has a host of its own",
    ),
    variable(
        "ISOLATION",
        Some("none"),
        "users: the site, its builds and the editor run as users of their own, and it is proven that they get at nothing of the agent's (the image says so); none: everything is one user",
    ),
    variable(
        "LOG_LEVEL",
        Some("info"),
        "error, warn, info, debug or trace, or directives as in RUST_LOG",
    ),
    variable("LOG_FORMAT", Some("json"), "json, or text for people"),
    variable(
        "ECS_CONTAINER_METADATA_URI_V4",
        None,
        "set by ECS: there the task's address and ARN are read; outside ECS name them with --ip and --task",
    ),
];

/// Where a container keeps its workspace.
const WORKSPACE: &str = "/workspace";

const fn variable(
    name: &'static str,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Variable {
    Variable {
        name,
        default,
        meaning,
    }
}

/// The registry, for `--help`: in lines that fit a screen.
pub(crate) fn explain() -> String {
    let mut text = String::new();
    for variable in VARIABLES {
        let default = variable
            .default
            .map(|default| format!(" [{default}]"))
            .unwrap_or_default();
        let mut line = format!("  {:NAME_WIDTH$}", variable.name);
        for word in format!("{}{default}", variable.meaning).split(' ') {
            if line.chars().count() + 1 + word.chars().count() > LINE_WIDTH {
                text.push_str(line.trim_end());
                text.push('\n');
                line = format!("  {:NAME_WIDTH$}", "");
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The longest name, and a little.
const NAME_WIDTH: usize = 30;
/// What fits everywhere.
const LINE_WIDTH: usize = 96;

/// Where records and messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    /// In `DynamoDB` and SQS.
    Aws {
        /// The table of the clients.
        clients: String,
        /// The table of the sessions.
        sessions: String,
        /// The table of the receipts.
        receipts: String,
    },
    /// In one file on this machine.
    Local {
        /// The folder that it is in.
        folder: PathBuf,
    },
}

/// Everything an environment is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) generation: Option<Generation>,
    pub(crate) records: Where,
    pub(crate) queue: Option<String>,
    pub(crate) dead: Option<String>,
    pub(crate) rescue_bucket: Option<String>,
    /// Below which the clone, the work tree and dependencies are kept.
    pub(crate) state: PathBuf,
    pub(crate) port: u16,
    pub(crate) place: Place,
    pub(crate) edit_domain: Option<String>,
    pub(crate) preview_domain: Option<String>,
    /// Whether what runs the client's code are other users.
    pub(crate) isolation: Wanted,
    /// How many times the agent was started anew in this container.
    pub(crate) restarts: u32,
    /// How long ago it was asked to stop, if the agent was down then: this start is the last, and for saving what there is.
    pub(crate) asked_to_end: Option<Duration>,
    pub(crate) log_level: Level,
    pub(crate) log_format: Format,
}

/// Whether what runs the client's code are other users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// They are, or there is no environment.
    Users,
    /// Everything is one user.
    None,
}

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "users" => Ok(Self::Users),
            "none" => Ok(Self::None),
            _ => Err("is users or none"),
        }
    }
}

/// Where the environment listens, and how others reach it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The address on which the door listens.
    pub(crate) listen: IpAddr,
    /// The address at which the router reaches it, where it is told and not looked up.
    pub(crate) ip: Option<IpAddr>,
    /// Which task it is, where it is told and not looked up.
    pub(crate) task: Option<String>,
    /// Where both are looked up.
    pub(crate) metadata: Option<String>,
}

impl Place {
    fn read(arguments: &RunArguments, read: &mut Reader<'_>) -> Self {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let metadata = read.text("ECS_CONTAINER_METADATA_URI_V4");
        let place = if arguments.local {
            let listen = arguments.host.unwrap_or(loopback);
            let own = format!("process-{}", std::process::id());
            Self {
                listen,
                ip: arguments.ip.or(Some(listen)),
                task: arguments.task.clone().or(Some(own)),
                metadata,
            }
        } else {
            Self {
                listen: arguments.host.unwrap_or(IpAddr::from([0, 0, 0, 0])),
                ip: arguments.ip,
                task: arguments.task.clone(),
                metadata,
            }
        };
        if place.metadata.is_none() && (place.ip.is_none() || place.task.is_none()) {
            read.problems.push(
                "nobody says which task this is and where it is reached: ECS_CONTAINER_METADATA_URI_V4 is not set, so name --ip and --task".to_owned(),
            );
        }
        place
    }
}

/// Reads variables and notes what is wrong with each.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// A variable as text: what is set, or its default. An empty one is not set.
    fn text(&mut self, name: &'static str) -> Option<String> {
        let known = VARIABLES
            .iter()
            .find(|variable| variable.name == name)
            .expect("every variable that is read is in the registry");
        match (self.lookup)(name).filter(|value| !value.is_empty()) {
            None => known.default.map(str::to_owned),
            Some(value) => match value.into_string() {
                Ok(text) => Some(text),
                Err(_) => {
                    self.problems.push(format!("{name} is not UTF-8"));
                    None
                }
            },
        }
    }

    fn optional<T: FromStr>(&mut self, name: &'static str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("{name}={text}: {error}"));
                None
            }
        }
    }

    /// Notes a session that is another client's.
    fn refuse_foreign(&mut self, client: &ClientId, session: &SessionId) {
        let owner = session.as_str().split_once('_').map(|(owner, _)| owner);
        if owner.is_some_and(|owner| owner != client.as_str()) {
            self.problems.push(format!(
                "SESSION_ID={}… is not a session of CLIENT_ID={client}",
                session.redacted()
            ));
        }
    }

    fn required<T: FromStr>(&mut self, name: &'static str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        if self.text(name).is_none() {
            let meaning = VARIABLES
                .iter()
                .find(|variable| variable.name == name)
                .map_or("", |variable| variable.meaning);
            self.problems.push(format!("{name} is not set: {meaning}"));
            return None;
        }
        self.optional(name)
    }
}

impl Settings {
    /// Reads the flags and the variables of this process.
    pub(crate) fn read(arguments: &RunArguments) -> Result<Self, Failure> {
        Self::from(arguments, &|name| std::env::var_os(name))
    }

    fn from(
        arguments: &RunArguments,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let mut reader = Reader {
            lookup,
            problems: Vec::new(),
        };
        let read = Self::gather(arguments, &mut reader);
        match read {
            Some(settings) if reader.problems.is_empty() => Ok(settings),
            _ => Err(Failure::new(
                Exit::Usage,
                format!(
                    "the environment is not told what it needs:\n  {}",
                    reader.problems.join("\n  ")
                ),
                "Set the variables named above; `edit-agent run --help` lists all of them.",
            )),
        }
    }

    /// Reads everything and notes what is wrong. Nothing if something is missing that has to be there.
    fn gather(arguments: &RunArguments, read: &mut Reader<'_>) -> Option<Self> {
        let client_id = read.required::<ClientId>("CLIENT_ID");
        let session_id = read.required::<SessionId>("SESSION_ID");
        if let (Some(client), Some(session)) = (&client_id, &session_id) {
            read.refuse_foreign(client, session);
        }
        let generation = read.optional::<u64>("GENERATION").map(Generation);
        let records = match &arguments.state {
            Some(folder) if arguments.local => Where::Local {
                folder: folder.clone(),
            },
            _ => Where::Aws {
                clients: read.text("CLIENT_CONFIGS_TABLE").unwrap_or_default(),
                sessions: read.text("SESSIONS_TABLE").unwrap_or_default(),
                receipts: read.text("RECEIPTS_TABLE").unwrap_or_default(),
            },
        };
        let queue = read.text("INSTRUCTIONS_QUEUE_URL");
        let dead = read.text("DEAD_QUEUE_URL");
        let rescue_bucket = read.text("RESCUE_BUCKET");
        let workspace = read.text("WORKSPACE_DIR").map(PathBuf::from);
        let port = read.optional::<u16>("PORT");
        let edit_domain = read.text("EDIT_DOMAIN");
        let preview_domain = read.text("PREVIEW_DOMAIN");
        let isolation = read.optional::<Wanted>("ISOLATION");
        // Init's own words, and none of an operator's.
        let restarts = (read.lookup)(init::RESTARTS_VARIABLE)
            .and_then(|count| count.to_str()?.parse().ok())
            .unwrap_or(0);
        let asked_to_end = (read.lookup)(init::ASKED_VARIABLE)
            .and_then(|seconds| seconds.to_str()?.parse().ok())
            .map(Duration::from_secs);
        let log_level = read.optional::<Level>("LOG_LEVEL");
        let log_format = read.optional::<Format>("LOG_FORMAT");
        let place = Place::read(arguments, read);
        Some(Self {
            client_id: client_id?,
            session_id: session_id?,
            generation,
            records,
            queue,
            dead,
            rescue_bucket,
            state: workspace
                .or_else(|| arguments.state.clone())
                .unwrap_or_else(|| PathBuf::from(WORKSPACE)),
            port: arguments.port.or(port)?,
            place,
            edit_domain,
            preview_domain,
            isolation: isolation?,
            restarts,
            asked_to_end,
            log_level: log_level?,
            log_format: log_format?,
        })
    }

    /// The dead letters: what is named, or the queue of that name beside the session's own.
    pub(crate) fn dead_queue(&self, queue: &str) -> String {
        const NAME: &str = "webordinary-edits-dead.fifo";
        self.dead
            .clone()
            .unwrap_or_else(|| match queue.rsplit_once('/') {
                Some((beside, _)) => format!("{beside}/{NAME}"),
                None => NAME.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(arguments: &RunArguments, set: &[(&str, &str)]) -> Result<Settings, String> {
        let set: BTreeMap<&str, &str> = set.iter().copied().collect();
        Settings::from(arguments, &|name| set.get(name).map(OsString::from))
            .map_err(|failure| failure.to_string())
    }

    const ECS: (&str, &str) = ("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/x");

    #[test]
    fn what_the_router_sets_is_enough() {
        let settings = read(
            &RunArguments::default(),
            &[
                ("CLIENT_ID", "amelia"),
                ("SESSION_ID", "amelia_s1"),
                ("GENERATION", "7"),
                ECS,
            ],
        )
        .expect("enough");
        assert_eq!(settings.generation, Some(Generation(7)));
        assert_eq!(settings.port, 8080);
        assert_eq!(settings.state, PathBuf::from("/workspace"));
        assert_eq!(settings.log_format, Format::Json);
        let queue =
            "https://sqs.eu-central-1.amazonaws.com/123456789012/webordinary-edits-amelia_s1.fifo";
        assert_eq!(
            settings.dead_queue(queue),
            "https://sqs.eu-central-1.amazonaws.com/123456789012/webordinary-edits-dead.fifo"
        );
        assert_eq!(settings.dead_queue("q.fifo"), "webordinary-edits-dead.fifo");
    }

    #[test]
    fn every_error_is_said_at_once() {
        let problems = read(
            &RunArguments::default(),
            &[
                ("CLIENT_ID", "Amelia"),
                ("GENERATION", "seven"),
                ("PORT", "80800"),
                ("LOG_FORMAT", "xml"),
                ("LOG_LEVEL", "edit_agent=loud"),
            ],
        )
        .expect_err("much is wrong");
        insta::assert_snapshot!(problems, @r#"
        error: the environment is not told what it needs:
          CLIENT_ID=Amelia: a client id is 2 to 24 of a-z, 0-9 and -, with no -- and no - at an end
          SESSION_ID is not set: which session (required)
          GENERATION=seven: invalid digit found in string
          PORT=80800: number too large to fit in target type
          LOG_LEVEL=edit_agent=loud: a log level is error, warn, info, debug or trace, or directives such as edit_agent=debug,info
          LOG_FORMAT=xml: is json or text
          nobody says which task this is and where it is reached: ECS_CONTAINER_METADATA_URI_V4 is not set, so name --ip and --task
          hint: Set the variables named above; `edit-agent run --help` lists all of them.
        "#);
    }

    #[test]
    fn another_clients_session_is_refused() {
        let problems = read(
            &RunArguments::default(),
            &[
                ("CLIENT_ID", "amelia"),
                ("SESSION_ID", "bertram_s1secret0000"),
                ECS,
            ],
        )
        .expect_err("foreign");
        assert!(
            problems.contains("is not a session of CLIENT_ID=amelia"),
            "{problems}"
        );
        assert!(!problems.contains("s1secret0000"), "{problems}");
    }

    #[test]
    fn on_a_laptop_nobody_has_to_say_where_it_is() {
        let arguments = RunArguments {
            local: true,
            state: Some(PathBuf::from("/tmp/state")),
            host: Some(IpAddr::from([127, 0, 0, 7])),
            port: Some(0),
            ..RunArguments::default()
        };
        let set = [("CLIENT_ID", "amelia"), ("SESSION_ID", "amelia_s1")];
        let settings = read(&arguments, &set).expect("enough");
        assert_eq!(
            settings.records,
            Where::Local {
                folder: PathBuf::from("/tmp/state")
            }
        );
        assert_eq!(settings.place.listen, IpAddr::from([127, 0, 0, 7]));
        assert_eq!(settings.place.ip, Some(IpAddr::from([127, 0, 0, 7])));
        assert_eq!(settings.port, 0);
    }
}
