//! Networks: subnets, gateways and VNIs, all or nothing.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    AVOIDED_MAX, Allocator, AllocatorError, NetworkWish, Outcome, SubnetWish,
    block::Blocks,
    networks_table,
    overlay::{network_allocate, network_free},
    pools::site_of,
    vni::Vnis,
};
use crate::core::{
    ipam::{self, Pool, PoolError, PoolRefusal, Space, SpaceName, checked},
    model::{Hlc, Key, NetworkId, NetworkRecord, Prefix, Subnet, Value, Vni},
    wire::codec,
};

/// The most subnets of one network.
pub const SUBNETS_MAX: usize = 32;

impl Allocator {
    pub(super) fn allocate_network(
        &mut self,
        at: Hlc,
        wish: &NetworkWish,
        space: SpaceName,
    ) -> Result<Outcome, AllocatorError> {
        let name = wish.name.clone();
        if let Some(existing) = self.network_named(&name) {
            let id = existing.id;
            return Err(AllocatorError::NetworkExists { name, id });
        }
        let site = site_of(self.cluster().ok_or(AllocatorError::NotFounded)?);
        let pools = [false, true].map(|v6| self.pools.of(space, v6, site).0);
        let usual = pools[1].first().map_or(site.length, |pool| pool.length);
        let wishes = wish.all_subnets(usual);
        check_sizes(wish, &wishes)?;
        self.rest.wake(at.wall());
        let mut draft = Draft {
            space: &mut self.space,
            vnis: &mut self.vnis,
            pools,
            avoid: union(&wish.avoid),
            resting: self.rest.obstacles(),
            last_vni: 0,
            prefixes: Vec::new(),
            taken_vnis: Vec::new(),
        };
        draft.last_vni = draft.vnis.last;
        let mut record = NetworkRecord {
            id: NetworkId(self.last_network + 1),
            name,
            driver: wish.driver.clone(),
            options: wish.options.clone(),
            subnets: Vec::new(),
        };
        let drafted = draft.subnets(&wishes, wish).and_then(|subnets| {
            record.subnets = subnets;
            encode_record(&record)
        });
        let value = match drafted {
            Ok(value) => value,
            Err(refused) => {
                draft.undo();
                return Err(refused);
            }
        };
        self.last_network = record.id.0;
        self.names.insert(record.name.clone(), record.id);
        self.networks.insert(record.id, record.clone());
        self.blocks.insert(record.id, Blocks::default());
        self.log
            .put(at, networks_table(), network_key(record.id), value);
        self.set_aside(at, &record, &wishes);
        Ok(Outcome::Network(record))
    }

    /// Compares and sets: of two who have looked at the same options, one is first, and the other hears that it was not.
    pub(super) fn replace_options(
        &mut self,
        at: Hlc,
        id: NetworkId,
        (was, options): (&BTreeMap<String, String>, &BTreeMap<String, String>),
    ) -> Result<Outcome, AllocatorError> {
        let held = self.networks.get(&id);
        let held = held.ok_or(AllocatorError::NoSuchNetwork(id))?;
        if held.options != *was {
            return Err(AllocatorError::NetworkChanged(id));
        }
        let record = NetworkRecord {
            options: options.clone(),
            ..held.clone()
        };
        let value = encode_record(&record)?;
        self.networks.insert(id, record.clone());
        self.log.put(at, networks_table(), network_key(id), value);
        Ok(Outcome::Network(record))
    }

    pub(super) fn remove_network(
        &mut self,
        at: Hlc,
        id: NetworkId,
    ) -> Result<Outcome, AllocatorError> {
        let record = self
            .networks
            .remove(&id)
            .ok_or(AllocatorError::NoSuchNetwork(id))?;
        self.names.remove(&record.name);
        for subnet in &record.subnets {
            self.space.release(subnet.prefix);
            self.rest.add(at.wall(), subnet.prefix, false);
        }
        let vnis: Vec<Vni> = record
            .subnets
            .iter()
            .filter_map(|subnet| subnet.vni)
            .collect();
        network_free(&mut self.vnis, &vnis);
        self.drop_blocks_of_network(at, id);
        self.log.delete(at, networks_table(), network_key(id));
        Ok(Outcome::Done)
    }
}

fn check_sizes(wish: &NetworkWish, wishes: &[SubnetWish]) -> Result<(), AllocatorError> {
    if wishes.len() > SUBNETS_MAX {
        return Err(AllocatorError::TooManySubnets {
            asked: wishes.len() as u64,
            limit: SUBNETS_MAX as u64,
        });
    }
    if wish.avoid.len() > AVOIDED_MAX {
        return Err(AllocatorError::TooLarge {
            len: wish.avoid.len() as u64,
            limit: AVOIDED_MAX as u64,
        });
    }
    Ok(())
}

