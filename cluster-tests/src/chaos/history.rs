//! What the clients asked and were answered, and what that says of each name, VNI, subnet and address.
//!
//! **Invariant:** nothing is taken for sure that no answer says. An answer that was lost stays open to the end; what a node
//! lists of networks, which it only heard of, says what a network has and not that it is still there.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::time::Instant;
use weft::core::model::{Name, NetworkId, Prefix, Vni};

use super::linear::{Deed, Operation, Violation, check};

/// Something that no two may have at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Lock {
    /// A network's name.
    Name(Name),
    /// A VNI.
    Vni(Vni),
    /// A subnet. All that are asked for by name are of one length, and so are all others.
    Subnet(Prefix),
    /// An address of a network.
    Address(NetworkId, IpAddr),
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "network name {name}"),
            Self::Vni(vni) => write!(f, "VNI {vni}"),
            Self::Subnet(prefix) => write!(f, "subnet {prefix}"),
            Self::Address(network, address) => write!(f, "address {address} of network {network}"),
        }
    }
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    /// To make a network; the request's number is among the network's options.
    CreateNetwork {
        /// The number.
        request: u64,
        /// Its name.
        name: Name,
        /// What it shall have, if that was said.
        wanted: Option<Lock>,
    },
    /// To remove the network that a request made.
    RemoveNetwork {
        /// The request.
        request: u64,
    },
    /// To make an endpoint.
    CreateEndpoint {
        /// Its number, which is its name too.
        request: u64,
        /// Its network.
        network: NetworkId,
        /// The address asked for.
        address: Option<IpAddr>,
    },
    /// To remove an endpoint.
    RemoveEndpoint {
        /// Its number.
        request: u64,
    },
    /// Which endpoints a node has, from its own disk.
    ListEndpoints,
    /// Which networks a node has heard of.
    ListNetworks,
    /// As before, after all is quiet and every node gives the same answer.
    ListNetworksAgreed,
    /// A node and its disk are lost.
    LoseNode,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It is done.
    Done,
    /// A network was made; so is what it has.
    Network(MadeNetwork),
    /// An endpoint was made, and has this address.
    Endpoint(Option<IpAddr>),
    /// What a list has.
    Networks(Vec<MadeNetwork>),
    /// Each endpoint's number, network and address.
    Endpoints(Vec<(u64, NetworkId, IpAddr)>),
    /// Refused: the name is taken.
    NameTaken,
    /// Refused: what was wanted is somebody's.
    InUse,
    /// Refused for a reason that says nothing of a lock, which is named.
    Refused(String),
    /// Nobody knows whether it was done.
    Unknown(String),
}

/// A network that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct MadeNetwork {
    /// The request that made it.
    pub(super) request: u64,
    /// Its name.
    pub(super) name: Name,
    /// Its id.
    pub(super) id: NetworkId,
    /// Its VNIs and subnets.
    pub(super) has: Vec<Lock>,
}

/// A call and its outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Record {
    /// The node that was asked.
    pub(super) node: usize,
    /// What was asked.
    pub(super) call: Call,
    /// When, in microseconds since the run began.
    pub(super) called: u64,
    /// When the outcome was there.
    pub(super) answered: u64,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// Where records are kept. It grows with the run, which has an end.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    began: Instant,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Recorder {
    /// Begins now.
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            records: Arc::default(),
        }
    }

    /// Returns the time since the beginning, in microseconds.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Keeps what came of a call, which is over now.
    pub(super) fn keep(&self, node: usize, (call, called): (Call, u64), outcome: Outcome) {
        let record = Record {
            node,
            call,
            called,
            answered: self.now(),
            outcome,
        };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(record);
    }

    /// Returns all records.
    pub(super) fn records(&self) -> Vec<Record> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.clone()
    }
}

/// A lock whose history nothing explains.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// The lock.
    pub(super) lock: Lock,
    /// Why.
    pub(super) violation: Violation,
    /// All that was done to it, by when it was called.
    pub(super) operations: Vec<Operation>,
}

