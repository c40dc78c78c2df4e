//! Clients: on every node some that make and remove networks and endpoints, and one that looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::RwLock, time::sleep};
use weft::{
    api::{
        client::{Client, ClientError},
        http::types::{Code, CreateEndpoint, CreateNetwork, CreateSubnet, Network},
    },
    core::model::{Name, NetworkId, Prefix, Vni},
};

use super::history::{Call, Lock, MadeNetwork, Outcome, Recorder};

/// The option of a network that names the request which made it.
const REQUEST: &str = "chaos.request";
/// How many names the clients contend for.
const NAMES: u8 = 6;
/// The VNIs that they ask for by number.
const VNIS: std::ops::Range<u32> = 7..11;
/// How many endpoints a client has at most.
const ENDPOINTS_MAX: usize = 6;
/// How long a client rests between two calls.
const REST: std::ops::Range<u64> = 50..350;
/// How often a call whose answer was lost is made again.
const TRIES: usize = 4;
/// How long a call may take: longer than a node looks for a leader.
const CALL_MAX: Duration = Duration::from_secs(13);
/// How often the endpoints of a node are listed.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Where calls are written down.
    pub(super) recorder: Recorder,
    /// Networks that nobody removes.
    pub(super) lasting: Vec<Network>,
    /// How many calls are still to be made.
    pub(super) left: AtomicU64,
    /// All is over.
    pub(super) over: AtomicBool,
    next: AtomicU64,
    /// Requests whose networks are written down.
    known: Mutex<BTreeSet<u64>>,
}

impl Shared {
    /// Makes it for so many calls.
    pub(super) fn new(recorder: Recorder, lasting: Vec<Network>, calls: u64) -> Self {
        Self {
            recorder,
            lasting,
            left: AtomicU64::new(calls),
            over: AtomicBool::new(false),
            next: AtomicU64::new(1),
            known: Mutex::default(),
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn is_new(&self, made: &MadeNetwork) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(made.request)
    }
}

/// A node as its clients see it. Its number grows each time it is lost with its disk; whoever holds the lock for writing
/// knows that no call is under way.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Which node.
    pub(super) node: usize,
    /// Its control API.
    pub(super) client: Client,
    /// How often it was lost.
    pub(super) life: Arc<RwLock<u64>>,
}

/// One client.
pub(super) struct Worker {
    place: Place,
    shared: Arc<Shared>,
    rng: StdRng,
    /// The life of the node in which the endpoints were made.
    life: u64,
    endpoints: Vec<Own>,
}

/// An endpoint of a client's.
struct Own {
    request: u64,
    network: NetworkId,
    /// Whether its making was answered: if not, that may be under way still.
    is_sure: bool,
}

/// What came of one try.
enum Answer<T> {
    Done(T),
    Refused(Code),
    /// Nothing was done, but not by anybody's choice.
    Unreachable,
    Lost(String),
}

impl<T> From<Result<T, ClientError>> for Answer<T> {
    fn from(answered: Result<T, ClientError>) -> Self {
        match answered {
            Ok(done) => Self::Done(done),
            Err(ClientError::Refused(failure)) => {
                let may_be_done = [Code::TimedOut, Code::Stopped, Code::Failed];
                match may_be_done.contains(&failure.code) {
                    true => Self::Lost(failure.to_string()),
                    false => Self::Refused(failure.code),
                }
            }
            Err(ClientError::NoDaemon { .. } | ClientError::Denied { .. }) => Self::Unreachable,
            Err(
                lost @ (ClientError::TimedOut { .. }
                | ClientError::Broken { .. }
                | ClientError::Foreign { .. }),
            ) => Self::Lost(lost.to_string()),
        }
    }
}

impl<T> Answer<T> {
    fn into_outcome(self, outcome: impl FnOnce(T) -> Outcome) -> Outcome {
        match self {
            Self::Done(done) => outcome(done),
            Self::Refused(code) => Outcome::Refused(code.as_str().to_owned()),
            Self::Unreachable => Outcome::Refused("no_daemon".to_owned()),
            Self::Lost(why) => Outcome::Unknown(why),
        }
    }
}

