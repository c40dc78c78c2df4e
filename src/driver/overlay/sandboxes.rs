//! The sandboxes that endpoints were moved into by us: when one is gone, its endpoint leaves.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    core::{
        model::EndpointId,
        overlay::{LinkId, Plane},
    },
    dataplane::Placed,
};

/// Which endpoint is where. An engine looks after the sandboxes that it makes itself, and says when an endpoint leaves.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    placed: BTreeMap<EndpointId, Placed>,
    /// Endpoints that are gone with their sandbox, and that nobody was told of yet.
    vanished: BTreeSet<EndpointId>,
    /// Endpoints that have lost their link only, and are to be placed again.
    lost: BTreeSet<EndpointId>,
}

impl Sandboxes {
    pub(super) fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }

    pub(super) fn has_vanished(&self) -> bool {
        !self.vanished.is_empty()
    }

    pub(super) fn remember(&mut self, placed: Placed) {
        let endpoint = placed.placement.endpoint;
        self.vanished.remove(&endpoint);
        self.lost.remove(&endpoint);
        self.placed.insert(endpoint, placed);
    }

    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        self.placed.remove(&endpoint);
        self.vanished.remove(&endpoint);
        self.lost.remove(&endpoint);
    }

    pub(super) fn next_vanished(&mut self) -> Option<EndpointId> {
        self.vanished.pop_first()
    }

    /// Returns an endpoint that is to be placed again once its link has been made.
    pub(super) fn next_lost(&mut self) -> Option<Placed> {
        let endpoint = self.lost.pop_first()?;
        self.placed.get(&endpoint).cloned()
    }

    /// Looks which endpoints have no link any more, and returns those that are gone with their sandbox.
    pub(super) fn look(
        &mut self,
        actual: &Plane,
        is_there: impl Fn(&Placed) -> bool,
    ) -> Vec<EndpointId> {
        let has_link = |endpoint: &EndpointId| {
            let id = LinkId::Endpoint(*endpoint);
            actual.links.contains_key(&id)
        };
        let linkless = self
            .placed
            .iter()
            .filter(|(endpoint, _)| !has_link(endpoint))
            .map(|(endpoint, placed)| (*endpoint, is_there(placed)));
        let (lost, gone): (Vec<_>, Vec<_>) = linkless.partition(|(_, is_there)| *is_there);
        let gone: Vec<EndpointId> = gone.into_iter().map(|(endpoint, _)| endpoint).collect();
        for endpoint in &gone {
            self.placed.remove(endpoint);
        }
        self.vanished.extend(&gone);
        self.lost
            .extend(lost.into_iter().map(|(endpoint, _)| endpoint));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::model::Mac,
        dataplane::{Placement, SandboxId},
    };

    #[test]
    fn an_endpoint_without_a_link_is_gone_with_its_sandbox_or_is_to_be_placed_again() {
        let mut sandboxes = Sandboxes::default();
        sandboxes.remember(placed(1));
        sandboxes.remember(placed(2));

        let gone = sandboxes.look(&Plane::default(), |placed| placed.sandbox == SandboxId(1));

        assert_eq!(gone, [EndpointId(2)]);
        let lost = sandboxes
            .next_lost()
            .map(|placed| placed.placement.endpoint);
        assert_eq!((lost, sandboxes.next_lost()), (Some(EndpointId(1)), None));
        assert_eq!(sandboxes.next_vanished(), Some(EndpointId(2)));
        assert!(!sandboxes.has_vanished());
    }

    #[test]
    fn one_that_has_left_is_not_looked_for() {
        let mut sandboxes = Sandboxes::default();
        sandboxes.remember(placed(1));

        sandboxes.forget(EndpointId(1));

        assert!(sandboxes.look(&Plane::default(), |_| false).is_empty());
        assert!(sandboxes.is_empty());
    }

    fn placed(n: u8) -> Placed {
        Placed {
            path: format!("/{n}").into(),
            sandbox: SandboxId(u64::from(n)),
            link: format!("weft{n}"),
            placement: Placement {
                endpoint: EndpointId(u128::from(n)),
                mac: Mac([2, 0, 0, 0, 0, n]),
                addresses: Vec::new(),
                name: None,
                prefix: "eth".to_owned(),
                routes: Vec::new(),
            },
        }
    }
}
