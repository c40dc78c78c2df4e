//! The cluster's agreement, as an operator looks at it.

use hyper::Method;

use super::{Client, ClientError};
use crate::api::http::{
    cluster::Voters,
    pools::{PoolInUse, SetPools},
};

impl Client {
    /// Asks who votes and why.
    pub async fn voters(&self) -> Result<Voters, ClientError> {
        self.get("/v1/cluster/voters").await
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