impl Worker {
    /// Makes a client of a node.
    pub(super) fn new(place: Place, shared: Arc<Shared>, seed: u64) -> Self {
        let client = place.client.clone().with_deadline(CALL_MAX);
        Self {
            place: Place { client, ..place },
            shared,
            rng: StdRng::seed_from_u64(seed),
            life: 0,
            endpoints: Vec::new(),
        }
    }

    /// Makes calls until all are made, or all is over.
    pub(super) async fn run(mut self) {
        while !self.shared.is_over() {
            let take = |left: u64| left.checked_sub(1);
            let left = &self.shared.left;
            if left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_err()
            {
                return;
            }
            let life = self.place.life.clone().read_owned().await;
            if *life != self.life {
                self.life = *life;
                self.endpoints.clear();
            }
            self.step().await;
            drop(life);
            let rest = self.rng.random_range(REST);
            sleep(Duration::from_millis(rest)).await;
        }
    }

    async fn step(&mut self) {
        let listed = self.list_networks().await;
        let many = self.endpoints.len();
        match self.rng.random_range(0..100) {
            0..25 => self.change_network(&listed).await,
            25..60 if many > 0 => self.remove_endpoint().await,
            _ if many == ENDPOINTS_MAX => self.remove_endpoint().await,
            _ => self.create_endpoint(&listed).await,
        }
    }

    async fn list_networks(&mut self) -> Vec<MadeNetwork> {
        let recorder = &self.shared.recorder;
        let called = recorder.now();
        let Ok(listed) = self.place.client.networks().await else {
            return Vec::new();
        };
        let listed: Vec<MadeNetwork> = listed.iter().filter_map(made).collect();
        let mut new = listed.clone();
        new.retain(|made| self.shared.is_new(made));
        if !new.is_empty() {
            let call = (Call::ListNetworks, called);
            recorder.keep(self.place.node, call, Outcome::Networks(new));
        }
        listed
    }

    async fn change_network(&mut self, listed: &[MadeNetwork]) {
        let name = format!("net{}", self.rng.random_range(0..NAMES));
        let name = Name::new(&name).expect("letters and a digit are a name");
        let there = listed.iter().find(|made| made.name == name);
        match there.filter(|_| self.rng.random_bool(0.7)) {
            Some(there) => self.remove_network(there.request, there.id).await,
            None => self.create_network(name).await,
        }
    }

    /// Each try is a request of its own: whether an earlier one was done after all is seen by its number.
    async fn create_network(&mut self, name: Name) {
        let wanted = self.wanted();
        for _ in 0..TRIES {
            let request = self.shared.number();
            let called = self.shared.recorder.now();
            let wish = wish(&name, request, wanted.as_ref());
            let answer = Answer::from(self.place.client.network_create(&wish).await);
            let is_lost = matches!(answer, Answer::Lost(_));
            let outcome = match answer {
                Answer::Refused(Code::NetworkExists) => Outcome::NameTaken,
                Answer::Refused(Code::InUse) if wanted.is_some() => Outcome::InUse,
                other @ (Answer::Done(_)
                | Answer::Refused(_)
                | Answer::Unreachable
                | Answer::Lost(_)) => other.into_outcome(|network| match made(&network) {
                    Some(made) => Outcome::Network(made),
                    None => Outcome::Unknown("the answer has no request".to_owned()),
                }),
            };
            let call = Call::CreateNetwork {
                request,
                name: name.clone(),
                wanted: wanted.clone(),
            };
            self.shared
                .recorder
                .keep(self.place.node, (call, called), outcome);
            if !is_lost {
                return;
            }
            self.list_networks().await;
        }
    }

    fn wanted(&mut self) -> Option<Lock> {
        match self.rng.random_range(0..10) {
            0..3 => Vni::new(self.rng.random_range(VNIS)).map(Lock::Vni),
            3..5 => {
                let third = self.rng.random_range(0..4);
                let prefix = format!("172.30.{third}.0/24").parse().map(Prefix);
                prefix.ok().map(Lock::Subnet)
            }
            _ => None,
        }
    }

