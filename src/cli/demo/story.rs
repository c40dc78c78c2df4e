//! The story: eight steps, each done on one node and observed through the control API of the others.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    StepError,
    look::{self, Patience, Want, seen},
    nodes::{Entrance, Nodes},
    report::Report,
};
use crate::{
    api::{
        client::{Client, ClientError},
        http::{
            Exit,
            types::{
                Code, CreateEndpoint, CreateNetwork, Endpoint, MemberState, Network, Setup, Status,
            },
        },
    },
    core::model::{EndpointId, Name, NodeId},
};

/// How long nodes may take to start and join.
const START_MAX: Duration = Duration::from_secs(10);
/// How long agreement may take to have three voters, or another leader.
const AGREE_MAX: Duration = Duration::from_secs(12);
/// How long a change may take to be seen everywhere.
const CHANGE_MAX: Duration = Duration::from_secs(3);
/// How long it may take to find out that a node is dead.
const DETECT_MAX: Duration = Duration::from_secs(8);

/// How many nodes vote.
const VOTERS: usize = 3;
/// The network of the story.
const NETWORK: &str = "app";

/// The one who tells it.
pub(super) struct Story<'a> {
    nodes: &'a mut Nodes,
    report: &'a mut Report,
    places: BTreeMap<NodeId, usize>,
}

impl<'a> Story<'a> {
    /// Makes a story of these nodes; none of them runs yet.
    pub(super) fn new(nodes: &'a mut Nodes, report: &'a mut Report) -> Self {
        Self {
            nodes,
            report,
            places: BTreeMap::new(),
        }
    }

    /// Tells it to its end, or to the first step that is not observed.
    pub(super) async fn tell(mut self) -> Result<(), StepError> {
        self.members_up().await?;
        self.leader_elected().await?;
        self.network_created().await?;
        let web = self.entry_seen().await?;
        self.entry_gone_on_leave(&web).await?;
        let pair = self.entries_gone_on_kill().await?;
        self.entries_back(&pair).await?;
        self.leader_failover().await
    }

    async fn members_up(&mut self) -> Result<(), StepError> {
        let count = self.nodes.len();
        self.report.begin(
            "members_up",
            "starting the nodes, joining them with a token",
        );
        let patience = Patience::calm(START_MAX);
        self.nodes.start(0, &Entrance::Found)?;
        let founder = self.status_once_ready(0, patience).await?;
        let token = call("token", self.client(0).token().await)?.token;
        for place in 1..count {
            let entrance = Entrance::Join(founder.address, token.clone());
            self.nodes.start(place, &entrance)?;
        }
        for place in 0..count {
            let status = self.status_once_ready(place, patience).await?;
            self.places.insert(status.node, place);
        }
        let all_alive = |client: Client| async move {
            let members = client.members().await?;
            let alive = members
                .iter()
                .filter(|member| member.state == MemberState::Alive);
            let alive = alive.count();
            Ok(seen(alive == count, || {
                format!("{alive} of {count} members alive")
            }))
        };
        let running = self.nodes.running();
        look::until(self.nodes, &running, patience, all_alive).await?;
        self.tell_seen(&format!("each of {count} nodes sees {count} alive"))
    }

    async fn leader_elected(&mut self) -> Result<(), StepError> {
        self.report
            .begin("leader_elected", "agreeing on a leader and on who votes");
        let leader = self.settled_leader(Patience::calm(AGREE_MAX)).await?;
        let name = self.nodes.get(leader).name.clone();
        self.tell_seen(&format!("{name} leads, {VOTERS} nodes vote"))
    }

    async fn network_created(&mut self) -> Result<(), StepError> {
        self.report
            .begin("network_created", "asking the leader for a network");
        let leader = self.settled_leader(Patience::calm(AGREE_MAX)).await?;
        let asked = self.others(leader)[0];
        self.report.act();
        let wish = CreateNetwork::overlay(name(NETWORK));
        let network = call(
            "network create",
            self.client(asked).network_create(&wish).await,
        )?;
        self.until_listed(&network, CHANGE_MAX).await?;
        let asked = &self.nodes.get(asked).name;
        let told = format!("asked {asked}: {}; every node lists it", describe(&network));
        self.tell_seen(&told)
    }

    async fn entry_seen(&mut self) -> Result<Endpoint, StepError> {
        self.report.begin("entry_seen", "joining an endpoint on n1");
        let ready = |client: Client| async move {
            let setup = client.network(NETWORK).await?.setup;
            Ok(seen(setup == Setup::Ready, || {
                format!("the network is {}", setup.as_str())
            }))
        };
        let running = self.nodes.running();
        look::until(self.nodes, &running, Patience::keen(CHANGE_MAX), ready).await?;
        let created = self.create(0, "web").await?;
        let (client, id) = (self.client(0), created.id.to_string());
        let endpoints = [created.id];
        let began = self.report.act();
        // The others are looked at before the join is answered, or its answer would be part of what is measured.
        let (joined, times) = tokio::join!(
            client.endpoint_join(NETWORK, &id),
            self.until_entries(0, &endpoints, Want::There, CHANGE_MAX)
        );
        let (web, times) = (call("endpoint join", joined)?, times?);
        let address = web
            .address
            .map_or_else(String::new, |address| address.to_string());
        self.tell_seen(&format!(
            "endpoint web {address} joined n1; in the overlay driver of {}",
            show_times(&times, began)
        ))?;
        Ok(web)
    }

