//! The cluster's agreement, as an operator looks at it.

use super::{Client, ClientError};
use crate::api::http::cluster::Voters;

impl Client {
    /// Asks who votes and why.
    pub async fn voters(&self) -> Result<Voters, ClientError> {
        self.get("/v1/cluster/voters").await
    }
}
