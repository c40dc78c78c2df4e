//! `weft status`, `token` and `leave`: the node and its cluster.

use std::{collections::BTreeMap, time::Duration};

use super::{
    cluster::waits,
    error::CliError,
    output::{Output, Tone},
};
use crate::{
    api::{
        client::Client,
        http::{
            Exit,
            cluster::{Voter, VoterRole, Voters, WaitsFor},
            types::{Certificate, DockerEngine, Left, Member, RaftStatus, Status, SyncState},
        },
    },
    core::model::{Name, NodeId},
};

pub(super) async fn status(client: &Client, output: Output, check: bool) -> Result<(), CliError> {
    let status = client.status().await?;
    let (names, voters) = if output.is_json() {
        (Names::default(), None)
    } else {
        // What the leader says of the voters is worth a line, and nothing without it.
        (
            Names::of(&client.members().await?),
            client.voters().await.ok(),
        )
    };
    output.answer(&status, |status| {
        show_status(status, &names, voters.as_ref())
    })?;
    if !check {
        return Ok(());
    }
    if !(status.ready && status.leader.is_some()) {
        return Err(CliError::Told(Exit::Unavailable));
    }
    match status.docker {
        Some(docker) if !docker.problems.is_empty() => Err(CliError::Told(Exit::Conflict)),
        Some(_) | None => Ok(()),
    }
}

pub(super) async fn token(client: &Client, output: Output, rotate: bool) -> Result<(), CliError> {
    let token = if rotate {
        client.token_rotate().await?
    } else {
        client.token().await?
    };
    output.answer(&token, |token| token.token.clone())?;
    Ok(())
}

pub(super) async fn leave(client: &Client, output: Output, force: bool) -> Result<(), CliError> {
    let left = client.leave(force).await?;
    output.answer(&left, show_left)?;
    Ok(())
}

/// Names of nodes, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<NodeId, Name>);

impl Names {
    /// Takes the names of the members.
    pub(super) fn of(members: &[Member]) -> Self {
        let named = |member: &Member| Some((member.node, member.name.clone()?));
        Self(members.iter().filter_map(named).collect())
    }

    /// Returns the node's name, or its id.
    pub(super) fn show(&self, node: NodeId) -> String {
        self.0
            .get(&node)
            .map_or_else(|| node.to_string(), Name::to_string)
    }
}

fn show_trust(status: &Status) -> String {
    let shown = status.certificate.as_ref().map(show_certificate);
    shown.unwrap_or_else(|| "unknown".to_owned())
}

/// Says how long a certificate is valid and who signed it.
pub(super) fn show_certificate(certificate: &Certificate) -> String {
    let authority: String = certificate.authority.chars().take(16).collect();
    let Ok(left) = u64::try_from(certificate.left_s) else {
        let run_out = Tone::Bad.paint("has run out: start the node with --join and --token");
        return format!("the certificate of authority {authority} {run_out}");
    };
    let left = show_duration(Duration::from_secs(left));
    format!("certificate of authority {authority}, valid for {left}")
}

fn show_status(status: &Status, names: &Names, voters: Option<&Voters>) -> String {
    let readiness = if status.ready {
        Tone::Good.paint("ready")
    } else {
        Tone::Doubtful.paint("not ready")
    };
    let leader = match status.leader {
        Some(leader) => names.show(leader),
        None => Tone::Bad.paint("none: nothing new can be agreed"),
    };
    let up = show_duration(Duration::from_millis(status.uptime_ms));
    let docker = status.docker.as_ref().map(show_docker);
    let docker = docker.map(|docker| ("docker", docker));
    let lines = [
        (
            "node",
            format!("{} {}, {readiness}, up {up}", status.name, status.node),
        ),
        ("cluster", show_cluster(status)),
        ("address", status.address.to_string()),
        ("version", status.version.clone()),
        ("leader", leader),
        (
            "raft",
            format!("{}, term {}", status.raft.role, status.raft.term),
        ),
        ("voters", show_voters(&status.raft, names, voters)),
        (
            "members",
            show_counts(&[
                (status.members.alive, "alive"),
                (status.members.suspect, "suspect"),
                (status.members.down, "down"),
            ]),
        ),
        (
            "networks",
            show_counts(&[
                (status.networks.ready, "ready"),
                (status.networks.pending, "pending"),
                (status.networks.removing, "removing"),
            ]),
        ),
        (
            "entries",
            show_counts(&[
                (status.sync.synced, "synced"),
                (status.sync.syncing, "syncing"),
                (status.sync.degraded, "degraded"),
            ]),
        ),
        ("endpoints", status.endpoints.to_string()),
        ("trust", show_trust(status)),
    ];
    lines
        .iter()
        .chain(&docker)
        .map(|(what, text)| format!("{}  {text}\n", Tone::Heading.paint(&format!("{what:<9}"))))
        .collect()
}

