//! The names of all endpoints, kept up to date from their records.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Names;
use crate::core::model::{EndpointId, EndpointRecord, NetworkId, NetworkRecord};

/// Networks and endpoints by name and by address. Its size is that of the network DB's endpoints.
#[derive(Clone, Default, Debug)]
pub struct NameTable {
    networks: BTreeMap<NetworkId, NetworkRecord>,
    by_network_name: BTreeMap<String, NetworkId>,
    endpoints: BTreeMap<EndpointId, EndpointRecord>,
    by_name: BTreeMap<(NetworkId, String), BTreeSet<EndpointId>>,
    by_address: BTreeMap<IpAddr, BTreeSet<EndpointId>>,
}

impl NameTable {
    /// Adds a network, or takes over what has changed of it.
    pub fn put_network(&mut self, record: NetworkRecord) {
        self.remove_network(record.id);
        self.by_network_name
            .insert(record.name.as_str().to_ascii_lowercase(), record.id);
        self.networks.insert(record.id, record);
    }

    /// Removes a network. Its endpoints stay until each is removed, but are not found.
    pub fn remove_network(&mut self, id: NetworkId) {
        if let Some(record) = self.networks.remove(&id) {
            let name = record.name.as_str().to_ascii_lowercase();
            if self.by_network_name.get(&name) == Some(&id) {
                self.by_network_name.remove(&name);
            }
        }
    }

    /// Adds an endpoint, or takes over what has changed of it.
    pub fn put_endpoint(&mut self, record: EndpointRecord) {
        self.remove_endpoint(record.id);
        self.by_name
            .entry(name_key(&record))
            .or_default()
            .insert(record.id);
        if let Some(address) = address(&record) {
            self.by_address
                .entry(address)
                .or_default()
                .insert(record.id);
        }
        self.endpoints.insert(record.id, record);
    }

    /// Removes an endpoint.
    pub fn remove_endpoint(&mut self, id: EndpointId) {
        let Some(record) = self.endpoints.remove(&id) else {
            return;
        };
        forget(&mut self.by_name, &name_key(&record), id);
        if let Some(address) = address(&record) {
            forget(&mut self.by_address, &address, id);
        }
    }

    /// Replaces all networks by these.
    pub fn set_networks(&mut self, records: Vec<NetworkRecord>) {
        self.networks.clear();
        self.by_network_name.clear();
        for record in records {
            self.put_network(record);
        }
    }

    /// Replaces all endpoints by these.
    pub fn set_endpoints(&mut self, records: Vec<EndpointRecord>) {
        self.endpoints.clear();
        self.by_name.clear();
        self.by_address.clear();
        for record in records {
            self.put_endpoint(record);
        }
    }

    fn network(&self, name: &str) -> Option<NetworkId> {
        self.by_network_name
            .get(&name.to_ascii_lowercase())
            .copied()
    }
}

impl Names for NameTable {
    fn has_network(&self, network: &str) -> bool {
        self.network(network).is_some()
    }

    fn addresses(&self, endpoint: &str, network: &str) -> Option<Vec<IpAddr>> {
        let key = (self.network(network)?, endpoint.to_ascii_lowercase());
        let records = self
            .by_name
            .get(&key)?
            .iter()
            .filter_map(|id| self.endpoints.get(id));
        Some(records.filter_map(address).collect())
    }

    fn names(&self, address: IpAddr) -> Option<Vec<String>> {
        let of_endpoints = self
            .by_address
            .get(&address)
            .into_iter()
            .flatten()
            .filter_map(|id| {
                let record = self.endpoints.get(id)?;
                Some(format!(
                    "{}.{}",
                    record.name,
                    self.networks.get(&record.network)?.name
                ))
            });
        let found: Vec<String> = of_endpoints.collect();
        let mut subnets = self.networks.values().flat_map(|network| &network.subnets);
        let is_ours = !found.is_empty() || subnets.any(|subnet| subnet.prefix.0.contains(&address));
        is_ours.then_some(found)
    }
}

fn name_key(record: &EndpointRecord) -> (NetworkId, String) {
    (record.network, record.name.as_str().to_ascii_lowercase())
}

fn address(record: &EndpointRecord) -> Option<IpAddr> {
    record.address.map(|prefix| prefix.0.addr())
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<EndpointId>>, key: &K, id: EndpointId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{Mac, Name, Prefix, Subnet};

    fn network(id: u32, name: &str) -> NetworkRecord {
        NetworkRecord {
            id: NetworkId(id),
            name: Name::new(name).unwrap(),
            driver: Name::new("overlay").unwrap(),
            options: BTreeMap::new(),
            subnets: vec![Subnet {
                prefix: Prefix(format!("10.0.{id}.0/24").parse().unwrap()),
                gateway: format!("10.0.{id}.1").parse().unwrap(),
                vni: None,
            }],
        }
    }

    fn endpoint(id: u128, network: u32, name: &str, address: &str) -> EndpointRecord {
        EndpointRecord {
            id: EndpointId(id),
            network: NetworkId(network),
            name: Name::new(name).unwrap(),
            address: Some(Prefix(address.parse().unwrap())),
            mac: "02:00:00:00:00:01".parse::<Mac>().unwrap(),
        }
    }

    #[test]
    fn endpoints_of_one_name_are_found_together_and_go_one_by_one() {
        let mut table = NameTable::default();
        table.put_network(network(1, "app"));
        table.put_endpoint(endpoint(1, 1, "Web", "10.0.1.2/24"));
        table.put_endpoint(endpoint(2, 1, "web", "10.0.1.3/24"));

        assert_eq!(
            table.addresses("WEB", "APP").map(|found| found.len()),
            Some(2)
        );
        table.remove_endpoint(EndpointId(1));
        assert_eq!(
            table.addresses("web", "app"),
            Some(vec!["10.0.1.3".parse().unwrap()])
        );
        table.remove_endpoint(EndpointId(2));
        assert_eq!(table.addresses("web", "app"), None);
    }

    #[test]
    fn an_endpoint_that_moves_leaves_its_old_address() {
        let mut table = NameTable::default();
        table.put_network(network(1, "app"));
        table.put_endpoint(endpoint(1, 1, "web", "10.0.1.2/24"));

        table.put_endpoint(endpoint(1, 1, "web", "10.0.1.9/24"));

        assert_eq!(
            table.names("10.0.1.9".parse().unwrap()),
            Some(vec!["web.app".into()])
        );
        assert_eq!(table.names("10.0.1.2".parse().unwrap()), Some(vec![]));
        assert_eq!(table.names("192.0.2.1".parse().unwrap()), None);
    }

    #[test]
    fn a_name_in_another_network_is_another_name_and_goes_with_its_network() {
        let mut table = NameTable::default();
        table.put_network(network(1, "app"));
        table.put_network(network(2, "db"));
        table.put_endpoint(endpoint(1, 1, "web", "10.0.1.2/24"));

        assert_eq!(table.addresses("web", "db"), None);
        table.remove_network(NetworkId(1));
        assert!(!table.has_network("app"));
        assert_eq!(table.addresses("web", "app"), None);
    }
}
