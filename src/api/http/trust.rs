//! Keys and membership as an operator changes them: `/v1/keys` and `DELETE /v1/members/{member}`.

use axum::{
    Json, Router,
    extract::State,
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};

use super::{
    error::Failure,
    extract::{Ask, At, Body},
};
use crate::{
    controller::{CertificateView, Controller},
    core::model::{Name, NodeId},
    runtime::clock,
};

/// A node's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// When it runs out, in seconds since 1970. The node renews it after two thirds of its life.
    pub expires: u64,
    /// How long that is from now, by the clock of that node; less than nothing if it has run out.
    pub left_s: i64,
    /// The SHA-256 of the authority that signed it, as a join token pins it.
    pub authority: String,
}

impl From<CertificateView> for Certificate {
    fn from(view: CertificateView) -> Self {
        let (until, now) = (view.validity.until.0 / 1000, clock::wall().0 / 1000);
        Self {
            expires: until,
            left_s: until.cast_signed() - now.cast_signed(),
            authority: hex(&view.authority),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `GET /v1/keys`: the ring of datagram keys on this node. The keys themselves are never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Which change of the ring it is: equal on nodes with the same ring.
    pub version: u64,
    /// The id of the key that seals.
    pub primary: u8,
    /// The ids of all keys that open, the primary first.
    pub keys: Vec<u8>,
    /// This node's certificate.
    #[serde(default)]
    pub certificate: Option<Certificate>,
}

/// `POST /v1/keys/rotate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {
    /// Whether what is sealed with former keys is refused once all have the new one.
    #[serde(default)]
    pub retire: bool,
}

/// What came of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The id of the key that seals now.
    pub primary: u8,
    /// Whether the former keys were retired.
    pub retired: bool,
    /// Live members that had not fetched the ring in time; they will by themselves.
    pub behind: Vec<Name>,
}

/// `DELETE /v1/members/{member}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    /// Leave the join token as it is. The removed node may have seen it, and could join anew.
    #[serde(default)]
    pub keep_token: bool,
}

/// A node that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedMember {
    /// Its id, which is refused from now on.
    pub node: NodeId,
    /// Its name, which is free again.
    pub name: Option<Name>,
    /// What came of the rotation of keys.
    pub keys: Rotated,
    /// Whether the join token was replaced.
    pub token_rotated: bool,
}

pub(super) fn routes() -> Router<Controller> {
    Router::new()
        .route("/keys", get(keys))
        .route("/keys/rotate", post(rotate))
        .route("/members/{member}", delete(remove))
}

async fn keys(State(controller): State<Controller>) -> Result<Json<Keys>, Failure> {
    let ring = controller.keys().await?;
    Ok(Json(Keys {
        version: ring.version,
        primary: ring.primary.0,
        keys: ring.keys.into_iter().map(|id| id.0).collect(),
        certificate: Some(controller.certificate().into()),
    }))
}

async fn rotate(
    State(controller): State<Controller>,
    Body(wish): Body<RotateKeys>,
) -> Result<Json<Rotated>, Failure> {
    Ok(Json(controller.rotate_keys(wish.retire).await?.into()))
}

async fn remove(
    State(controller): State<Controller>,
    At(member): At<String>,
    Ask(wish): Ask<RemoveMember>,
) -> Result<Json<RemovedMember>, Failure> {
    let gone = controller.expel(&member, wish.keep_token).await?;
    Ok(Json(RemovedMember {
        node: gone.node,
        name: gone.name,
        keys: gone.keys.into(),
        token_rotated: gone.token_rotated,
    }))
}

impl From<crate::controller::Rotated> for Rotated {
    fn from(rotated: crate::controller::Rotated) -> Self {
        Self {
            primary: rotated.key.0,
            retired: rotated.retired,
            behind: rotated.behind.into_iter().collect(),
        }
    }
}