/// Says which engine it is, and what is amiss with it, a line each.
fn show_docker(docker: &DockerEngine) -> String {
    let engine = match &docker.version {
        Some(version) => format!("engine {version}"),
        None => Tone::Doubtful.paint("no engine answers"),
    };
    let untested = docker.untested.iter();
    let untested = untested.map(|what| Tone::Doubtful.paint(what));
    let problems = docker.problems.iter();
    let problems = problems.map(|what| Tone::Bad.paint(what));
    let mut all = vec![engine];
    all.extend(untested.chain(problems));
    all.join("\n           ")
}

/// Says who votes as the leader knows it, else as this node does.
fn show_voters(raft: &RaftStatus, names: &Names, voters: Option<&Voters>) -> String {
    let votes = |voter: &&Voter| matches!(voter.role, VoterRole::Leader | VoterRole::Voter);
    let nodes: Vec<String> = match voters {
        Some(voters) => {
            let voting = voters.nodes.iter().filter(votes);
            voting.map(|voter| names.show(voter.node)).collect()
        }
        None => raft.voters.iter().map(|node| names.show(*node)).collect(),
    };
    let waits = match voters {
        Some(voters) if voters.waits.what != WaitsFor::Nothing => {
            format!("; {}", waits(&voters.waits))
        }
        Some(_) | None => String::new(),
    };
    format!("{}{waits}", or_none(&nodes))
}

fn show_cluster(status: &Status) -> String {
    let state = match status.cluster_sync {
        Some(state @ SyncState::Synced) => Tone::Good.paint(state.as_str()),
        Some(state @ SyncState::Syncing) => Tone::Doubtful.paint(state.as_str()),
        Some(state @ SyncState::Degraded) => Tone::Bad.paint(state.as_str()),
        None => return status.cluster.to_string(),
    };
    format!("{}, {state}", status.cluster)
}

/// Returns the counts that are not zero; the first one always.
fn show_counts(counts: &[(u64, &str)]) -> String {
    let shown = counts
        .iter()
        .enumerate()
        .filter(|(place, (count, _))| *place == 0 || *count > 0);
    let words: Vec<String> = shown
        .map(|(_, (count, word))| format!("{count} {word}"))
        .collect();
    words.join(", ")
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() {
        "unknown".to_owned()
    } else {
        words.join(", ")
    }
}

fn show_left(left: &Left) -> String {
    let rest = match left.remaining {
        0 => "it was the last member, so the cluster is no more".to_owned(),
        1 => "1 member remains".to_owned(),
        more => format!("{more} members remain"),
    };
    format!(
        "node {} has left cluster {}: {rest}. The data directory is empty and the daemon ends.",
        left.node, left.cluster
    )
}

pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_amiss_with_an_engine_has_a_line_each() {
        let docker = DockerEngine {
            version: Some("20.10.24".to_owned()),
            untested: Some("it is newer".to_owned()),
            problems: vec!["network db: another".to_owned(), "a swarm".to_owned()],
        };
        let plain =
            |docker: &DockerEngine| anstream::adapter::strip_str(&show_docker(docker)).to_string();

        let lines: Vec<String> = plain(&docker)
            .lines()
            .map(|line| line.trim().to_owned())
            .collect();

        let expected = [
            "engine 20.10.24",
            "it is newer",
            "network db: another",
            "a swarm",
        ];
        assert_eq!(lines, expected);
        assert_eq!(plain(&DockerEngine::default()), "no engine answers");
    }

    #[test]
    fn a_duration_is_told_in_its_two_greatest_units() {
        for (seconds, shown) in [
            (5, "5 s"),
            (65, "1 min 5 s"),
            (3_700, "1 h 1 min"),
            (200_000, "2 d 7 h"),
        ] {
            assert_eq!(show_duration(Duration::from_secs(seconds)), shown);
        }
    }
}
