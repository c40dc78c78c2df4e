//! How a command ends when it does not end well: a line or a JSON object on standard error, and an exit code.

use std::io;

use crate::{
    api::{
        client::ClientError,
        http::{
            DoorError, Exit,
            types::{Code, ErrorBody, Failure},
        },
    },
    config::ConfigError,
    runtime::BindError,
    store::StoreError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The daemon refused, or cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command was understood, and makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It is refused here, without a daemon.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// Anything else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// It has been told already.
    #[error("it failed")]
    Told(Exit),
}

impl CliError {
    /// Returns what to exit with.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => match error {
                ClientError::NoDaemon { .. } => Exit::NoDaemon,
                ClientError::Refused(failure) => failure.code.exit(),
                ClientError::TimedOut { .. } => Exit::Unavailable,
                ClientError::Denied { .. }
                | ClientError::Broken { .. }
                | ClientError::Foreign { .. } => Exit::Failed,
            },
            Self::Config(_) | Self::Usage(_) => Exit::Usage,
            Self::Refused(failure) => failure.code.exit(),
            Self::Output(_) | Self::Failed(_) => Exit::Failed,
            Self::Told(exit) => *exit,
        }
    }

    /// Returns the word that stands for it in JSON.
    fn code(&self) -> &'static str {
        match self {
            Self::Client(error) => match error {
                ClientError::NoDaemon { .. } => "no_daemon",
                ClientError::Refused(failure) => failure.code.as_str(),
                ClientError::TimedOut { .. } => Code::TimedOut.as_str(),
                ClientError::Denied { .. } => "denied",
                ClientError::Broken { .. } => "broken",
                ClientError::Foreign { .. } => "foreign",
            },
            Self::Config(_) => "config",
            Self::Usage(_) => "usage",
            Self::Refused(failure) => failure.code.as_str(),
            Self::Output(_) => "output",
            Self::Failed(_) | Self::Told(_) => Code::Failed.as_str(),
        }
    }

    /// Returns what standard error gets; nothing if all has been said.
    pub(super) fn report(&self, json: bool) -> Option<String> {
        let is_told = match self {
            Self::Told(_) => true,
            // Who reads our output has seen enough, as `head` does.
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Client(_)
            | Self::Config(_)
            | Self::Usage(_)
            | Self::Refused(_)
            | Self::Failed(_) => false,
        };
        (!is_told).then(|| match self.refusal() {
            _ if !json => format!("weft: {self}"),
            Some(failure) => as_json(failure).to_string(),
            None => in_json(self.code(), &self.to_string()),
        })
    }

    /// Returns what the daemon said, or would have said.
    fn refusal(&self) -> Option<&Failure> {
        if let Self::Client(ClientError::Refused(failure)) | Self::Refused(failure) = self {
            return Some(failure);
        }
        None
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let in_use = matches!(error, StoreError::InUse { .. });
        place_error(in_use, anyhow::Error::from(error))
    }
}

impl From<DoorError> for CliError {
    fn from(error: DoorError) -> Self {
        let in_use = matches!(error, DoorError::InUse { .. });
        place_error(in_use, anyhow::Error::from(error))
    }
}

impl From<BindError> for CliError {
    fn from(error: BindError) -> Self {
        let in_use = matches!(error, BindError::InUse { .. });
        place_error(in_use, anyhow::Error::from(error))
    }
}

/// A place that somebody else uses is a conflict; anything else that is wrong with it is a failure.
fn place_error(in_use: bool, error: anyhow::Error) -> CliError {
    if in_use {
        Failure::new(Code::InUse, error.to_string()).into()
    } else {
        error.into()
    }
}

/// Returns an error as the control API would write it, with a code that need not be one of its own.
pub(super) fn in_json(code: &str, message: &str) -> String {
    let mut value = as_json(&Failure::new(Code::Failed, message));
    value["error"]["code"] = code.into();
    value.to_string()
}

fn as_json(failure: &Failure) -> serde_json::Value {
    let body = ErrorBody {
        error: failure.clone(),
    };
    serde_json::to_value(body).expect("strings make valid JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::NodeId;

    fn no_daemon() -> CliError {
        CliError::Client(ClientError::NoDaemon {
            socket: "/run/weft/weft.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    #[test]
    fn no_daemon_says_what_to_do_and_exits_3() {
        let error = no_daemon();

        assert_eq!(error.exit() as u8, 3);
        let line = error.report(false).unwrap();
        assert!(
            line.starts_with(
                "weft: no weft daemon answers at /run/weft/weft.sock: start one with `weft up`"
            ),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn in_json_an_error_has_a_code_and_a_message() {
        let json: serde_json::Value =
            serde_json::from_str(&no_daemon().report(true).unwrap()).unwrap();

        assert_eq!(json["error"]["code"], "no_daemon");
        assert!(
            json["error"]["message"]
                .as_str()
                .unwrap()
                .contains("weft up")
        );
    }

    #[test]
    fn in_json_a_refusal_has_all_that_the_daemon_said() {
        let refused = Failure {
            owner: Some(NodeId(3)),
            ..Failure::new(Code::NotOwner, "it is n3's")
        };

        let json = CliError::Client(ClientError::Refused(refused)).report(true);

        assert_eq!(
            json.as_deref(),
            Some(
                r#"{"error":{"code":"not_owner","message":"it is n3's","owner":"0000000000000003"}}"#
            )
        );
    }

    #[test]
    fn each_refusal_of_the_daemon_has_its_exit_code() {
        let exit =
            |code| CliError::Client(ClientError::Refused(Failure::new(code, "x"))).exit() as u8;

        assert_eq!(exit(Code::NoSuchNetwork), 4);
        assert_eq!(exit(Code::NetworkExists), 5);
        assert_eq!(exit(Code::NameTaken), 5);
        assert_eq!(exit(Code::NoLeader), 6);
        assert_eq!(exit(Code::Failed), 1);
        assert_eq!(CliError::Usage("x".to_owned()).exit() as u8, 2);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_told_nothing() {
        assert_eq!(
            CliError::Output(io::ErrorKind::BrokenPipe.into()).report(false),
            None
        );
    }
}
