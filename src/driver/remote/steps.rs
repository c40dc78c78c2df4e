//! The steps of networks and endpoints: what a plugin is asked, what of its answers is allowed, what is taken back.

use std::net::IpAddr;

use super::{
    Held, Remote,
    message::{
        CreateEndpoint, CreateNetwork, EndpointCall, GwAllocCheck, GwAllocReply, InterfaceReply,
        Join, JoinReply, NetworkCall, NetworkReply, Nothing, Outside,
    },
    tables::{self, Interests},
};
use crate::{
    core::model::{EndpointId, EndpointRecord, NetworkId, NetworkRecord, Prefix},
    driver::{DriverError, InterfaceName, Joined, Route, TableInterest},
    plugin::CallError,
};

impl Remote {
    pub(super) async fn make_network(
        &self,
        network: &NetworkRecord,
    ) -> Result<Vec<TableInterest>, DriverError> {
        let held = self.done().networks.get(&network.id).cloned();
        match held {
            Some((held, interests)) if held == *network => return Ok(interests.tables),
            Some(_) => return Err(DriverError::NetworkExists(network.id)),
            None => {}
        }
        let skipped = self.check_gateways(network).await?;
        let undo = ("DeleteNetwork", &NetworkCall::of(network.id));
        let request = CreateNetwork::of(network, &skipped);
        let reply: NetworkReply = self
            .make(("CreateNetwork", &request), undo, Held::Stays)
            .await?;
        let interests = if self.has_tables {
            tables::read_interests(reply)
        } else {
            Ok(Interests::default())
        };
        let interests = match interests {
            Ok(interests) => interests,
            Err(wrong) => {
                self.link.undo(undo.0, undo.1).await;
                return Err(self.link.broke("CreateNetwork", &wrong));
            }
        };
        let done = (network.clone(), interests.clone());
        self.done().networks.insert(network.id, done);
        Ok(interests.tables)
    }

    /// Asks which gateways the plugin does without: nothing is left behind by that.
    async fn check_gateways(&self, network: &NetworkRecord) -> Result<GwAllocReply, DriverError> {
        if !self.checks_gateways {
            return Ok(GwAllocReply::default());
        }
        let request = GwAllocCheck::of(network);
        self.link.call("GwAllocCheck", &request).await
    }

    pub(super) async fn delete_network_now(&self, network: NetworkId) -> Result<(), DriverError> {
        let request = NetworkCall::of(network);
        self.link.settle("DeleteNetwork", &request).await?;
        if !self.done().networks.contains_key(&network) {
            return Ok(());
        }
        let _: Nothing = self.link.call("DeleteNetwork", &request).await?;
        self.done().networks.remove(&network);
        Ok(())
    }

    pub(super) async fn make_endpoint(
        &self,
        endpoint: &EndpointRecord,
    ) -> Result<Vec<Prefix>, DriverError> {
        let held = self.done().endpoints.get(&endpoint.id).cloned();
        if let Some((held, given)) = held {
            // Whoever asks again knows of what was given, or asks as the first time.
            let is_same = held.is_same(endpoint) || held.with(&given).is_same(endpoint);
            return match is_same {
                true => Ok(given),
                false => Err(DriverError::EndpointExists(endpoint.id)),
            };
        }
        let request = CreateEndpoint::of(endpoint);
        let undo = (
            "DeleteEndpoint",
            &EndpointCall::of(endpoint.network, endpoint.id),
        );
        let reply: InterfaceReply = self
            .make(("CreateEndpoint", &request), undo, Held::Stays)
            .await?;
        let given = match reply.interface.unwrap_or_default().given(endpoint) {
            Ok(given) => given,
            Err(wrong) => {
                self.link.undo(undo.0, undo.1).await;
                return Err(self.link.broke("CreateEndpoint", &wrong));
            }
        };
        let done = (endpoint.clone(), given.clone());
        self.done().endpoints.insert(endpoint.id, done);
        Ok(given)
    }