    async fn remove_network(&mut self, request: u64, id: NetworkId) {
        let called = self.shared.recorder.now();
        let answer = self.place.client.network_remove(&id.to_string()).await;
        let outcome = match Answer::from(answer) {
            // Somebody else's removal was faster, or this node has not heard of the network again since it was started.
            Answer::Refused(Code::NoSuchNetwork) => Outcome::Unknown("no such network".to_owned()),
            other @ (Answer::Done(())
            | Answer::Refused(_)
            | Answer::Unreachable
            | Answer::Lost(_)) => other.into_outcome(|()| Outcome::Done),
        };
        let call = (Call::RemoveNetwork { request }, called);
        self.shared.recorder.keep(self.place.node, call, outcome);
    }

    async fn create_endpoint(&mut self, listed: &[MadeNetwork]) {
        let lasting = &self.shared.lasting;
        let (id, prefix) = match self.rng.random_range(0..100) {
            0..15 if !listed.is_empty() => {
                let made = listed.choose(&mut self.rng).expect("it is not empty");
                (made.id, None)
            }
            _ => {
                let network = lasting.choose(&mut self.rng).expect("there are some");
                (network.id, Some(network.subnets[0].prefix))
            }
        };
        let address = prefix.filter(|_| self.rng.random_bool(0.3));
        let address = address.and_then(|prefix| named(prefix, self.rng.random_range(16..24)));
        let request = self.shared.number();
        let called = self.shared.recorder.now();
        let outcome = self.try_to_create(request, id, address).await;
        let call = Call::CreateEndpoint {
            request,
            network: id,
            address,
        };
        let is_sure = matches!(outcome, Outcome::Endpoint(_));
        let may_be_there = is_sure || matches!(outcome, Outcome::Unknown(_));
        self.shared
            .recorder
            .keep(self.place.node, (call, called), outcome);
        if may_be_there {
            self.endpoints.push(Own {
                request,
                network: id,
                is_sure,
            });
            let (network, name) = (id.to_string(), name_of(request));
            // Whether it joins says nothing of who has the address.
            let _ = self.place.client.endpoint_join(&network, &name).await;
        }
    }

    /// A name is had once on a node, so a try that is made again finds what an earlier one has made.
    async fn try_to_create(
        &mut self,
        request: u64,
        network: NetworkId,
        address: Option<IpAddr>,
    ) -> Outcome {
        let network = network.to_string();
        let name = name_of(request);
        let wish = CreateEndpoint {
            name: Name::new(&name).expect("a letter and a number are a name"),
            address,
            second_address: None,
        };
        let client = &self.place.client;
        let mut lost = None;
        for _ in 0..TRIES {
            let answer = Answer::from(client.endpoint_create(&network, &wish).await);
            match answer {
                Answer::Refused(Code::EndpointExists) => {
                    if let Ok(found) = client.endpoint(&network, &name).await {
                        let address = found.endpoint.address;
                        return Outcome::Endpoint(address.map(|address| address.0.addr()));
                    }
                }
                Answer::Lost(why) => lost = Some(why),
                // An earlier try may be under way still.
                Answer::Refused(_) | Answer::Unreachable if lost.is_some() => {}
                other @ (Answer::Done(_) | Answer::Refused(_) | Answer::Unreachable) => {
                    return other.into_outcome(|made| {
                        Outcome::Endpoint(made.address.map(|address| address.0.addr()))
                    });
                }
            }
            sleep(Duration::from_millis(300)).await;
        }
        Outcome::Unknown(lost.unwrap_or_default())
    }

    async fn remove_endpoint(&mut self) {
        let at = self.rng.random_range(0..self.endpoints.len());
        let own = self.endpoints.swap_remove(at);
        let request = own.request;
        let called = self.shared.recorder.now();
        if self.rng.random_bool(0.3) {
            let (network, name) = (own.network.to_string(), name_of(request));
            let _ = self.place.client.endpoint_leave(&network, &name).await;
        }
        let outcome = self.try_to_remove(&own).await;
        if own.is_sure && matches!(outcome, Outcome::Unknown(_)) {
            self.endpoints.push(own);
        }
        let call = Call::RemoveEndpoint { request };
        self.shared
            .recorder
            .keep(self.place.node, (call, called), outcome);
    }

