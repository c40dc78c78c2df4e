//! The names of all endpoints, kept up to date from their records.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Names;
use crate::core::model::{EndpointId, EndpointRecord, Name, NetworkId, NetworkRecord};

/// Networks and endpoints by name and by address. Its size is that of the network DB's endpoints.
#[derive(Clone, Default, Debug)]
pub struct NameTable {
    networks: BTreeMap<NetworkId, NetworkRecord>,
    by_network_name: BTreeMap<String, NetworkId>,
    endpoints: BTreeMap<EndpointId, EndpointRecord>,
    /// More names of endpoints, which may come before or after them.
    aliases: BTreeMap<EndpointId, (NetworkId, Vec<Name>)>,
    /// Names in lower case, then networks: a name alone is found too.
    by_name: BTreeMap<(String, NetworkId), BTreeSet<EndpointId>>,
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
        for address in addresses(&record) {
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
        let key = name_key(&record);
        let mut aliases = self
            .aliases
            .get(&id)
            .into_iter()
            .flat_map(|(_, names)| names);
        if aliases.all(|alias| key_of(record.network, alias) != key) {
            forget(&mut self.by_name, &key, id);
        }
        for address in addresses(&record) {
            forget(&mut self.by_address, &address, id);
        }
    }

    /// Gives an endpoint these names beside its own, in place of those it had.
    pub fn put_aliases(&mut self, network: NetworkId, id: EndpointId, names: Vec<Name>) {
        self.remove_aliases(id);
        for name in &names {
            let known = self.by_name.entry(key_of(network, name));
            known.or_default().insert(id);
        }
        self.aliases.insert(id, (network, names));
    }

    /// Removes an endpoint's names but its own.
    pub fn remove_aliases(&mut self, id: EndpointId) {
        let Some((network, names)) = self.aliases.remove(&id) else {
            return;
        };
        let own = self.endpoints.get(&id).map(name_key);
        for key in names.iter().map(|name| key_of(network, name)) {
            if own.as_ref() != Some(&key) {
                forget(&mut self.by_name, &key, id);
            }
        }
    }

    /// Replaces all such names by these.
    pub fn set_aliases(&mut self, all: Vec<(NetworkId, EndpointId, Vec<Name>)>) {
        let before: Vec<EndpointId> = self.aliases.keys().copied().collect();
        for id in before {
            self.remove_aliases(id);
        }
        for (network, id, names) in all {
            self.put_aliases(network, id, names);
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
        let before: Vec<EndpointId> = self.endpoints.keys().copied().collect();
        for id in before {
            self.remove_endpoint(id);
        }
        for record in records {
            self.put_endpoint(record);
        }
    }

    /// Returns the addresses of those endpoints that are there; nothing if none is.
    fn found<'a>(&self, ids: impl IntoIterator<Item = &'a EndpointId>) -> Option<Vec<IpAddr>> {
        let records = ids.into_iter().filter_map(|id| self.endpoints.get(id));
        let mut records = records.peekable();
        records.peek()?;
        Some(records.flat_map(addresses).collect())
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
        let key = (endpoint.to_ascii_lowercase(), self.network(network)?);
        self.found(self.by_name.get(&key)?)
    }

    fn anywhere(
        &self,
        endpoint: &str,
        networks: Option<&BTreeSet<NetworkId>>,
    ) -> Option<Vec<IpAddr>> {
        let name = endpoint.to_ascii_lowercase();
        let all = (name.clone(), NetworkId(0))..=(name, NetworkId(u32::MAX));
        let wanted = |network: &NetworkId| {
            let is_here = self.networks.contains_key(network);
            is_here && networks.is_none_or(|networks| networks.contains(network))
        };
        let ids = self.by_name.range(all);
        let ids = ids.filter(|((_, network), _)| wanted(network));
        self.found(ids.flat_map(|(_, ids)| ids))
    }

    fn network_of(&self, address: IpAddr) -> Option<NetworkId> {
        let has = |network: &&NetworkRecord| {
            let mut subnets = network.subnets.iter();
            subnets.any(|subnet| subnet.prefix.0.contains(&address))
        };
        self.networks.values().find(has).map(|network| network.id)
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

fn name_key(record: &EndpointRecord) -> (String, NetworkId) {
    key_of(record.network, &record.name)
}

fn key_of(network: NetworkId, name: &Name) -> (String, NetworkId) {
    (name.as_str().to_ascii_lowercase(), network)
}

fn addresses(record: &EndpointRecord) -> impl Iterator<Item = IpAddr> + use<> {
    record.addresses().map(|prefix| prefix.0.addr())
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
    use crate::core::model::{Mac, Prefix, Subnet};

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
            second: None,
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
    fn an_endpoint_of_both_families_is_found_by_either_address_and_goes_with_both() {
        let mut table = NameTable::default();
        table.put_network(network(1, "app"));
        let second = Prefix("fd00::2/64".parse().unwrap());
        table.put_endpoint(EndpointRecord {
            second: Some(second),
            ..endpoint(1, 1, "web", "10.0.1.2/24")
        });
        let both: [IpAddr; 2] = ["10.0.1.2".parse().unwrap(), second.0.addr()];

        assert_eq!(table.addresses("web", "app"), Some(both.to_vec()));
        for address in both {
            assert_eq!(table.names(address), Some(vec!["web.app".into()]));
        }
        table.remove_endpoint(EndpointId(1));
        assert_eq!(table.names(both[0]), Some(vec![]));
        assert_eq!(table.names(both[1]), None);
    }

    #[test]
    fn an_alias_is_found_while_its_endpoint_is_there_whichever_comes_first() {
        let mut table = NameTable::default();
        table.put_network(network(1, "app"));
        table.put_aliases(NetworkId(1), EndpointId(1), vec![Name::new("Db").unwrap()]);

        assert_eq!(table.addresses("db", "app"), None);
        table.put_endpoint(endpoint(1, 1, "pg-1", "10.0.1.2/24"));
        table.put_endpoint(endpoint(2, 1, "pg-2", "10.0.1.3/24"));
        table.put_aliases(NetworkId(1), EndpointId(2), vec![Name::new("db").unwrap()]);
        let both = table.addresses("db", "app").unwrap();
        table.remove_aliases(EndpointId(1));
        let one = table.addresses("db", "app").unwrap();
        table.remove_endpoint(EndpointId(2));

        assert_eq!((both.len(), one.len()), (2, 1));
        assert_eq!(table.addresses("db", "app"), None);
        assert!(table.addresses("pg-1", "app").is_some());
    }

    #[test]
    fn a_name_alone_is_looked_for_in_the_askers_networks_or_in_all() {
        let mut table = NameTable::default();
        table.put_network(network(1, "app"));
        table.put_network(network(2, "db"));
        table.put_endpoint(endpoint(1, 1, "web", "10.0.1.2/24"));
        table.put_endpoint(endpoint(2, 2, "web", "10.0.2.2/24"));
        table.put_endpoint(endpoint(3, 3, "web", "10.0.3.2/24"));

        let of_db = table.anywhere("WEB", Some(&[NetworkId(2)].into()));

        assert_eq!(of_db, Some(vec!["10.0.2.2".parse().unwrap()]));
        assert_eq!(table.anywhere("web", None).map(|all| all.len()), Some(2));
        assert_eq!(table.anywhere("we", None), None);
        assert_eq!(
            table.network_of("10.0.2.9".parse().unwrap()),
            Some(NetworkId(2))
        );
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
