//! The container runtime's door: CNI 1.1, the same binary called as a plugin (CNI specification, section 2 and 5).
//!
//! `VERSION` is answered here; all else asks the daemon of this host. A refusal is CNI's own error object, so a runtime
//! reports the reason instead of starting a container without a network.

mod attachment;

use std::{
    io::{self, Read},
    path::PathBuf,
};

use serde::Serialize;
use serde_json::Value;

use self::attachment::{Attachment, Configuration, Door};
use super::client::ClientError;

/// The longest configuration that is read from standard input, in bytes.
const INPUT_MAX: usize = 1024 * 1024;

/// The versions of the specification whose configurations and results are spoken here.
const VERSIONS: &[&str] = &["1.0.0", "1.1.0"];

/// What goes to standard output, and how the program ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// One JSON object; empty for a command whose success has nothing to say.
    pub json: String,
    /// Whether it is an error object; then the exit code is not zero.
    pub is_error: bool,
}

/// Why a command was refused. The codes are the specification's; from 100 they are ours.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("cniVersion {0:?} is not supported: use one of {VERSIONS:?}")]
    Version(String),
    #[error("environment variable {name} {problem}")]
    Environment {
        name: &'static str,
        problem: &'static str,
    },
    #[error("the network configuration cannot be read from standard input: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the network configuration is not JSON: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the network configuration is longer than {INPUT_MAX} bytes")]
    TooLong,
    #[error("the network configuration is of no use: {0}")]
    Configuration(&'static str),
    #[error("containers cannot be attached now: {0}")]
    Unavailable(String),
    #[error("the container is not attached to network {0} as it was")]
    NotAttached(String),
    #[error("{0}")]
    Daemon(#[from] ClientError),
}

impl Refusal {
    fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment { .. } => 4,
            Self::Unreadable(_) => 5,
            Self::Malformed(_) => 6,
            Self::TooLong | Self::Configuration(_) => 7,
            Self::Unavailable(_) => 50,
            Self::NotAttached(_) => 101,
            Self::Daemon(refused) if attachment::passes(refused) => 11,
            Self::Daemon(_) => 100,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions<'a> {
    cni_version: &'a str,
    supported_versions: &'static [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    cni_version: &'a str,
    code: u32,
    msg: String,
}

/// What a runtime wants, as far as its environment says it.
enum Command {
    Version,
    Add(Attachment),
    Check(Attachment),
    Del {
        container: String,
        interface: String,
    },
    Gc,
    Status,
}

/// Returns whether a container runtime has called the program as a plugin; `variable` reads the environment.
pub fn is_called(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("CNI_COMMAND").is_some()
}

/// Answers one command. `variable` reads the environment; `input` is standard input, which is read to its end or bound;
/// `socket` is where the daemon is, unless the configuration says otherwise.
pub async fn answer(
    variable: impl Fn(&str) -> Option<String>,
    input: impl Read,
    socket: PathBuf,
) -> Reply {
    let newest = VERSIONS.last().copied().unwrap_or_default();
    let configuration = match read(input) {
        Ok(configuration) => configuration,
        Err(refusal) => return refused(newest, &refusal),
    };
    // Before 0.2.0 there was no such field, and its absence meant 0.1.0.
    let spoken = configuration.version.clone();
    let spoken = spoken.unwrap_or_else(|| "0.1.0".to_owned());
    match decide(&variable, &spoken, configuration, socket).await {
        Ok(answer) => Reply {
            json: answer.map(|answer| answer.to_string()).unwrap_or_default(),
            is_error: false,
        },
        Err(refusal) => {
            let version = VERSIONS
                .iter()
                .find(|version| **version == spoken)
                .unwrap_or(&newest);
            refused(version, &refusal)
        }
    }
}

fn read(input: impl Read) -> Result<Configuration, Refusal> {
    let mut text = Vec::new();
    let one_too_many = INPUT_MAX as u64 + 1;
    input.take(one_too_many).read_to_end(&mut text)?;
    if text.len() > INPUT_MAX {
        return Err(Refusal::TooLong);
    }
    Ok(serde_json::from_slice(&text)?)
}

async fn decide(
    variable: &impl Fn(&str) -> Option<String>,
    spoken: &str,
    configuration: Configuration,
    socket: PathBuf,
) -> Result<Option<Value>, Refusal> {
    let command = command(variable)?;
    if matches!(command, Command::Version) {
        // Answered whatever was asked with: it is how a runtime finds out what it may ask with.
        let versions = Versions {
            cni_version: spoken,
            supported_versions: VERSIONS,
        };
        return Ok(Some(serde_json::to_value(&versions)?));
    }
    if !VERSIONS.contains(&spoken) {
        return Err(Refusal::Version(spoken.to_owned()));
    }
    let door = Door::new(configuration, socket)?;
    match command {
        Command::Add(to) => return door.add(&to).await.map(Some),
        Command::Check(to) => door.check(&to).await?,
        Command::Del {
            container,
            interface,
        } => door.del(&container, &interface).await?,
        Command::Gc => door.gc().await?,
        Command::Status => door.status().await?,
        Command::Version => {}
    }
    Ok(None)
}

fn command(variable: &impl Fn(&str) -> Option<String>) -> Result<Command, Refusal> {
    let needed = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty());
        let problem = "is missing";
        value.ok_or(Refusal::Environment { name, problem })
    };
    let attachment = || {
        Ok(Attachment {
            container: needed("CNI_CONTAINERID")?,
            netns: needed("CNI_NETNS")?,
            interface: needed("CNI_IFNAME")?,
        })
    };
    match variable("CNI_COMMAND").unwrap_or_default().as_str() {
        "VERSION" => Ok(Command::Version),
        "ADD" => attachment().map(Command::Add),
        "CHECK" => attachment().map(Command::Check),
        // The namespace may be gone when its attachment is deleted.
        "DEL" => Ok(Command::Del {
            container: needed("CNI_CONTAINERID")?,
            interface: needed("CNI_IFNAME")?,
        }),
        "GC" => needed("CNI_PATH").map(|_path| Command::Gc),
        "STATUS" => Ok(Command::Status),
        _ => {
            let problem = "must be ADD, CHECK, DEL, GC, STATUS or VERSION";
            let name = "CNI_COMMAND";
            Err(Refusal::Environment { name, problem })
        }
    }
}

