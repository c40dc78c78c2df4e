//! The sandboxes that endpoints were moved into by us: when one is gone, its endpoint leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    core::{
        model::EndpointId,
        overlay::{LinkId, Plane},
    },
    dataplane::Placement,
};

/// An endpoint in a sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    pub(super) path: PathBuf,
    pub(super) placement: Placement,
}

/// Which endpoint is where. An engine looks after the sandboxes that it makes itself, and says when an endpoint leaves.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    placed: BTreeMap<EndpointId, Placed>,
    /// Endpoints that are gone with their sandbox, and that nobody was told of yet.
    vanished: BTreeSet<EndpointId>,
}

impl Sandboxes {
    pub(super) fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }

    pub(super) fn has_vanished(&self) -> bool {
        !self.vanished.is_empty()
    }

    pub(super) fn remember(&mut self, path: PathBuf, placement: Placement) {
        self.vanished.remove(&placement.endpoint);
        let endpoint = placement.endpoint;
        self.placed.insert(endpoint, Placed { path, placement });
    }

    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        self.placed.remove(&endpoint);
        self.vanished.remove(&endpoint);
    }

    pub(super) fn next_vanished(&mut self) -> Option<EndpointId> {
        self.vanished.pop_first()
    }

    /// Returns which endpoints are gone with their sandbox, and which have lost their link only.
    pub(super) fn look(
        &mut self,
        actual: &Plane,
        is_there: impl Fn(&Path) -> bool,
    ) -> (Vec<EndpointId>, Vec<Placed>) {
        let has_link = |endpoint: &EndpointId| {
            let id = LinkId::Endpoint(*endpoint);
            actual.links.contains_key(&id)
        };
        let linkless = self
            .placed
            .iter()
            .filter(|(endpoint, _)| !has_link(endpoint));
        let (lost, gone): (Vec<_>, Vec<_>) =
            linkless.partition(|(_, placed)| is_there(&placed.path));
        let lost = lost.into_iter().map(|(_, placed)| placed.clone()).collect();
        let gone: Vec<EndpointId> = gone.into_iter().map(|(endpoint, _)| *endpoint).collect();
        for endpoint in &gone {
            self.placed.remove(endpoint);
        }
        self.vanished.extend(&gone);
        (gone, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Mac;

    #[test]
    fn an_endpoint_without_a_link_is_gone_with_its_sandbox_or_has_lost_it() {
        let mut sandboxes = Sandboxes::default();
        for n in 1..=2 {
            sandboxes.remember(PathBuf::from(format!("/{n}")), placement(n));
        }

        let (gone, lost) = sandboxes.look(&Plane::default(), |path| path == Path::new("/1"));

        assert_eq!(gone, [EndpointId(2)]);
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].placement.endpoint, EndpointId(1));
        assert_eq!(sandboxes.next_vanished(), Some(EndpointId(2)));
        assert!(!sandboxes.has_vanished());
    }

    #[test]
    fn one_that_has_left_is_not_looked_for() {
        let mut sandboxes = Sandboxes::default();
        sandboxes.remember("/1".into(), placement(1));

        sandboxes.forget(EndpointId(1));

        let (gone, lost) = sandboxes.look(&Plane::default(), |_| false);
        assert_eq!((gone.len(), lost.len()), (0, 0));
        assert!(sandboxes.is_empty());
    }

    fn placement(n: u8) -> Placement {
        Placement {
            endpoint: EndpointId(u128::from(n)),
            mac: Mac([2, 0, 0, 0, 0, n]),
            addresses: Vec::new(),
            name: None,
            routes: Vec::new(),
        }
    }
}