/// Checks the history of every lock; returns how many there are, or those that are broken.
pub(super) fn check_all(records: &[Record]) -> Result<usize, Vec<Broken>> {
    let locks = Derivation::of(records).operations;
    let count = locks.len();
    let mut broken = Vec::new();
    for (lock, mut operations) in locks {
        operations.sort_by_key(|operation| operation.called);
        if let Err(violation) = check(&operations) {
            broken.push(Broken {
                lock,
                violation,
                operations,
            });
        }
    }
    match broken.is_empty() {
        true => Ok(count),
        false => Err(broken),
    }
}

/// What is known of all locks.
#[derive(Default)]
struct Derivation {
    operations: BTreeMap<Lock, Vec<Operation>>,
    /// Request of a network → when it was first known, and what it has.
    seen_networks: BTreeMap<u64, (u64, MadeNetwork)>,
    /// Endpoint → when it was first known, and its lock.
    seen_endpoints: BTreeMap<u64, (u64, Lock)>,
    /// Endpoint → the time by which it was removed for sure, or nothing, and when that was asked for.
    removals: BTreeMap<u64, (u64, Option<u64>)>,
}

impl Derivation {
    fn of(records: &[Record]) -> Self {
        let mut all = Self::default();
        records.iter().for_each(|record| all.learn(record));
        records.iter().for_each(|record| all.lose(record, records));
        records.iter().for_each(|record| all.derive(record));
        let removals = std::mem::take(&mut all.removals);
        for (request, (called, answered)) in removals {
            if let Some((_, lock)) = all.seen_endpoints.get(&request).cloned() {
                all.add(lock, Deed::Free(request), (called, answered));
            }
        }
        all
    }

    /// Collects what networks and endpoints have, and when that was known.
    fn learn(&mut self, record: &Record) {
        let at = record.answered;
        let mut networks: Vec<&MadeNetwork> = Vec::new();
        let mut endpoints: Vec<(u64, NetworkId, IpAddr)> = Vec::new();
        match (&record.call, &record.outcome) {
            (_, Outcome::Network(made)) => networks.push(made),
            (_, Outcome::Networks(listed)) => networks.extend(listed),
            (_, Outcome::Endpoints(listed)) => endpoints.extend(listed),
            (
                Call::CreateEndpoint {
                    request, network, ..
                },
                Outcome::Endpoint(Some(address)),
            ) => {
                endpoints.push((*request, *network, *address));
            }
            (Call::RemoveEndpoint { request }, outcome) => {
                let (_, done) = self
                    .removals
                    .entry(*request)
                    .or_insert((record.called, None));
                if *outcome == Outcome::Done {
                    done.get_or_insert(at);
                }
            }
            _ => {}
        }
        for made in networks {
            let known = self.seen_networks.entry(made.request);
            let known = known.or_insert_with(|| (at, made.clone()));
            known.0 = known.0.min(at);
        }
        for (request, network, address) in endpoints {
            let lock = Lock::Address(network, address);
            let known = self.seen_endpoints.entry(request).or_insert((at, lock));
            known.0 = known.0.min(at);
        }
    }

    /// Ends the endpoints of a node that is lost.
    fn lose(&mut self, record: &Record, records: &[Record]) {
        if record.call != Call::LoseNode {
            return;
        }
        for earlier in records.iter().filter(|earlier| earlier.node == record.node) {
            let Call::CreateEndpoint { request, .. } = earlier.call else {
                continue;
            };
            if earlier.called < record.answered {
                let (_, answered) = self
                    .removals
                    .entry(request)
                    .or_insert((record.called, None));
                // A removal that was under way came to its end before, or with the node.
                answered.get_or_insert(record.answered);
            }
        }
    }