    async fn entry_gone_on_leave(&mut self, web: &Endpoint) -> Result<(), StepError> {
        self.report.begin("entry_gone_on_leave", "leaving with it");
        let (client, id) = (self.client(0), web.id.to_string());
        let endpoints = [web.id];
        let began = self.report.act();
        let (left, times) = tokio::join!(
            client.endpoint_leave(NETWORK, &id),
            self.until_entries(0, &endpoints, Want::Gone, CHANGE_MAX)
        );
        call("endpoint leave", left)?;
        self.tell_seen(&format!(
            "web left; gone from {}",
            show_times(&times?, began)
        ))
    }

    async fn entries_gone_on_kill(&mut self) -> Result<[EndpointId; 2], StepError> {
        self.report.begin(
            "entries_gone_on_kill",
            "two endpoints on n3, then kill -9 n3",
        );
        let db = self.create(2, "db").await?;
        let cache = self.create(2, "cache").await?;
        let pair = [self.join(2, &db).await?.id, self.join(2, &cache).await?.id];
        self.until_entries(2, &pair, Want::There, CHANGE_MAX)
            .await?;
        let began = self.report.act();
        self.nodes.kill(2).await?;
        let times = self.until_entries(2, &pair, Want::Gone, DETECT_MAX).await?;
        self.tell_seen(&format!(
            "n3 killed; both entries gone from {}",
            show_times(&times, began)
        ))?;
        Ok(pair)
    }

    async fn entries_back(&mut self, pair: &[EndpointId; 2]) -> Result<(), StepError> {
        self.report.begin("entries_back", "starting n3 again");
        let began = self.report.act();
        self.nodes.start(2, &Entrance::Again)?;
        let times = self.until_entries(2, pair, Want::There, START_MAX).await?;
        self.tell_seen(&format!(
            "n3 started; both entries back on {}",
            show_times(&times, began)
        ))
    }

    async fn leader_failover(&mut self) -> Result<(), StepError> {
        self.report.begin(
            "leader_failover",
            "kill -9 the leader, asking another node for a network until it is there",
        );
        self.status_once_ready(2, Patience::calm(START_MAX)).await?;
        let leader = self.settled_leader(Patience::calm(AGREE_MAX)).await?;
        let asked = self.others(leader)[0];
        self.report.act();
        self.nodes.kill(leader).await?;
        let network = self.create_at_last(asked, "after").await?;
        self.until_listed(&network, AGREE_MAX).await?;
        let new = self
            .settled_leader_but(Patience::calm(AGREE_MAX), leader)
            .await?;
        let name = |place: usize| self.nodes.get(place).name.as_str();
        let told = format!(
            "{} killed, {} leads; asked {}: {}",
            name(leader),
            name(new),
            name(asked),
            describe(&network)
        );
        self.tell_seen(&told)
    }

    /// Asks for a network until the answer is no longer that the cluster cannot agree now.
    async fn create_at_last(&mut self, asked: usize, called: &str) -> Result<Network, StepError> {
        let client = self.client(asked);
        let wish = CreateNetwork::overlay(name(called));
        let patience = Patience::calm(AGREE_MAX);
        loop {
            self.nodes.check()?;
            let last = match client.network_create(&wish).await {
                Ok(network) => return Ok(network),
                // An attempt whose answer was lost was carried out after all.
                Err(ClientError::Refused(failure)) if failure.code == Code::NetworkExists => {
                    let listed = call("network ls", client.networks().await)?;
                    let found = listed.into_iter().find(|network| network.name == wish.name);
                    match found {
                        Some(network) => return Ok(network),
                        None => failure.message,
                    }
                }
                Err(error) if passes(&error) => error.to_string(),
                Err(error) => return call("network create", Err(error)),
            };
            patience.wait(|| last).await?;
        }
    }

    async fn until_listed(&mut self, network: &Network, within: Duration) -> Result<(), StepError> {
        let listed = |client: Client| async move {
            let networks = client.networks().await?;
            let count = networks.len();
            Ok(seen(networks.contains(network), || {
                format!("{count} networks, not this one")
            }))
        };
        let running = self.nodes.running();
        look::until(self.nodes, &running, Patience::keen(within), listed).await?;
        Ok(())
    }

    /// Looks at all nodes but the one whose endpoints they are.
    async fn until_entries(
        &mut self,
        of: usize,
        endpoints: &[EndpointId],
        want: Want,
        within: Duration,
    ) -> Result<Vec<(String, Instant)>, StepError> {
        let others = self.others(of);
        let look = |client| look::entries(client, NETWORK, endpoints, want);
        look::until(self.nodes, &others, Patience::keen(within), look).await
    }