    pub(super) async fn join_now(&self, endpoint: &EndpointRecord) -> Result<Joined, DriverError> {
        if let Some(joined) = self.done().joined.get(&endpoint.id) {
            return Ok(joined.clone());
        }
        let request = Join::of(endpoint);
        let undo = ("Leave", &EndpointCall::of(endpoint.network, endpoint.id));
        let is_in_use = self.placed(endpoint.network, endpoint.id).is_some();
        let held = match is_in_use {
            // The plugin would take its link out of the sandbox.
            true => Held::Stays,
            false => Held::Anew,
        };
        let reply: JoinReply = self.make(("Join", &request), undo, held).await?;
        let joined = match self.read(&reply) {
            Ok(joined) => joined,
            Err(wrong) => {
                self.link.undo(undo.0, undo.1).await;
                return Err(self.link.broke("Join", &wrong));
            }
        };
        self.done().joined.insert(endpoint.id, joined.clone());
        Ok(joined)
    }

    fn read(&self, reply: &JoinReply) -> Result<Joined, String> {
        let mut gateways = Vec::new();
        for text in [&reply.gateway, &reply.gateway_ipv6] {
            if !text.is_empty() {
                gateways.push(address(text)?);
            }
        }
        let mut routes = Vec::new();
        for route in &reply.static_routes {
            let destination = route.destination.parse();
            let destination = destination
                .map_err(|error| format!("route to {:?}: {error}", route.destination))?;
            routes.push(Route {
                destination: Prefix(destination),
                // 0 goes through a next hop, 1 is on the link.
                via: match route.route_type {
                    0 => Some(address(&route.next_hop)?),
                    1 => None,
                    other => return Err(format!("{other} is no type of route")),
                },
            });
        }
        let interface = reply.interface_name.as_ref().map(|name| InterfaceName {
            source: name.src_name.clone(),
            prefix: name.dst_prefix.clone(),
        });
        let entries = if self.has_tables {
            tables::read_entries(&reply.table_entries)?
        } else {
            Vec::new()
        };
        Ok(Joined {
            interface,
            gateways,
            routes,
            entries,
        })
    }

    pub(super) async fn leave_now(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), DriverError> {
        let request = EndpointCall::of(network, endpoint);
        self.link.settle("Leave", &request).await?;
        if self.done().joined.contains_key(&endpoint) {
            self.disconnect_outside(&request, endpoint).await;
            self.withdraw(network, endpoint).await;
            let _: Nothing = self.link.call("Leave", &request).await?;
            self.done().joined.remove(&endpoint);
        }
        self.links.forget(network, endpoint);
        Ok(())
    }

    pub(super) async fn connect_outside_now(
        &self,
        endpoint: &EndpointRecord,
    ) -> Result<(), DriverError> {
        if self.done().outside.contains(&endpoint.id) {
            return Ok(());
        }
        let request = Outside::of(endpoint);
        let answer = self
            .link
            .ask::<Nothing>("ProgramExternalConnectivity", &request);
        match answer.await? {
            Ok(Nothing {}) => {
                self.done().outside.insert(endpoint.id);
                Ok(())
            }
            // M5: a plugin need not know of it.
            Err(CallError::NotImplemented { .. }) => Ok(()),
            Err(error) => {
                if error.is_doubtful() {
                    let what = EndpointCall::of(endpoint.network, endpoint.id);
                    self.link.undo("RevokeExternalConnectivity", &what).await;
                }
                Err(self.link.failure(&error))
            }
        }
    }

    /// Leaving takes all with it, so what a plugin says to this keeps nobody from leaving.
    async fn disconnect_outside(&self, request: &EndpointCall, endpoint: EndpointId) {
        if self.done().outside.remove(&endpoint) {
            self.link.undo("RevokeExternalConnectivity", request).await;
        }
    }

    pub(super) async fn delete_endpoint_now(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(), DriverError> {
        self.leave_now(network, endpoint).await?;
        let request = EndpointCall::of(network, endpoint);
        self.link.settle("DeleteEndpoint", &request).await?;
        if !self.done().endpoints.contains_key(&endpoint) {
            return Ok(());
        }
        let _: Nothing = self.link.call("DeleteEndpoint", &request).await?;
        self.done().endpoints.remove(&endpoint);
        Ok(())
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse();
    address.map_err(|error| format!("address {text:?}: {error}"))
}
