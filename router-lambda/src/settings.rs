//! What the router is told by whoever deploys it: one registry of variables, read whole, every error at once.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use relay::Proto;
use telemetry::{Format, Level};

use crate::link::LinkKeys;
use crate::policy::{DOOR_PORT, Policy, Public};

/// A variable of the environment.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is if it is not set; nothing if it has to be, or may be absent.
    pub default: Option<&'static str>,
    /// What it is for, in a line.
    pub meaning: &'static str,
}

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

/// Every variable that is read, in the order in which they are explained. What the AWS SDK reads for itself is not here.
pub const VARIABLES: &[Variable] = &[
    variable(
        "EDIT_DOMAIN",
        None,
        "the domain below which edit.<client> is (required)",
    ),
    variable(
        "PREVIEW_DOMAIN",
        None,
        "the domain below which every session has a host of its own; recommended, and needs a gateway",
    ),
    variable(
        "LINK_KEYS",
        None,
        "the keys that sign links: <name>:<64 or more hexadecimal digits>, separated by commas; the first one signs, all are believed (required)",
    ),
    variable(
        "ALLOWED_CIDRS",
        None,
        "the networks of the containers, separated by commas; no other address is ever connected to (required)",
    ),
    variable(
        "ECS_CLUSTER",
        None,
        "the cluster in which environments are started (required)",
    ),
    variable(
        "TASK_DEFINITION",
        None,
        "the family or ARN of their task definition (required)",
    ),
    variable(
        "CONTAINER_NAME",
        Some("edit-agent"),
        "the container in it that is told for which session it is",
    ),
    variable(
        "SUBNETS",
        None,
        "the subnets of the tasks, separated by commas (required)",
    ),
    variable(
        "SECURITY_GROUPS",
        None,
        "the security groups of the tasks, separated by commas (required)",
    ),
    variable(
        "ASSIGN_PUBLIC_IP",
        Some("false"),
        "true where the subnets have no way out of their own",
    ),
    variable(
        "INTAKE_QUEUE_URL",
        None,
        "the queue where producers send; needed by `serve`, which receives from it where no Lambda is subscribed",
    ),
    variable(
        "DEAD_QUEUE_URL",
        None,
        "the queue for what nobody could deal with (required)",
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
        "GATEWAY",
        Some("false"),
        "true for a Lambda beside a gateway: then it carries no bytes of a site itself",
    ),
    variable(
        "TRUSTED_HOPS",
        None,
        "the networks of the load balancer, separated by commas: what it says of a visitor is believed (required by `serve`)",
    ),
    variable(
        "PUBLIC_PORT",
        None,
        "the port at which the public reaches us, if it is not 443",
    ),
    variable(
        "LOG_LEVEL",
        Some("info"),
        "error, warn, info, debug or trace, or directives as in RUST_LOG",
    ),
    variable("LOG_FORMAT", Some("json"), "json, or text for people"),
];

/// The registry, for `--help`: in lines that fit a screen.
pub fn explain() -> String {
    /// The longest name, and a little.
    const NAME_WIDTH: usize = 21;
    /// What fits everywhere.
    const LINE_WIDTH: usize = 96;
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

/// Everything the router is told in the cloud.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What holds for all clients.
    pub policy: Policy,
    /// The keys that sign links.
    pub keys: LinkKeys,
    /// How environments are started.
    pub ecs: Ecs,
    /// Where producers send.
    pub intake: Option<String>,
    /// Where goes what nobody could deal with.
    pub dead: String,
    /// The table of the clients.
    pub clients_table: String,
    /// The table of the sessions.
    pub sessions_table: String,
    /// The table of the receipts.
    pub receipts_table: String,
    /// Whether a gateway carries the bytes of sites.
    pub gateway: bool,
    /// Whose word about a visitor is believed.
    pub trusted_hops: Vec<IpNet>,
    /// How much is logged.
    pub log_level: Level,
    /// How lines look.
    pub log_format: Format,
}

/// How environments are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ecs {
    /// The cluster.
    pub cluster: String,
    /// The family or ARN of the task definition.
    pub task_definition: String,
    /// The container that is told for which session it is.
    pub container_name: String,
    /// The subnets of the tasks.
    pub subnets: Vec<String>,
    /// The security groups of the tasks.
    pub security_groups: Vec<String>,
    /// Whether a task gets a public address.
    pub assign_public_ip: bool,
}

/// What is wrong with the variables: all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSettings(pub Vec<String>);

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the environment of the router is not complete:")?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidSettings {}

/// The keys that sign links, where nothing else is needed.
pub fn link_keys(variables: &BTreeMap<String, String>) -> Result<LinkKeys, InvalidSettings> {
    let mut reader = Reader::new(variables);
    let keys = reader.required("LINK_KEYS");
    reader.finish(keys)
}

