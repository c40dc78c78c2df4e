//! The cluster's agreement, as an operator looks at it.

use std::time::Duration;

use hyper::Method;

use super::{Client, ClientError, NOTHING, uri::waiting};
use crate::api::http::{
    cluster::{Freshness, Voters},
    pools::{PoolInUse, SetPools},
};

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
}