    async fn status_once_ready(
        &mut self,
        place: usize,
        patience: Patience,
    ) -> Result<Status, StepError> {
        let ready = |client: Client| async move {
            let status = client.status().await?;
            Ok(seen(status.ready, || "the node is not ready".to_owned()))
        };
        look::until(self.nodes, &[place], patience, ready).await?;
        call("status", self.client(place).status().await)
    }

    /// Waits until every node names the same leader, and every voter has all that the leader's log has, so that one may be lost.
    async fn settled_leader(&mut self, patience: Patience) -> Result<usize, StepError> {
        let settled = |client: Client| async move {
            let status = client.status().await?;
            let raft = &status.raft;
            let follows = raft.voters.len() == VOTERS && raft.applied == raft.last_log;
            let votes = raft.voters.contains(&status.node);
            Ok(seen(status.leader.is_some() && (follows || !votes), || {
                let (voters, applied, last) = (raft.voters.len(), raft.applied, raft.last_log);
                format!(
                    "leader {:?}, {voters} voters, {applied} of {last} applied",
                    status.leader
                )
            }))
        };
        loop {
            let running = self.nodes.running();
            look::until(self.nodes, &running, patience, settled).await?;
            let mut leaders = Vec::new();
            let mut voters = Vec::new();
            for place in &running {
                let status = call("status", self.client(*place).status().await)?;
                leaders.push(status.leader);
                if status.leader == Some(status.node) {
                    voters = status.raft.voters;
                }
            }
            leaders.dedup();
            if let [Some(leader)] = leaders[..]
                && let Some(place) = self.places.get(&leader)
                && running.contains(place)
                && voters.len() == VOTERS
            {
                return Ok(*place);
            }
            patience
                .wait(|| format!("leaders {leaders:?}, {} voters", voters.len()))
                .await?;
        }
    }

    async fn settled_leader_but(
        &mut self,
        patience: Patience,
        dead: usize,
    ) -> Result<usize, StepError> {
        let leader = self.settled_leader(patience).await?;
        if leader == dead {
            let name = &self.nodes.get(dead).name;
            return Err(StepError::Wrong(format!("{name} is dead and still leads")));
        }
        Ok(leader)
    }

    async fn create(&self, place: usize, endpoint: &str) -> Result<Endpoint, StepError> {
        let wish = CreateEndpoint {
            name: name(endpoint),
            address: None,
            second_address: None,
        };
        let created = self.client(place).endpoint_create(NETWORK, &wish).await;
        call("endpoint create", created)
    }

    async fn join(&self, place: usize, endpoint: &Endpoint) -> Result<Endpoint, StepError> {
        let id = endpoint.id.to_string();
        let joined = self.client(place).endpoint_join(NETWORK, &id).await;
        call("endpoint join", joined)
    }

    fn client(&self, place: usize) -> Client {
        self.nodes.get(place).client.clone()
    }

    /// Returns the nodes that run, but one.
    fn others(&self, but: usize) -> Vec<usize> {
        let mut running = self.nodes.running();
        running.retain(|place| *place != but);
        running
    }

    fn tell_seen(&mut self, what: &str) -> Result<(), StepError> {
        self.report.seen(what).map_err(|source| StepError::Machine {
            what: "cannot tell the story".to_owned(),
            source,
        })
    }
}

/// Returns whether asking again may help.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(failure) => failure.code.exit() == Exit::Unavailable,
        ClientError::TimedOut { .. } => true,
        ClientError::NoDaemon { .. }
        | ClientError::Denied { .. }
        | ClientError::Broken { .. }
        | ClientError::Foreign { .. } => false,
    }
}

fn call<T>(what: &str, answer: Result<T, ClientError>) -> Result<T, StepError> {
    answer.map_err(|source| StepError::Call {
        what: what.to_owned(),
        source,
    })
}

fn name(text: &str) -> Name {
    Name::new(text).expect("the story's names keep to a name's letters and length")
}

fn describe(network: &Network) -> String {
    let subnets = network.subnets.iter().map(|subnet| match subnet.vni {
        Some(vni) => format!("subnet {}, VNI {vni}", subnet.prefix),
        None => format!("subnet {}", subnet.prefix),
    });
    let subnets: Vec<String> = subnets.collect();
    format!(
        "network {} has id {}, {}",
        network.name,
        network.id,
        subnets.join(", ")
    )
}

fn show_times(times: &[(String, Instant)], began: Instant) -> String {
    let shown: Vec<String> = times
        .iter()
        .map(|(name, at)| format!("{name} after {}", millis(began, *at)))
        .collect();
    shown.join(", ")
}

fn millis(from: Instant, to: Instant) -> String {
    format!("{:.1} ms", (to - from).as_secs_f64() * 1_000.0)
}