impl Settings {
    /// Reads the variables. Every one that is wrong is said at once; no value of a secret is repeated.
    pub fn read(variables: &BTreeMap<String, String>) -> Result<Self, InvalidSettings> {
        let mut reader = Reader::new(variables);
        let (edit_domain, preview_domain) = (
            reader.domain("EDIT_DOMAIN"),
            reader.domain("PREVIEW_DOMAIN"),
        );
        reader.need("EDIT_DOMAIN");
        let keys: Option<LinkKeys> = reader.required("LINK_KEYS");
        let networks = reader.list("ALLOWED_CIDRS");
        reader.need("ALLOWED_CIDRS");
        let cluster = reader.required("ECS_CLUSTER");
        let task_definition = reader.required("TASK_DEFINITION");
        let container_name = reader.required("CONTAINER_NAME");
        let subnets = reader.list("SUBNETS");
        reader.need("SUBNETS");
        let security_groups = reader.list("SECURITY_GROUPS");
        reader.need("SECURITY_GROUPS");
        let assign_public_ip = reader.required("ASSIGN_PUBLIC_IP");
        let intake = reader.text("INTAKE_QUEUE_URL");
        let dead = reader.required("DEAD_QUEUE_URL");
        let clients_table = reader.required("CLIENT_CONFIGS_TABLE");
        let sessions_table = reader.required("SESSIONS_TABLE");
        let receipts_table = reader.required("RECEIPTS_TABLE");
        let gateway = reader.required("GATEWAY");
        let trusted_hops = reader.list("TRUSTED_HOPS");
        let port = reader.optional("PUBLIC_PORT");
        let log_level = reader.required("LOG_LEVEL");
        let log_format = reader.required("LOG_FORMAT");
        let settings = (|| {
            Some(Self {
                policy: Policy {
                    edit_domain: edit_domain?,
                    preview_domain,
                    networks,
                    door_port: Some(DOOR_PORT),
                    public: Public {
                        proto: Proto::Https,
                        port,
                    },
                },
                keys: keys?,
                ecs: Ecs {
                    cluster: cluster?,
                    task_definition: task_definition?,
                    container_name: container_name?,
                    subnets,
                    security_groups,
                    assign_public_ip: assign_public_ip?,
                },
                intake,
                dead: dead?,
                clients_table: clients_table?,
                sessions_table: sessions_table?,
                receipts_table: receipts_table?,
                gateway: gateway?,
                trusted_hops,
                log_level: log_level?,
                log_format: log_format?,
            })
        })();
        reader.finish(settings)
    }
}

/// Reads variables and notes what is wrong with each.
struct Reader<'a> {
    variables: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(variables: &'a BTreeMap<String, String>) -> Self {
        Self {
            variables,
            problems: Vec::new(),
        }
    }

    fn known(name: &str) -> &'static Variable {
        VARIABLES
            .iter()
            .find(|variable| variable.name == name)
            .expect("every variable that is read is in the registry")
    }

    /// A variable as text: what is set, or its default. An empty one is not set.
    fn text(&self, name: &str) -> Option<String> {
        let default = Self::known(name).default;
        let set = self.variables.get(name).filter(|value| !value.is_empty());
        set.cloned().or_else(|| default.map(str::to_owned))
    }

    fn need(&mut self, name: &str) {
        if self.text(name).is_none() {
            self.problems
                .push(format!("{name} is not set: {}", Self::known(name).meaning));
        }
    }

    fn required<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        self.need(name);
        self.optional(name)
    }

    fn optional<T: FromStr>(&mut self, name: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(name)?;
        text.parse()
            .map_err(|error| self.problems.push(format!("{name}: {error}")))
            .ok()
    }

    fn list<T: FromStr>(&mut self, name: &str) -> Vec<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.text(name).unwrap_or_default();
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let mut list = Vec::new();
        for part in parts {
            match part.parse() {
                Ok(value) => list.push(value),
                Err(error) => self.problems.push(format!("{name}: {part}: {error}")),
            }
        }
        list
    }

    fn domain(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?.to_ascii_lowercase();
        let host = crate::host::Host::parse(&text);
        if host.is_ok_and(|host| host.port.is_none()) {
            return Some(text);
        }
        self.problems.push(format!("{name}: {text} is no domain"));
        None
    }

    fn finish<T>(self, read: Option<T>) -> Result<T, InvalidSettings> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(InvalidSettings(self.problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> BTreeMap<String, String> {
        [
            ("EDIT_DOMAIN", "WebOrdinary.com"),
            ("PREVIEW_DOMAIN", "preview.webordinary.com"),
            ("LINK_KEYS", &format!("a:{}", "11".repeat(32))),
            ("ALLOWED_CIDRS", "10.0.0.0/16, fd00::/8"),
            ("ECS_CLUSTER", "edit"),
            ("TASK_DEFINITION", "edit-environment"),
            ("SUBNETS", "subnet-1,subnet-2"),
            ("SECURITY_GROUPS", "sg-1"),
            (
                "DEAD_QUEUE_URL",
                "https://sqs.example/1/webordinary-edits-dead.fifo",
            ),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn a_complete_environment_is_read() {
        let settings = Settings::read(&complete()).expect("complete");
        assert_eq!(settings.policy.edit_domain, "webordinary.com");
        assert_eq!(settings.policy.networks.len(), 2);
        assert_eq!(settings.ecs.container_name, "edit-agent");
        assert!(!settings.gateway);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_and_no_secret_with_it() {
        let mut variables = complete();
        variables.insert("LINK_KEYS".to_owned(), "a:5ec7e7".to_owned());
        variables.insert(
            "ALLOWED_CIDRS".to_owned(),
            "10.0.0.0/16,10.0.0.0/99".to_owned(),
        );
        variables.insert("EDIT_DOMAIN".to_owned(), "web ordinary".to_owned());
        variables.insert("GATEWAY".to_owned(), "maybe".to_owned());
        variables.remove("SUBNETS");
        let wrong = Settings::read(&variables).expect_err("wrong").to_string();
        insta::assert_snapshot!(wrong, @r"
        the environment of the router is not complete:
          EDIT_DOMAIN: web ordinary is no domain
          LINK_KEYS: a key is at least 64 hexadecimal digits
          ALLOWED_CIDRS: 10.0.0.0/99: invalid IP address syntax
          SUBNETS is not set: the subnets of the tasks, separated by commas (required)
          GATEWAY: provided string was not `true` or `false`
        ");
        assert!(!wrong.contains("5ec7e7"), "{wrong}");
    }
}
