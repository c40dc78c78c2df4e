//! Networks: subnets, gateways and VNIs, all or nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Action, Allocator, AllocatorError, Command, Outcome, SubnetRequest,
    block::Blocks,
    networks_table,
    vni::{Vnis, parse_list},
};
use crate::core::{
    ipam::{self, Pool, PoolError, Space},
    model::{ClusterId, Hlc, Key, NetworkId, NetworkRecord, Prefix, Subnet, Value, Vni},
    wire::codec,
};

/// The most subnets of one network.
pub const SUBNETS_MAX: usize = 32;

impl Allocator {
    pub(super) fn create_network(&mut self, command: &Command) -> Result<Outcome, AllocatorError> {
        let Action::CreateNetwork {
            name,
            driver,
            options,
            subnets,
            vxlan,
        } = &command.action
        else {
            return Err(AllocatorError::NotFounded);
        };
        if let Some(existing) = self.network_named(name) {
            return Err(AllocatorError::NetworkExists {
                name: name.clone(),
                id: existing.id,
            });
        }
        let wanted_vnis = if *vxlan {
            parse_list(options)?
        } else {
            Vec::new()
        };
        let cluster = self.cluster().ok_or(AllocatorError::NotFounded)?;
        let mut draft = Draft::new(&mut self.space, &mut self.vnis, cluster);
        let mut record = NetworkRecord {
            id: NetworkId(self.last_network + 1),
            name: name.clone(),
            driver: driver.clone(),
            options: options.clone(),
            subnets: Vec::new(),
        };
        let drafted = draft
            .subnets(subnets, *vxlan, &wanted_vnis)
            .and_then(|subnets| {
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
        self.networks.insert(record.id, record.clone());
        self.blocks.insert(record.id, Blocks::default());
        self.log
            .put(command.at, networks_table(), network_key(record.id), value);
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
        for subnet in &record.subnets {
            self.space.release(subnet.prefix);
            if let Some(vni) = subnet.vni {
                self.vnis.release(vni);
            }
        }
        self.drop_blocks_of_network(at, id);
        self.log.delete(at, networks_table(), network_key(id));
        Ok(Outcome::Done)
    }
}

/// What a network takes, one after another, until it has all it needs.
struct Draft<'a> {
    space: &'a mut Space,
    vnis: &'a mut Vnis,
    cluster: ClusterId,
    taken_prefixes: Vec<Prefix>,
    taken_vnis: Vec<Vni>,
    last_vni: u32,
}

impl<'a> Draft<'a> {
    fn new(space: &'a mut Space, vnis: &'a mut Vnis, cluster: ClusterId) -> Self {
        let last_vni = vnis.last;
        Self {
            space,
            vnis,
            cluster,
            taken_prefixes: Vec::new(),
            taken_vnis: Vec::new(),
            last_vni,
        }
    }

    /// Gives everything back, so that a refused network leaves nothing allocated (case O2).
    fn undo(self) {
        for prefix in self.taken_prefixes {
            self.space.release(prefix);
        }
        for vni in self.taken_vnis {
            self.vnis.release(vni);
        }
        self.vnis.last = self.last_vni;
    }

    fn subnets(
        &mut self,
        requests: &[SubnetRequest],
        vxlan: bool,
        wanted_vnis: &[Vni],
    ) -> Result<Vec<Subnet>, AllocatorError> {
        if requests.len() > SUBNETS_MAX {
            return Err(AllocatorError::TooManySubnets {
                asked: requests.len() as u64,
                limit: SUBNETS_MAX as u64,
            });
        }
        let default = [SubnetRequest::default()];
        let requests = if requests.is_empty() && vxlan {
            &default
        } else {
            requests
        };
        // Prefixes that were named come first, or an unnamed one could take what a later one names.
        let mut prefixes = vec![None; requests.len()];
        for named in [true, false] {
            for (request, prefix) in requests.iter().zip(&mut prefixes) {
                if is_named(request) == named {
                    let taken = self.prefix(request)?;
                    self.taken_prefixes.push(taken);
                    *prefix = Some(taken);
                }
            }
        }
        for vni in wanted_vnis.iter().take(requests.len()) {
            self.vnis.take(*vni)?;
            self.taken_vnis.push(*vni);
        }
        let mut subnets = Vec::with_capacity(requests.len());
        for (i, (request, prefix)) in requests
            .iter()
            .zip(prefixes.into_iter().flatten())
            .enumerate()
        {
            let vni = match wanted_vnis.get(i) {
                Some(wanted) => Some(*wanted),
                None if vxlan => {
                    let vni = self.vnis.choose()?;
                    self.taken_vnis.push(vni);
                    Some(vni)
                }
                None => None,
            };
            subnets.push(Subnet {
                prefix,
                gateway: gateway(prefix, request.gateway)?,
                vni,
            });
        }
        Ok(subnets)
    }

    fn prefix(&mut self, request: &SubnetRequest) -> Result<Prefix, AllocatorError> {
        let pools = default_pools(self.cluster);
        let found = match request.prefix {
            Some(asked) if is_named(request) => {
                let asked = Prefix(asked.0.trunc());
                if asked.0.prefix_len() == 0 || asked.0.prefix_len() >= asked.0.max_prefix_len() {
                    return Err(AllocatorError::BadSubnet(asked));
                }
                let taken = self.space.take(asked);
                return taken
                    .map(|()| asked)
                    .map_err(|overlap| AllocatorError::Overlap {
                        requested: asked,
                        existing: overlap.existing,
                    });
            }
            Some(sized) => {
                let length = sized.0.prefix_len();
                if length >= sized.0.max_prefix_len() {
                    return Err(AllocatorError::BadSubnet(sized));
                }
                let is_v4 = sized.0.addr().is_ipv4();
                let pool =
                    pools.map(|pool| (pool.base.0.addr().is_ipv4() == is_v4).then_some(pool));
                let pool: Vec<Pool> = pool.into_iter().flatten().collect();
                self.space.take_from(&pool, Some(length), &Space::default())
            }
            None => self.space.take_from(&pools[..1], None, &Space::default()),
        };
        found.map_err(|error| match error {
            PoolError::BadLength(length) | PoolError::Exhausted(length) => {
                AllocatorError::NoFreeSubnet { length }
            }
        })
    }
}

/// Returns whether the request names a prefix, not only a size.
fn is_named(request: &SubnetRequest) -> bool {
    request
        .prefix
        .is_some_and(|prefix| !prefix.0.addr().is_unspecified())
}

/// Returns the pools to choose from: 10.0.0.0/8 in /24s (libnetwork's global pool) and the cluster's own
/// fd…/48 in /64s, whose 40 random bits (RFC 4193 §3.2.1) are the first of the cluster id.
fn default_pools(cluster: ClusterId) -> [Pool; 2] {
    let v4 = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8).expect("8 bits fit an IPv4 address");
    let site = (0xfd << 120) | ((cluster.0 >> 88) << 80);
    let v6 = Ipv6Net::new(Ipv6Addr::from_bits(site), 48).expect("48 bits fit an IPv6 address");
    [
        Pool {
            base: Prefix(IpNet::V4(v4)),
            length: 24,
        },
        Pool {
            base: Prefix(IpNet::V6(v6)),
            length: 64,
        },
    ]
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
