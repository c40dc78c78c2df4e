//! What the control API answers when it refuses: a code for programs, a message for people, a status, an exit code.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::core::model::NodeId;

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $word:literal, $status:ident, $exit:ident;)*) => {
        /// What went wrong, for programs. A reader that meets a newer code takes it as [`Code::Failed`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $code,)*
            /// Anything else.
            #[serde(rename = "failed", other)]
            Failed,
        }

        impl Code {
            /// Returns the word that stands for it in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $word,)*
                    Self::Failed => "failed",
                }
            }

            /// Returns the HTTP status.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$code => StatusCode::$status,)*
                    Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
                }
            }

            /// Returns what the command line exits with.
            pub fn exit(self) -> Exit {
                match self {
                    $(Self::$code => Exit::$exit,)*
                    Self::Failed => Exit::Failed,
                }
            }
        }
    };
}

/// How the command line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed, for a reason without a number of its own.
    Failed = 1,
    /// The command was not understood.
    Usage = 2,
    /// No daemon answers.
    NoDaemon = 3,
    /// A thing that was named does not exist.
    NotFound = 4,
    /// It contradicts what is there.
    Conflict = 5,
    /// The cluster cannot do it now; try again.
    Unavailable = 6,
}

codes! {
    /// The request was not understood.
    BadRequest = "bad_request", BAD_REQUEST, Usage;
    /// A name, key, value, prefix or option was refused.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, Usage;
    /// The body, key or value is too long.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, Usage;
    /// The method is not for this route.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, Failed;
    /// There is no such route.
    NoSuchRoute = "no_such_route", NOT_FOUND, Failed;
    /// There is no such network.
    NoSuchNetwork = "no_such_network", NOT_FOUND, NotFound;
    /// There is no such endpoint on this node.
    NoSuchEndpoint = "no_such_endpoint", NOT_FOUND, NotFound;
    /// There is no such entry.
    NoSuchEntry = "no_such_entry", NOT_FOUND, NotFound;
    /// There is no such driver.
    NoSuchDriver = "no_such_driver", NOT_FOUND, NotFound;
    /// There is no such member.
    NoSuchMember = "no_such_member", NOT_FOUND, NotFound;
    /// This node was removed from its cluster.
    Removed = "removed", GONE, Conflict;
    /// This node's certificate has run out: it must join again.
    CertificateExpired = "certificate_expired", GONE, Conflict;
    /// A network of that name exists.
    NetworkExists = "network_exists", CONFLICT, Conflict;
    /// The network has endpoints.
    NetworkInUse = "network_in_use", CONFLICT, Conflict;
    /// An endpoint of that name exists.
    EndpointExists = "endpoint_exists", CONFLICT, Conflict;
    /// The endpoint is not in a state that allows it.
    EndpointState = "endpoint_state", CONFLICT, Conflict;
    /// The key exists.
    EntryExists = "entry_exists", CONFLICT, Conflict;
    /// Another node wrote the entry.
    NotOwner = "not_owner", CONFLICT, Conflict;
    /// The subnet, address or VNI is taken.
    InUse = "in_use", CONFLICT, Conflict;
    /// The data directory belongs to a cluster already.
    Founded = "founded", CONFLICT, Conflict;
    /// Another node has that name.
    NameTaken = "name_taken", CONFLICT, Conflict;
    /// The cluster would end: this is its last member.
    LastMember = "last_member", CONFLICT, Conflict;
    /// The token is not, or no longer, right.
    WrongToken = "wrong_token", FORBIDDEN, Failed;
    /// The leader cannot make another authority of certificates.
    NoAuthority = "no_authority", INTERNAL_SERVER_ERROR, Failed;
    /// A driver's plugin refused, or answered what it may not.
    DriverRefused = "driver_refused", BAD_GATEWAY, Failed;
    /// There is no such plugin.
    NoSuchPlugin = "no_such_plugin", NOT_FOUND, NotFound;
    /// Nobody leads the cluster at the moment.
    NoLeader = "no_leader", SERVICE_UNAVAILABLE, Unavailable;
    /// The node has not come up yet, or does not carry this network yet.
    NotReady = "not_ready", SERVICE_UNAVAILABLE, Unavailable;
    /// Too much is being asked at once.
    Busy = "busy", SERVICE_UNAVAILABLE, Unavailable;
    /// No address, subnet or VNI is left.
    Exhausted = "exhausted", INSUFFICIENT_STORAGE, Unavailable;
    /// It was not done within its deadline; it may still be done.
    TimedOut = "timed_out", GATEWAY_TIMEOUT, Unavailable;
    /// The node is going down.
    Stopped = "stopped", SERVICE_UNAVAILABLE, Unavailable;
}

/// What a failed request answers: `{"error": {"code": …, "message": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Failure,
}

/// A code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people: one line that says what to do.
    pub message: String,
    /// Whose it is, where only its owner may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<NodeId>,
}

impl Failure {
    /// Makes a failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            owner: None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.code.status(), Json(ErrorBody { error: self })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_object_with_a_code_and_a_message() {
        let body = ErrorBody {
            error: Failure::new(Code::NetworkExists, "network app exists"),
        };

        let json = serde_json::to_string(&body).unwrap();

        assert_eq!(
            json,
            r#"{"error":{"code":"network_exists","message":"network app exists"}}"#
        );
    }

    #[test]
    fn a_code_from_a_newer_program_is_a_plain_failure() {
        let code: Code = serde_json::from_str(r#""moon_phase""#).unwrap();

        assert_eq!(code, Code::Failed);
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        assert_eq!(Code::NoSuchNetwork.exit() as u8, 4);
        assert_eq!(Code::NetworkExists.exit() as u8, 5);
        assert_eq!(Code::NoLeader.exit() as u8, 6);
        assert_eq!(Code::BadRequest.exit() as u8, 2);
        assert_eq!(Code::Failed.exit() as u8, 1);
    }
}