    fn derive(&mut self, record: &Record) {
        let span = (record.called, Some(record.answered));
        match (&record.call, &record.outcome) {
            (Call::CreateNetwork { request, .. }, Outcome::Network(_) | Outcome::Unknown(_)) => {
                self.network_made(*request, record);
            }
            (Call::CreateNetwork { name, .. }, Outcome::NameTaken) => {
                self.add(Lock::Name(name.clone()), Deed::Held, span);
            }
            (
                Call::CreateNetwork {
                    wanted: Some(wanted),
                    ..
                },
                Outcome::InUse,
            ) => self.add(wanted.clone(), Deed::Held, span),
            (Call::RemoveNetwork { request }, Outcome::Done) => self.network_gone(*request, span),
            (Call::RemoveNetwork { request }, Outcome::Unknown(_)) => {
                self.network_gone(*request, (record.called, None));
            }
            (Call::ListNetworksAgreed, Outcome::Networks(listed)) => self.agreed(listed, span),
            (Call::CreateEndpoint { request, .. }, Outcome::Endpoint(_) | Outcome::Unknown(_)) => {
                // Of one that was never seen, nothing is known.
                if let Some((seen, lock)) = self.seen_endpoints.get(request).cloned() {
                    self.add(lock, Deed::Take(*request), (record.called, Some(seen)));
                }
            }
            (Call::ListEndpoints, Outcome::Endpoints(listed)) => {
                for (request, network, address) in listed {
                    let lock = Lock::Address(*network, *address);
                    self.add(lock, Deed::HeldBy(*request), span);
                }
            }
            _ => {}
        }
    }

    fn network_made(&mut self, request: u64, record: &Record) {
        let Call::CreateNetwork { name, wanted, .. } = &record.call else {
            return;
        };
        let take = Deed::Take(request);
        match self.seen_networks.get(&request).cloned() {
            Some((seen, made)) => {
                let span = (record.called, Some(seen));
                self.add(Lock::Name(made.name), take, span);
                made.has
                    .into_iter()
                    .for_each(|lock| self.add(lock, take, span));
            }
            None => {
                let span = (record.called, None);
                self.add(Lock::Name(name.clone()), take, span);
                wanted
                    .iter()
                    .for_each(|lock| self.add(lock.clone(), take, span));
            }
        }
    }

    fn network_gone(&mut self, request: u64, span: (u64, Option<u64>)) {
        let Some((_, made)) = self.seen_networks.get(&request).cloned() else {
            return;
        };
        let all = made.has.into_iter().chain([Lock::Name(made.name)]);
        all.for_each(|lock| self.add(lock, Deed::Free(request), span));
    }

    /// What all nodes say when all is quiet is so: what they list is there, and nothing else.
    fn agreed(&mut self, listed: &[MadeNetwork], span: (u64, Option<u64>)) {
        let mut held: BTreeMap<Lock, u64> = BTreeMap::new();
        for made in listed {
            held.insert(Lock::Name(made.name.clone()), made.request);
            held.extend(made.has.iter().map(|lock| (lock.clone(), made.request)));
        }
        let known: Vec<Lock> = self.operations.keys().cloned().collect();
        for lock in known {
            match (held.remove(&lock), &lock) {
                (Some(request), _) => self.add(lock, Deed::HeldBy(request), span),
                (None, Lock::Address(..)) => {}
                (None, Lock::Name(_) | Lock::Vni(_) | Lock::Subnet(_)) => {
                    self.add(lock, Deed::IsFree, span);
                }
            }
        }
    }

