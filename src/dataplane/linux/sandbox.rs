//! A sandbox that a user names: an endpoint's link is moved in and set up there.

use std::{fs::File, net::IpAddr, os::fd::AsRawFd, path::Path};

use rtnetlink::{
    LinkUnspec, RouteMessageBuilder,
    packet_route::route::{RouteMessage, RouteScope},
};

use super::{
    address, link, namespace,
    netlink::{Netlink, libc_errno::EEXIST, refused, unless},
};
use crate::{
    core::model::{Mac, Prefix},
    dataplane::{DataplaneError, Placed, Placement, SandboxId},
};

/// How many interfaces of one kind a sandbox may have.
const INTERFACES_MAX: u32 = 4096;

/// The host's namespace: the daemon's own.
const HOST: &str = "/proc/self/ns/net";

/// Moves the endpoint's link, `outer` in the host's namespace, into the sandbox, unless it is there, and gives it addresses and
/// routes.
pub(super) async fn place(
    (host, outer): (&Netlink, &str),
    sandbox: &Path,
    placement: &Placement,
) -> Result<String, DataplaneError> {
    let (file, inside) = enter(sandbox).await?;
    let there = link::list(&inside).await?;
    let found = there.iter().find(|link| link.mac == Some(placement.mac));
    let name = match found {
        Some(link) => link.name.clone(),
        None => {
            let name = match &placement.name {
                Some(name) => name.clone(),
                None => free_name(&there, &placement.prefix),
            };
            move_in((host, outer), &file, (&name, placement.mac)).await?;
            name
        }
    };
    set_up(&inside, &name, placement).await?;
    Ok(name)
}

async fn enter(sandbox: &Path) -> Result<(File, Netlink), DataplaneError> {
    let none = |reason: String| DataplaneError::Sandbox {
        path: sandbox.to_owned(),
        reason,
    };
    let opened = namespace::open(sandbox).map_err(|error| none(error.to_string()))?;
    let file = opened.ok_or_else(|| none("nothing of that kind is there".to_owned()))?;
    let again = file.try_clone().map_err(|error| none(error.to_string()))?;
    let inside = namespace::inside(again, Netlink::open).await;
    Ok((file, inside.map_err(|error| none(error.to_string()))?))
}

/// Moves an endpoint's link back into the host's namespace. Where its sandbox is gone, it is gone too.
pub(super) async fn withdraw(placed: &Placed) -> Result<(), DataplaneError> {
    let what = format!("move link {} back out of its sandbox", placed.link);
    let opened = namespace::open(&placed.path).map_err(unreadable(&what))?;
    let Some(file) = opened else { return Ok(()) };
    let number = namespace::number(&file).map_err(unreadable(&what))?;
    if SandboxId(number) != placed.sandbox {
        return Ok(());
    }
    let inside = namespace::inside(file, Netlink::open).await;
    let inside = inside.map_err(unreadable(&what))?;
    let there = link::list(&inside).await?;
    let Some(found) = there.iter().find(|of| of.mac == Some(placed.placement.mac)) else {
        return Ok(());
    };
    let host = File::open(HOST).map_err(unreadable(&what))?;
    let message = LinkUnspec::new_with_index(found.index)
        .setns_by_fd(host.as_raw_fd())
        .name(&placed.link)
        .build();
    let moved = inside.handle.link().set(message).execute().await;
    moved.map_err(refused(what))
}

fn unreadable(what: &str) -> impl FnOnce(std::io::Error) -> DataplaneError {
    move |error| DataplaneError::Refused {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}

fn free_name(there: &[link::Found], prefix: &str) -> String {
    let mut names = (0..INTERFACES_MAX).map(|n| format!("{prefix}{n}"));
    let is_free = |name: &String| !there.iter().any(|link| link.name == *name);
    names.find(is_free).unwrap_or_else(|| "weft0".to_owned())
}

async fn move_in(
    (host, outer): (&Netlink, &str),
    sandbox: &File,
    (name, mac): (&str, Mac),
) -> Result<(), DataplaneError> {
    let what = format!("move link {outer} into the sandbox as {name}");
    let Some(found) = link::find(host, outer).await? else {
        let reason = "it is not in the host's namespace: another sandbox has it".to_owned();
        return Err(DataplaneError::Refused { what, reason });
    };
    if found.mac != Some(mac) {
        // A driver in another process need not have given it: the protocol says what the address is, not who sets it.
        let message = LinkUnspec::new_with_index(found.index)
            .address(mac.0.to_vec())
            .build();
        let given = host.handle.link().set(message).execute().await;
        given.map_err(refused(format!("give link {outer} the address {mac}")))?;
    }
    let message = LinkUnspec::new_with_index(found.index)
        .setns_by_fd(sandbox.as_raw_fd())
        .name(name)
        .build();
    let moved = host.handle.link().set(message).execute().await;
    moved.map_err(refused(what))
}

async fn set_up(inside: &Netlink, name: &str, placement: &Placement) -> Result<(), DataplaneError> {
    let what = format!("set up link {name} in the sandbox");
    let Some(found) = link::find(inside, name).await? else {
        let reason = "it is gone".to_owned();
        return Err(DataplaneError::Refused { what, reason });
    };
    let message = LinkUnspec::new_with_index(found.index).up().build();
    let up = inside.handle.link().set(message).execute().await;
    up.map_err(refused(what))?;
    for prefix in &placement.addresses {
        let given = address::add(inside, found.index, *prefix).await;
        given.map_err(refused(format!("give link {name} the address {prefix}")))?;
    }
    for (destination, via) in &placement.routes {
        let added = add_route(inside, found.index, (*destination, *via)).await;
        added.map_err(refused(format!("route {destination} over link {name}")))?;
    }
    Ok(())
}

/// Adds a route. One that the sandbox has already is its own, and stays.
async fn add_route(
    inside: &Netlink,
    link: u32,
    (destination, via): (Prefix, Option<IpAddr>),
) -> Result<(), rtnetlink::Error> {
    let Some(message) = route(link, destination, via) else {
        return Ok(());
    };
    let added = inside.handle.route().add(message).execute().await;
    unless(added, &[EEXIST])
}

fn route(link: u32, destination: Prefix, via: Option<IpAddr>) -> Option<RouteMessage> {
    let (ip, length) = (destination.0.network(), destination.0.prefix_len());
    let built = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(link)
        .destination_prefix(ip, length)
        .and_then(|built| match via {
            Some(via) => built.gateway(via),
            None => Ok(built.scope(RouteScope::Link)),
        });
    // The driver gives no gateway of another family than the destination's.
    built.ok().map(RouteMessageBuilder::build)
}
