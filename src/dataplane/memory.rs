//! A data plane in memory that keeps the kernel's rules and carries no packet: for tests, and for nodes that run without one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{self, BoxFuture};

use super::{Dataplane, DataplaneError, Step};
use crate::core::{
    model::{NetworkId, Vni},
    overlay::{Link, LinkId, Plane},
};

/// Holds planes in memory. A network without links takes no room.
#[derive(Debug, Default)]
pub struct Memory {
    planes: Mutex<BTreeMap<NetworkId, Plane>>,
}

impl Memory {
    /// Returns what it holds for a network.
    pub fn plane(&self, network: NetworkId) -> Plane {
        self.planes().get(&network).cloned().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn put(&self, network: NetworkId, plane: Plane) {
        self.planes().insert(network, plane);
    }

    fn planes(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Plane>> {
        // A step is one insert or remove: nobody who panicked left it half done.
        self.planes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_now(
        &self,
        network: NetworkId,
        steps: Vec<Step>,
    ) -> Result<(), DataplaneError> {
        let mut planes = self.planes();
        let plane = planes.entry(network).or_default();
        let mut steps = steps.into_iter();
        let outcome = steps.try_for_each(|step| take(plane, step));
        if *plane == Plane::default() {
            planes.remove(&network);
        }
        outcome.ok_or(DataplaneError::LinkGone(network))
    }
}

impl Dataplane for Memory {
    fn list(&self, network: NetworkId) -> BoxFuture<'_, Result<Plane, DataplaneError>> {
        Box::pin(future::ready(Ok(self.plane(network))))
    }

    fn apply(
        &self,
        network: NetworkId,
        steps: Vec<Step>,
    ) -> BoxFuture<'_, Result<(), DataplaneError>> {
        Box::pin(future::ready(self.take_now(network, steps)))
    }
}

/// Takes a step, or nothing if the link it needs is not there.
fn take(plane: &mut Plane, step: Step) -> Option<()> {
    match step {
        Step::SetGuard { vni, guard } => {
            plane.guards.insert(vni, guard);
        }
        Step::RemoveGuard(vni) => {
            plane.guards.remove(&vni);
        }
        Step::AddLink(id, link) => add_link(plane, id, link)?,
        Step::MendLink(id, link) => {
            plane.links.get(&id)?;
            add_link(plane, id, link)?;
        }
        Step::RemoveLink(id) => remove_link(plane, id),
        Step::SetFdb { vni, mac, vtep } => {
            tunnel(plane, vni)?;
            plane.fdb.insert((vni, mac), vtep);
        }
        Step::RemoveFdb { vni, mac } => {
            plane.fdb.remove(&(vni, mac));
        }
        Step::SetNeighbour { vni, address, mac } => {
            tunnel(plane, vni)?;
            plane.neighbours.insert((vni, address), mac);
        }
        Step::RemoveNeighbour { vni, address } => {
            plane.neighbours.remove(&(vni, address));
        }
    }
    Some(())
}

fn tunnel(plane: &Plane, vni: Vni) -> Option<&Link> {
    plane.links.get(&LinkId::Vxlan(vni))
}

fn add_link(plane: &mut Plane, id: LinkId, link: Link) -> Option<()> {
    // A port needs its bridge.
    if let Some(vni) = link.port_of() {
        plane.links.get(&LinkId::Bridge(vni))?;
    }
    plane.links.insert(id, link);
    plane.amiss.remove(&id);
    Some(())
}

fn remove_link(plane: &mut Plane, id: LinkId) {
    plane.links.remove(&id);
    plane.amiss.remove(&id);
    match id {
        LinkId::Vxlan(vni) => {
            plane.fdb.retain(|(of, _), _| *of != vni);
            plane.neighbours.retain(|(of, _), _| *of != vni);
        }
        LinkId::Bridge(vni) => {
            let ports = plane.links.iter();
            let ports = ports.filter(|(_, link)| link.port_of() == Some(vni));
            plane.amiss.extend(ports.map(|(id, _)| *id));
        }
        LinkId::Endpoint(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        core::model::{Mac, Vtep},
        dataplane::reconcile,
    };

    #[tokio::test]
    async fn reconciling_reaches_any_plane_from_any_other() {
        let memory = Memory::default();
        let planes = [desired(1), Plane::default(), desired(3), desired(2)];

        for plane in planes {
            reconcile(&memory, NetworkId(1), &plane).await.unwrap();

            assert_eq!(memory.plane(NetworkId(1)), plane);
        }
    }

    #[tokio::test]
    async fn what_was_changed_from_outside_is_put_right() {
        let memory = Memory::default();
        reconcile(&memory, NetworkId(1), &desired(3)).await.unwrap();
        memory
            .take_now(NetworkId(1), vec![Step::RemoveLink(LinkId::Vxlan(vni()))])
            .unwrap();

        reconcile(&memory, NetworkId(1), &desired(3)).await.unwrap();

        assert_eq!(memory.plane(NetworkId(1)), desired(3));
    }

    #[test]
    fn an_entry_without_its_tunnel_is_refused_as_the_kernel_does() {
        let memory = Memory::default();
        let step = Step::RemoveLink(LinkId::Bridge(vni()));
        let orphan = Step::SetFdb {
            vni: vni(),
            mac: Mac([2; 6]),
            vtep: Vtep(IpAddr::from([192, 0, 2, 1])),
        };

        assert_eq!(memory.take_now(NetworkId(1), vec![step]), Ok(()));
        assert_eq!(
            memory.take_now(NetworkId(1), vec![orphan]),
            Err(DataplaneError::LinkGone(NetworkId(1)))
        );
    }

    fn vni() -> Vni {
        Vni::new(4096).unwrap()
    }

    fn desired(peers: u8) -> Plane {
        let mut plane = Plane::default();
        let mtu = 1450;
        let gateways = [crate::core::model::Prefix("10.0.0.254/24".parse().unwrap())].into();
        plane
            .links
            .insert(LinkId::Bridge(vni()), Link::Bridge { gateways, mtu });
        let tunnel = Link::Vxlan {
            bridge: vni(),
            port: 4789,
            source: IpAddr::from([0, 0, 0, 0]),
            mtu,
        };
        plane.links.insert(LinkId::Vxlan(vni()), tunnel);
        for n in 1..=peers {
            let mac = Mac([2, 0, 0, 0, 0, n]);
            let vtep = Vtep(IpAddr::from([192, 0, 2, n + peers]));
            plane.fdb.insert((vni(), mac), vtep);
            plane
                .neighbours
                .insert((vni(), IpAddr::from([10, 0, 0, n])), mac);
        }
        plane
    }
}