    fn add(&mut self, lock: Lock, deed: Deed, (called, answered): (u64, Option<u64>)) {
        self.operations.entry(lock).or_default().push(Operation {
            deed,
            called,
            answered,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_vni_of_two_networks_is_caught() {
        let mut records = vec![
            made(1, "a", (0, 1), &[vni(7)]),
            made(2, "b", (2, 3), &[vni(8)]),
        ];
        assert_eq!(check_all(&records).unwrap(), 4);

        records.push(made(3, "c", (4, 5), &[vni(7)]));

        assert_eq!(broken(&records), [vni(7)]);
    }

    #[test]
    fn one_address_of_two_live_endpoints_is_caught_and_of_two_networks_is_not() {
        let mut records = vec![
            joined(1, 1, (0, 1), "10.0.0.2"),
            joined(2, 2, (2, 3), "10.0.0.2"),
        ];
        assert_eq!(check_all(&records).unwrap(), 2);

        records.push(joined(3, 1, (4, 5), "10.0.0.2"));

        assert_eq!(broken(&records), [address(1, "10.0.0.2")]);
    }

    #[test]
    fn an_address_may_be_had_again_once_it_was_given_back_or_lost_with_its_node() {
        let first = joined(1, 1, (0, 1), "10.0.0.2");
        let second = joined(2, 1, (6, 7), "10.0.0.2");
        let removal = Call::RemoveEndpoint { request: 1 };
        let ends = [
            record(removal.clone(), (2, 3), Outcome::Done),
            record(removal, (2, 3), Outcome::Unknown("killed".to_owned())),
            record(Call::LoseNode, (2, 3), Outcome::Done),
        ];

        for end in ends {
            let records = [first.clone(), end, second.clone()];
            assert_eq!(check_all(&records).unwrap(), 1, "{records:?}");
        }
        let late = record(Call::RemoveEndpoint { request: 1 }, (8, 9), Outcome::Done);
        assert_eq!(broken(&[first, second, late]), [address(1, "10.0.0.2")]);
    }

    #[test]
    fn an_endpoint_that_nobody_answered_counts_from_when_it_was_seen() {
        let lost = record(created(1, 1), (0, 1), Outcome::Unknown("killed".to_owned()));
        let listed = vec![(1, NetworkId(1), "10.0.0.2".parse().unwrap())];
        let seen = record(Call::ListEndpoints, (2, 3), Outcome::Endpoints(listed));
        let other = joined(2, 1, (4, 5), "10.0.0.2");

        assert!(check_all(&[lost.clone(), other.clone()]).is_ok());
        assert_eq!(broken(&[lost, seen, other]), [address(1, "10.0.0.2")]);
    }

    #[test]
    fn a_name_that_is_refused_after_its_networks_removal_was_answered_is_caught() {
        let first = made(1, "a", (0, 1), &[]);
        let removed = record(Call::RemoveNetwork { request: 1 }, (2, 3), Outcome::Done);
        let refused = |span| record(wanted(2, "a"), span, Outcome::NameTaken);

        assert!(check_all(&[first.clone(), removed.clone(), refused((2, 5))]).is_ok());
        assert_eq!(
            broken(&[first, removed, refused((4, 5))]),
            [Lock::Name(Name::new("a").unwrap())]
        );
    }

    #[test]
    fn a_network_that_all_list_after_its_removal_was_answered_is_caught() {
        let first = made(1, "a", (0, 1), &[vni(7)]);
        let Outcome::Network(it) = first.outcome.clone() else {
            panic!("it was made");
        };
        let removed = record(Call::RemoveNetwork { request: 1 }, (2, 3), Outcome::Done);
        let agreed = |listed| record(Call::ListNetworksAgreed, (4, 5), Outcome::Networks(listed));

        assert!(check_all(&[first.clone(), removed.clone(), agreed(vec![])]).is_ok());
        assert_eq!(broken(&[first, removed, agreed(vec![it])]).len(), 2);
    }

    fn broken(records: &[Record]) -> Vec<Lock> {
        let broken = check_all(records).unwrap_err();
        broken.into_iter().map(|broken| broken.lock).collect()
    }

    fn wanted(request: u64, name: &str) -> Call {
        Call::CreateNetwork {
            request,
            name: Name::new(name).unwrap(),
            wanted: None,
        }
    }

    fn made(request: u64, name: &str, span: (u64, u64), has: &[Lock]) -> Record {
        let made = MadeNetwork {
            request,
            name: Name::new(name).unwrap(),
            id: NetworkId(u32::try_from(request).unwrap()),
            has: has.to_vec(),
        };
        record(wanted(request, name), span, Outcome::Network(made))
    }

    fn created(request: u64, network: u32) -> Call {
        Call::CreateEndpoint {
            request,
            network: NetworkId(network),
            address: None,
        }
    }

    fn joined(request: u64, network: u32, span: (u64, u64), address: &str) -> Record {
        let address = Some(address.parse().unwrap());
        record(created(request, network), span, Outcome::Endpoint(address))
    }

    fn record(call: Call, (called, answered): (u64, u64), outcome: Outcome) -> Record {
        Record {
            node: 0,
            call,
            called,
            answered,
            outcome,
        }
    }

    fn vni(raw: u32) -> Lock {
        Lock::Vni(Vni::new(raw).unwrap())
    }

    fn address(network: u32, address: &str) -> Lock {
        Lock::Address(NetworkId(network), address.parse().unwrap())
    }
}
