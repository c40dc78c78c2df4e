//! Requests and answers as bytes: read with tolerance, refused under both keys.

use std::net::{AddrParseError, IpAddr};

use axum::{
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    api::http::types::Failure,
    controller::ControllerError,
    core::model::{IdError, LimitError, MacError, Name, Prefix},
};

/// The media type of the engine's plugin protocol.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// The option that says which network of Weft a network of the engine stands for.
pub(super) const NETWORK_OPTION: &str = "weft.network";

/// Why a call was refused. Nothing was done, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The engine sent what is no request of the protocol.
    #[error("the request is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// An address in it is none.
    #[error("{text:?} is no address: {source}")]
    Address {
        /// What was sent.
        text: String,
        /// What is wrong with it.
        source: AddrParseError,
    },
    /// A MAC address in it is none.
    #[error("MAC address {text:?}: {source}")]
    Mac {
        /// What was sent.
        text: String,
        /// What is wrong with it.
        source: MacError,
    },
    /// An id in it is none.
    #[error("id {text:?}: {source}")]
    Id {
        /// What was sent.
        text: String,
        /// What is wrong with it.
        source: IdError,
    },
    /// A name in it is none.
    #[error("{text:?}: {source}")]
    Name {
        /// What was sent.
        text: String,
        /// What is wrong with it.
        source: LimitError,
    },
    /// Whoever creates the network must say it.
    #[error(
        "say which network of Weft it is: -o {NETWORK_OPTION}=NAME --ipam-opt {NETWORK_OPTION}=NAME (`weft network ls` lists them)"
    )]
    NoNetworkOption,
    /// The engine must ask Weft for addresses, or two hosts would hand out the same.
    #[error("addresses of a network of Weft come from Weft: add --ipam-driver weft")]
    OtherIpam,
    /// The engine has a network of ours that we do not know.
    #[error("this node does not know network {0} of the engine: remove it and create it again")]
    UnknownNetwork(String),
    /// The engine holds a pool that we did not give it.
    #[error("{0:?} is no pool of Weft")]
    BadPool(String),
    /// Choose a network with an IPv4 subnet.
    #[error("network {0} has no IPv4 subnet, and the engine cannot do without")]
    NoIpv4(Name),
    /// Leave `--ipv6` out.
    #[error(
        "network {0} has no IPv6 subnet: leave --ipv6 out, or make the network with `weft network create --ipv6`"
    )]
    NoIpv6(Name),
    /// Leave `--subnet` out.
    #[error(
        "network {network} has {}, not {asked}: leave --subnet out, or name one of these",
        all(has)
    )]
    OtherSubnet {
        /// The network.
        network: Name,
        /// Its subnets.
        has: Vec<Prefix>,
        /// The subnet asked for.
        asked: String,
    },
    /// Leave `--ip-range` out.
    #[error("each node hands out addresses of the blocks leased to it: leave --ip-range {0} out")]
    IpRange(String),
    /// Leave `--gateway` out.
    #[error("network {network} has gateway {has}, not {asked}: leave --gateway out")]
    OtherGateway {
        /// The network.
        network: Name,
        /// Its gateway.
        has: IpAddr,
        /// The gateway asked for.
        asked: IpAddr,
    },
    /// The operator must give the node a data plane, or whoever made the network choose another driver.
    #[error(
        "this node has no data plane for the network, so the container would not be connected: the log says why"
    )]
    NoInterface,
    /// What only managed plugins are asked.
    #[error("networks of a swarm are not made by Weft: use `weft network create`")]
    Swarm,
    /// The node was removed from the cluster.
    #[error("this node is no member of its cluster any more")]
    NoMember,
    /// The use case was refused.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

fn all(prefixes: &[Prefix]) -> String {
    let all: Vec<String> = prefixes.iter().map(Prefix::to_string).collect();
    all.join(" and ")
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_)
            | Self::Address { .. }
            | Self::Mac { .. }
            | Self::Id { .. }
            | Self::Name { .. }
            | Self::NoNetworkOption
            | Self::OtherIpam
            | Self::UnknownNetwork(_)
            | Self::BadPool(_)
            | Self::NoIpv4(_)
            | Self::NoIpv6(_)
            | Self::OtherSubnet { .. }
            | Self::IpRange(_)
            | Self::OtherGateway { .. } => StatusCode::BAD_REQUEST,
            Self::NoInterface => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Swarm => StatusCode::NOT_IMPLEMENTED,
            Self::NoMember | Self::Controller(_) => StatusCode::CONFLICT,
        }
    }

    fn text(self) -> String {
        if let Self::Controller(refused) = self {
            // It logs what the operator must see.
            return Failure::from(refused).message;
        }
        self.to_string()
    }
}

/// A successful answer.
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], axum::Json(self.0)).into_response()
    }
}

/// An answer with nothing in it.
#[derive(Serialize)]
pub(super) struct Done {}

/// A failed call, under both keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    err: String,
    error: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // A 404 would say that the method does not exist.
        let status = self.status();
        let text = self.text();
        let failed = Failed {
            err: text.clone(),
            error: text,
        };
        (status, Answer(failed)).into_response()
    }
}

/// Reads a request, which may have no body where all of it is optional.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let is_blank = body.iter().all(u8::is_ascii_whitespace);
    let text: &[u8] = if is_blank { b"{}" } else { body };
    Ok(serde_json::from_slice(text)?)
}

/// Go writes an empty list or map as `null` or leaves it out.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads an address, with or without the length of its prefix; an empty text is none.
pub(super) fn address(text: &str) -> Result<Option<IpAddr>, Refusal> {
    let bare = text.split_once('/').map_or(text, |(bare, _)| bare);
    if bare.is_empty() {
        return Ok(None);
    }
    let parsed = bare.parse();
    let refused = |source| Refusal::Address {
        text: text.to_owned(),
        source,
    };
    parsed.map(Some).map_err(refused)
}