/// What a network takes, one after another, until it has all it needs.
struct Draft<'a> {
    space: &'a mut Space,
    vnis: &'a mut Vnis,
    /// The pools of IPv4, and those of IPv6.
    pools: [Vec<Pool>; 2],
    /// What nodes route.
    avoid: Space,
    /// What other networks had a moment ago.
    resting: Space,
    last_vni: u32,
    prefixes: Vec<Prefix>,
    taken_vnis: Vec<Vni>,
}

impl Draft<'_> {
    /// Gives everything back, so that a refused network leaves nothing allocated (case O2).
    fn undo(self) {
        for prefix in self.prefixes {
            self.space.release(prefix);
        }
        network_free(self.vnis, &self.taken_vnis);
        self.vnis.last = self.last_vni;
    }

    fn subnets(
        &mut self,
        wishes: &[SubnetWish],
        network: &NetworkWish,
    ) -> Result<Vec<Subnet>, AllocatorError> {
        // Prefixes that were named come first, or an unnamed one could take what a later one names.
        let mut prefixes = vec![None; wishes.len()];
        for named in [true, false] {
            for (wish, prefix) in wishes.iter().zip(&mut prefixes) {
                if wish.is_named() == named {
                    let taken = self.prefix(wish)?;
                    self.prefixes.push(taken);
                    *prefix = Some(taken);
                }
            }
        }
        if network.vxlan {
            self.taken_vnis = network_allocate(self.vnis, &network.options, wishes.len())?;
        }
        let mut subnets = Vec::with_capacity(wishes.len());
        let found = wishes.iter().zip(prefixes.into_iter().flatten());
        for (i, (wish, prefix)) in found.enumerate() {
            let subnet = Subnet {
                prefix,
                gateway: gateway(prefix, wish.subnet.gateway)?,
                vni: self.taken_vnis.get(i).copied(),
            };
            wish.check(&subnet)?;
            subnets.push(subnet);
        }
        Ok(subnets)
    }

    fn prefix(&mut self, wish: &SubnetWish) -> Result<Prefix, AllocatorError> {
        let asked = wish.subnet.prefix;
        if let Some(named) = asked.filter(|_| wish.is_named()) {
            return self.named(named);
        }
        if let Some(range) = wish.range {
            return Err(PoolRefusal::RangeAlone(range).into());
        }
        if let Some(sized) = asked.filter(|sized| has_no_room(*sized)) {
            return Err(AllocatorError::BadSubnet(sized));
        }
        let is_v6 = asked.is_some_and(|sized| sized.0.addr().is_ipv6());
        let pools = &self.pools[usize::from(is_v6)];
        let length = asked.map(|sized| sized.0.prefix_len());
        // What a network had a moment ago is used only if nothing else is free.
        let mut obstacles = self.avoid.clone();
        self.resting
            .iter()
            .for_each(|resting| obstacles.cover(resting));
        let found = self.space.take_from(pools, length, &obstacles);
        let found = found.or_else(|_full| self.space.take_from(pools, length, &self.avoid));
        found.map_err(|error| match error {
            PoolError::BadLength(length) => PoolRefusal::BadLength(length).into(),
            PoolError::Exhausted(length) => AllocatorError::NoFreeSubnet { length },
        })
    }

    /// A named prefix is checked against those of other networks, not against what nodes route: the caller knows.
    fn named(&mut self, asked: Prefix) -> Result<Prefix, AllocatorError> {
        checked(asked)?;
        if has_no_room(asked) {
            return Err(AllocatorError::BadSubnet(asked));
        }
        let taken = self.space.take(asked);
        taken.map_err(|overlap| AllocatorError::Overlap {
            requested: asked,
            existing: overlap.existing,
        })?;
        Ok(asked)
    }
}

/// Returns whether a prefix cannot hold a gateway and an endpoint.
fn has_no_room(prefix: Prefix) -> bool {
    prefix.0.prefix_len() >= prefix.0.max_prefix_len()
}

fn union(prefixes: &[Prefix]) -> Space {
    let mut space = Space::default();
    prefixes.iter().for_each(|prefix| space.cover(*prefix));
    space
}

fn gateway(subnet: Prefix, asked: Option<IpAddr>) -> Result<IpAddr, AllocatorError> {
    match asked {
        None => Ok(ipam::first_usable(subnet)),
        Some(gateway) if ipam::is_usable(subnet, gateway) => Ok(gateway),
        Some(gateway) => Err(AllocatorError::BadGateway { gateway, subnet }),
    }
}

fn encode_record(record: &NetworkRecord) -> Result<Value, AllocatorError> {
    let bytes = codec::encode(record);
    let len = bytes.len() as u64;
    Value::new(bytes).map_err(|_too_long| AllocatorError::TooLarge {
        len,
        limit: Value::LEN_MAX as u64,
    })
}

/// Returns the key of a network in table `networks`.
pub(super) fn network_key(id: NetworkId) -> Key {
    Key::new(id.0.to_be_bytes().to_vec()).expect("four bytes are within the limits")
}
