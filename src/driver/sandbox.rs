//! Moves an endpoint's link into a sandbox that a user has named: alike for every driver that makes one.

use std::net::IpAddr;

use super::{DriverError, Joined, SandboxPlace};
use crate::{
    core::model::{EndpointRecord, Prefix},
    dataplane::{Dataplane, DataplaneError, Placed, Placement},
};

/// Moves `link` in; returns its name there and what is to be remembered of it.
pub(super) async fn enter(
    dataplane: &dyn Dataplane,
    (endpoint, joined): (&EndpointRecord, &Joined),
    (link, sandbox): (&str, &SandboxPlace),
) -> Result<(String, Option<Placed>), DriverError> {
    let mut placement = placement(endpoint, joined, sandbox);
    let placed = dataplane.place(link, &sandbox.path, &placement).await;
    let name = placed.map_err(|error| match error {
        DataplaneError::Sandbox { .. } | DataplaneError::NoLinks => DriverError::Sandbox(error),
        DataplaneError::LinkGone(_)
        | DataplaneError::Refused { .. }
        | DataplaneError::Taken { .. } => error.into(),
    })?;
    placement.name = Some(name.clone());
    // One that has gone in this moment is missed by whoever asked for it.
    let found = dataplane.sandbox(&sandbox.path).ok().flatten();
    let placed = found.map(|found| Placed {
        path: sandbox.path.clone(),
        sandbox: found,
        link: link.to_owned(),
        placement,
    });
    Ok((name, placed))
}

fn placement(endpoint: &EndpointRecord, joined: &Joined, sandbox: &SandboxPlace) -> Placement {
    let routes = joined.routes.iter();
    let mut routes: Vec<_> = routes.map(|route| (route.destination, route.via)).collect();
    // What is on the link first: a hop may be there.
    routes.sort_by_key(|(_, via)| via.is_some());
    let gateways = joined.gateways.iter();
    routes.extend(gateways.map(|gateway| (everything(*gateway), Some(*gateway))));
    let prefix = joined.interface.as_ref().map(|name| name.prefix.clone());
    Placement {
        endpoint: endpoint.id,
        mac: endpoint.mac,
        addresses: endpoint.addresses().collect(),
        name: sandbox.name.clone(),
        prefix: prefix.unwrap_or_default(),
        routes,
    }
}

/// All addresses of an address' family.
fn everything(of: IpAddr) -> Prefix {
    Prefix(match of {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    })
}
