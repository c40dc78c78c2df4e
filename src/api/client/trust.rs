//! Keys and membership, as an operator changes them.

use std::time::Duration;

use hyper::Method;

use super::{Client, ClientError, NOTHING, uri::at_removal};
use crate::api::http::trust::{Keys, RemovedMember, RotateKeys, Rotated};

/// How long a rotation may take: each of its steps waits for members that do not answer.
const ROTATION: Duration = Duration::from_secs(45);

impl Client {
    /// Asks for the ring of datagram keys on this node.
    pub async fn keys(&self) -> Result<Keys, ClientError> {
        self.get("/v1/keys").await
    }

    /// Rotates the datagram keys; with `retire`, former ones are of no use afterwards.
    pub async fn keys_rotate(&self, retire: bool) -> Result<Rotated, ClientError> {
        let wish = RotateKeys { retire };
        self.patient(ROTATION)
            .send(Method::POST, "/v1/keys/rotate", Some(&wish))
            .await
    }

    /// Removes another node from the cluster for good.
    pub async fn member_remove(
        &self,
        member: &str,
        keep_token: bool,
    ) -> Result<RemovedMember, ClientError> {
        self.patient(ROTATION)
            .send(Method::DELETE, &at_removal(member, keep_token), NOTHING)
            .await
    }
}
