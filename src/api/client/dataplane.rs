//! The data plane, desired beside actual.

use super::{Client, ClientError, uri::at_network};
use crate::api::http::dataplane::Dataplane;

impl Client {
    /// Asks what the kernel of this node should hold beside what it does hold: of one network, or of all.
    pub async fn dataplane(&self, network: Option<&str>) -> Result<Vec<Dataplane>, ClientError> {
        match network {
            Some(network) => self.get(&at_network(network, "/dataplane")).await,
            None => self.get("/v1/dataplane").await,
        }
    }
}
