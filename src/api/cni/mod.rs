//! The container runtime's door: CNI 1.1, the same binary called as a plugin (CNI specification, section 2 and 5).
//!
//! `VERSION` is answered. The commands that would attach a container are refused with CNI's own error object, so a
//! runtime reports the reason instead of starting a container without a network.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// The longest configuration that is read from standard input, in bytes.
const INPUT_MAX: usize = 1024 * 1024;

/// The versions of the specification whose configurations and results are spoken here.
const VERSIONS: &[&str] = &["1.0.0", "1.1.0"];

/// What goes to standard output, and how the program ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// One JSON object.
    pub json: String,
    /// Whether it is an error object; then the exit code is not zero.
    pub is_error: bool,
}

/// Why a command was refused. Nothing was done. The codes are the specification's; from 100 they are ours.
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
    #[error("weft cannot attach containers by CNI yet")]
    Unavailable,
    #[error("weft does not support {0} by CNI yet")]
    NotYet(&'static str),
}

impl Refusal {
    fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment { .. } => 4,
            Self::Unreadable(_) => 5,
            Self::Malformed(_) => 6,
            Self::TooLong => 7,
            Self::Unavailable => 50,
            Self::NotYet(_) => 100,
        }
    }
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
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

/// Returns whether a container runtime has called the program as a plugin; `variable` reads the environment.
pub fn is_called(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("CNI_COMMAND").is_some()
}

/// Answers one command. `variable` reads the environment; `input` is standard input, which is read to its end or bound.
pub fn answer(variable: impl Fn(&str) -> Option<String>, input: impl Read) -> Reply {
    let newest = VERSIONS.last().copied().unwrap_or_default();
    let spoken = match version_asked_for(input) {
        Ok(asked) => asked,
        Err(refusal) => return refused(newest, &refusal),
    };
    match decide(&variable, &spoken) {
        Ok(versions) => Reply {
            json: to_json(&versions),
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

fn version_asked_for(input: impl Read) -> Result<String, Refusal> {
    let mut text = Vec::new();
    let one_too_many = INPUT_MAX as u64 + 1;
    input.take(one_too_many).read_to_end(&mut text)?;
    if text.len() > INPUT_MAX {
        return Err(Refusal::TooLong);
    }
    let configuration: Configuration = serde_json::from_slice(&text)?;
    // Before 0.2.0 there was no such field, and its absence meant 0.1.0.
    Ok(configuration.version.unwrap_or_else(|| "0.1.0".to_owned()))
}

fn decide<'a>(
    variable: &impl Fn(&str) -> Option<String>,
    spoken: &'a str,
) -> Result<Versions<'a>, Refusal> {
    const ATTACHMENT: &[&str] = &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let command = variable("CNI_COMMAND").unwrap_or_default();
    let (needed, refusal) = match command.as_str() {
        // Answered whatever was asked with: it is how a runtime finds out what it may ask with.
        "VERSION" => {
            return Ok(Versions {
                cni_version: spoken,
                supported_versions: VERSIONS,
            });
        }
        "ADD" => (ATTACHMENT, Refusal::NotYet("ADD")),
        "CHECK" => (ATTACHMENT, Refusal::NotYet("CHECK")),
        // The namespace may be gone when its attachment is deleted.
        "DEL" => (
            &["CNI_CONTAINERID", "CNI_IFNAME"][..],
            Refusal::NotYet("DEL"),
        ),
        "GC" => (&["CNI_PATH"][..], Refusal::NotYet("GC")),
        "STATUS" => (&[][..], Refusal::Unavailable),
        _ => {
            let problem = "must be ADD, CHECK, DEL, GC, STATUS or VERSION";
            let name = "CNI_COMMAND";
            return Err(Refusal::Environment { name, problem });
        }
    };
    if let Some(name) = needed
        .iter()
        .find(|name| variable(name).is_none_or(|value| value.is_empty()))
    {
        let problem = "is missing";
        return Err(Refusal::Environment { name, problem });
    }
    if !VERSIONS.contains(&spoken) {
        return Err(Refusal::Version(spoken.to_owned()));
    }
    Err(refusal)
}

fn refused(version: &str, refusal: &Refusal) -> Reply {
    let failure = Failure {
        cni_version: version,
        code: refusal.code(),
        msg: refusal.to_string(),
    };
    Reply {
        json: to_json(&failure),
        is_error: true,
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers always serialize")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
        let reply = answer(variable, input.as_bytes());
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
    fn a_command_that_is_not_supported_yet_is_refused_by_name() {
        for command in ["ADD", "DEL", "CHECK", "GC"] {
            let (is_error, reply) = call(
                command,
                ENVIRONMENT,
                r#"{"cniVersion":"1.1.0","name":"app","type":"weft"}"#,
            );

            assert!(is_error);
            let msg = format!("weft does not support {command} by CNI yet");
            assert_eq!(
                reply,
                json!({"cniVersion": "1.1.0", "code": 100, "msg": msg})
            );
        }
        assert_eq!(code("STATUS", &[], r#"{"cniVersion":"1.1.0"}"#), 50);
    }

    #[test]
    fn each_mistake_of_the_caller_has_its_code() {
        let good = r#"{"cniVersion":"1.1.0"}"#;

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
        let reply = answer(|_| Some("VERSION".to_owned()), io::repeat(b' '));

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
