//! The cluster's agreement, as an operator looks at it.

use std::time::Duration;

use hyper::Method;

use super::{Client, ClientError, NOTHING, uri::waiting};
use crate::api::http::{
    authority::{Authority, RotateAuthority},
    cluster::{Freshness, Voters},
    pools::{PoolInUse, SetPools},
};

/// How long the daemon waits for the end of a change, and for a leader.
const CHANGE: Duration = Duration::from_secs(45);

impl Client {
    /// Asks who votes and why.
    pub async fn voters(&self) -> Result<Voters, ClientError> {
        self.get("/v1/cluster/voters").await
    }

    /// Waits until the node has heard of all that was agreed by now, at most for `wait`: what is read then is as fresh as that.
    pub async fn confirm(&self, wait: Duration) -> Result<Freshness, ClientError> {
        let uri = waiting("/v1/cluster/confirm".to_owned(), wait);
        self.patient(wait).send(Method::POST, &uri, NOTHING).await
    }

    /// Asks where subnets come from that nobody names.
    pub async fn default_pools(&self) -> Result<Vec<PoolInUse>, ClientError> {
        self.get("/v1/ipam/pools").await
    }

    /// Has the cluster agree on where subnets come from that nobody names.
    pub async fn set_default_pools(&self, wish: &SetPools) -> Result<(), ClientError> {
        self.done(Method::PUT, "/v1/ipam/pools", Some(wish)).await
    }

    /// Asks who signs certificates, and how a change of that stands.
    pub async fn authority(&self) -> Result<Authority, ClientError> {
        self.get("/v1/cluster/authority").await
    }

    /// Replaces the authority, or goes on with that; `now`: without those that do not answer.
    pub async fn authority_rotate(&self, now: bool) -> Result<Authority, ClientError> {
        let wish = RotateAuthority { now };
        self.patient(CHANGE)
            .send(Method::POST, "/v1/cluster/authority/rotate", Some(&wish))
            .await
    }
}