fn refused(version: &str, refusal: &Refusal) -> Reply {
    let failure = Failure {
        cni_version: version,
        code: refusal.code(),
        msg: refusal.to_string(),
    };
    Reply {
        json: serde_json::to_string(&failure).expect("texts and numbers always serialize"),
        is_error: true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(answer: impl Future<Output = Reply>) -> Reply {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(answer)
    }

    const ENVIRONMENT: &[(&str, &str)] = &[
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    fn call(command: &str, environment: &[(&str, &str)], input: &str) -> (bool, Value) {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            _ => environment
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned()),
        };
        let reply = run(answer(variable, input.as_bytes(), "/nowhere/sock".into()));
        (reply.is_error, serde_json::from_str(&reply.json).unwrap())
    }

    fn code(command: &str, environment: &[(&str, &str)], input: &str) -> Value {
        let (is_error, mut reply) = call(command, environment, input);
        assert!(is_error, "{reply}");
        assert!(
            reply["msg"].is_string() && reply["cniVersion"].is_string(),
            "{reply}"
        );
        reply["code"].take()
    }

    #[test]
    fn a_version_is_answered_whatever_version_asks() {
        for asked in ["1.1.0", "0.3.1", "9.0.0"] {
            let (is_error, reply) = call("VERSION", &[], &json!({"cniVersion": asked}).to_string());

            assert!(!is_error);
            assert_eq!(
                reply,
                json!({"cniVersion": asked, "supportedVersions": ["1.0.0", "1.1.0"]})
            );
        }
    }

    #[test]
    fn without_a_daemon_a_runtime_is_told_to_try_again() {
        let app = r#"{"cniVersion":"1.1.0","name":"app","type":"weft"}"#;
        for command in ["ADD", "DEL", "CHECK", "GC"] {
            assert_eq!(code(command, ENVIRONMENT, app), 11, "{command}");
        }
        assert_eq!(code("STATUS", &[], app), 50);
    }

    #[test]
    fn each_mistake_of_the_caller_has_its_code() {
        let good = r#"{"cniVersion":"1.1.0"}"#;

        assert_eq!(code("ADD", ENVIRONMENT, good), 7);
        assert_eq!(code("ADD", ENVIRONMENT, r#"{"cniVersion":"2.0.0"}"#), 1);
        assert_eq!(code("ADD", ENVIRONMENT, "{}"), 1);
        assert_eq!(code("ADD", &ENVIRONMENT[..2], good), 4);
        assert_eq!(
            code(
                "DEL",
                &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "eth0")],
                good
            ),
            4
        );
        assert_eq!(code("add", ENVIRONMENT, good), 4);
        assert_eq!(code("VERSION", &[], "{"), 6);
        assert_eq!(code("VERSION", &[], &" ".repeat(INPUT_MAX + 1)), 7);
    }

    #[test]
    fn input_without_an_end_is_read_to_the_bound_only() {
        let endless = io::repeat(b' ');
        let reply = run(answer(|_| Some("VERSION".to_owned()), endless, "/".into()));

        let reply: Value = serde_json::from_str(&reply.json).unwrap();
        assert_eq!(reply["code"], 7);
    }

    #[test]
    fn only_a_runtime_sets_the_command() {
        assert!(is_called(
            |name| (name == "CNI_COMMAND").then(|| "ADD".into())
        ));
        assert!(!is_called(|_| None));
    }
}
