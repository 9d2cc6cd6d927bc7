//! Where to send: to the door of an environment that runs, or to a queue.

use std::path::Path;

use super::Queue;
use crate::cli::SendArguments;
use crate::environment::home::{self, RunningNote};
use crate::failure::{Exit, Failure};

/// Where to send.
#[derive(Debug)]
pub(super) enum Target {
    /// To an environment that runs here.
    Door(Door),
    /// To a queue, whether or not an environment runs.
    Queue(Queue),
}

impl Target {
    /// The queue named, else a door.
    pub(super) fn find(arguments: &SendArguments) -> Result<Self, Failure> {
        match &arguments.queue {
            Some(url) => Queue::named(url, arguments).map(Self::Queue),
            None => {
                Door::find(arguments.url.as_deref(), arguments.state.as_deref()).map(Self::Door)
            }
        }
    }
}

/// An environment's door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Door {
    /// Host and port.
    pub(crate) authority: String,
}

impl Door {
    /// The one named; else the one that runs; of several, the one of the folder we stand in.
    pub(crate) fn find(url: Option<&str>, state: Option<&Path>) -> Result<Self, Failure> {
        if let Some(url) = url {
            return Self::parse(url);
        }
        let notes = home::running(&home::state_folder(state)?);
        let here = std::env::current_dir().ok();
        match choose(&notes, here.as_deref()) {
            Ok(note) => Self::parse(&note.url),
            Err(failure) => Err(failure),
        }
    }

    fn parse(url: &str) -> Result<Self, Failure> {
        let authority = url
            .strip_prefix("http://")
            .map(|rest| rest.split('/').next().unwrap_or(rest))
            .filter(|authority| !authority.is_empty());
        match authority {
            Some(authority) => Ok(Self {
                authority: if authority
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
                {
                    authority.to_owned()
                } else {
                    format!("{authority}:80")
                },
            }),
            None => Err(Failure::new(
                Exit::Usage,
                format!("{url} is no address of an environment"),
                "Name it as http://127.0.0.1:PORT.",
            )),
        }
    }
}

fn choose<'a>(notes: &'a [RunningNote], here: Option<&Path>) -> Result<&'a RunningNote, Failure> {
    match notes {
        [] => Err(Failure::new(
            Exit::NoEnvironment,
            "no edit environment runs here",
            "Start one with `edit-agent dev REPO`, or name one with --url; if `dev` was given --state, give it here too.",
        )),
        [note] => Ok(note),
        several => {
            let of_here = |note: &&RunningNote| {
                here.is_some_and(|here| {
                    note.folder
                        .as_ref()
                        .is_some_and(|folder| here.starts_with(folder))
                })
            };
            several
                .iter()
                .filter(of_here)
                .max_by_key(|note| {
                    note.folder
                        .as_ref()
                        .map(|folder| folder.components().count())
                })
                .ok_or_else(|| {
                    let list = several
                        .iter()
                        .map(|note| {
                            format!(
                                "\n    {}  {}",
                                note.url,
                                note.folder
                                    .as_ref()
                                    .map(|folder| folder.display().to_string())
                                    .unwrap_or_default()
                            )
                        })
                        .collect::<String>();
                    Failure::new(
                        Exit::Usage,
                        format!("several edit environments run here:{list}"),
                        "Name one with --url, or stand in its folder.",
                    )
                })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(port: u16, folder: &str) -> RunningNote {
        RunningNote {
            url: format!("http://127.0.0.1:{port}/"),
            pid: 1,
            folder: Some(folder.into()),
        }
    }

    #[test]
    fn of_several_environments_the_one_of_this_folder_is_meant() {
        let notes = [note(1, "/sites/amelia"), note(2, "/sites/bertram")];
        assert_eq!(
            choose(&notes, Some(Path::new("/sites/bertram/src")))
                .map(|note| note.url.clone())
                .ok()
                .as_deref(),
            Some("http://127.0.0.1:2/")
        );
        let failure = choose(&notes, Some(Path::new("/elsewhere"))).expect_err("ambiguous");
        assert!(
            failure.message.contains("http://127.0.0.1:1/")
                && failure.message.contains("/sites/bertram"),
            "{failure}"
        );
        assert_eq!(
            choose(&[], None).expect_err("none").exit,
            Exit::NoEnvironment
        );
    }

    #[test]
    fn an_address_has_a_host() {
        assert_eq!(
            Door::parse("http://127.0.0.1:8080/x").ok(),
            Some(Door {
                authority: "127.0.0.1:8080".to_owned()
            })
        );
        assert_eq!(
            Door::parse("http://localhost").ok(),
            Some(Door {
                authority: "localhost:80".to_owned()
            })
        );
        assert!(Door::parse("127.0.0.1:8080").is_err());
    }
}