    async fn try_to_remove(&self, own: &Own) -> Outcome {
        let (network, name) = (own.network.to_string(), name_of(own.request));
        let mut lasting = self.shared.lasting.iter();
        let lasts = lasting.any(|lasting| lasting.id == own.network);
        let mut lost = String::new();
        for _ in 0..TRIES {
            let removed = self.place.client.endpoint_remove(&network, &name).await;
            match Answer::from(removed) {
                Answer::Done(()) => return Outcome::Done,
                // The node reads its own disk: then an earlier try has done it.
                Answer::Refused(Code::NoSuchEndpoint) if own.is_sure => return Outcome::Done,
                // It goes with its network, by and by.
                Answer::Refused(Code::NoSuchNetwork) if !lasts => {
                    return Outcome::Refused(Code::NoSuchNetwork.as_str().to_owned());
                }
                Answer::Refused(code) => code.as_str().clone_into(&mut lost),
                Answer::Unreachable => "no_daemon".clone_into(&mut lost),
                Answer::Lost(why) => lost = why,
            }
            sleep(Duration::from_millis(500)).await;
        }
        Outcome::Unknown(lost)
    }
}

/// Lists the endpoints of a node again and again, until all is over.
pub(super) async fn look(place: Place, shared: Arc<Shared>) {
    while !shared.is_over() {
        let life = place.life.clone().read_owned().await;
        let _ = look_once(&place, &shared.recorder).await;
        drop(life);
        sleep(LOOK_EVERY).await;
    }
}

/// Writes down the endpoints that a node has on its disk.
pub(super) async fn look_once(place: &Place, recorder: &Recorder) -> Result<(), ClientError> {
    let called = recorder.now();
    let node = place.client.status().await?.node;
    let mut endpoints = place.client.endpoints(None).await?;
    endpoints.retain(|endpoint| endpoint.node == node);
    let own = endpoints.iter().filter_map(|endpoint| {
        let request = endpoint.name.as_str().strip_prefix('e')?.parse().ok()?;
        Some((request, endpoint.network, endpoint.address?.0.addr()))
    });
    let call = (Call::ListEndpoints, called);
    recorder.keep(place.node, call, Outcome::Endpoints(own.collect()));
    Ok(())
}

/// Returns what a network's record says; nothing of one that no client made.
pub(super) fn made(network: &Network) -> Option<MadeNetwork> {
    let request = network.options.get(REQUEST)?.parse().ok()?;
    let subnets = network.subnets.iter();
    let has = subnets.flat_map(|subnet| {
        let vni = subnet.vni.map(Lock::Vni);
        [Some(Lock::Subnet(subnet.prefix)), vni]
    });
    Some(MadeNetwork {
        request,
        name: network.name.clone(),
        id: network.id,
        has: has.flatten().collect(),
    })
}

fn wish(name: &Name, request: u64, wanted: Option<&Lock>) -> CreateNetwork {
    let mut options = BTreeMap::from([(REQUEST.to_owned(), request.to_string())]);
    let mut subnets = Vec::new();
    match wanted {
        Some(Lock::Vni(vni)) => {
            options.insert("vxlanid_list".to_owned(), vni.to_string());
        }
        Some(Lock::Subnet(prefix)) => subnets.push(CreateSubnet {
            prefix: Some(*prefix),
            ..CreateSubnet::default()
        }),
        Some(Lock::Name(_) | Lock::Address(..)) | None => {}
    }
    CreateNetwork {
        options,
        subnets,
        ..CreateNetwork::overlay(name.clone())
    }
}

fn name_of(request: u64) -> String {
    format!("e{request}")
}

/// Returns the address so far into a prefix.
fn named(prefix: Prefix, offset: u32) -> Option<IpAddr> {
    let IpAddr::V4(first) = prefix.0.network() else {
        return None;
    };
    Some(IpAddr::V4((first.to_bits() + offset).into()))
}
