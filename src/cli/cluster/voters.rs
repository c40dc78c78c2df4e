//! `weft cluster voters`.

use std::time::Duration;

use crate::{
    api::{
        client::Client,
        http::cluster::{Voter, VoterRole, Voters, Waits, WaitsFor, Why},
    },
    cli::{
        error::CliError,
        output::{Listing, Output, Tone},
        status::show_duration,
    },
    core::model::Name,
};

pub(super) async fn run(client: &Client, output: Output) -> Result<(), CliError> {
    let mut voters = client.voters().await?;
    let place = |voter: &Voter| match voter.role {
        VoterRole::Leader => 0,
        VoterRole::Voter => 1,
        VoterRole::Learner => 2,
        VoterRole::None => 3,
    };
    voters
        .nodes
        .sort_by_key(|voter| (place(voter), voter.name.clone(), voter.node));
    output.answer(&voters, show)?;
    Ok(())
}

fn show(voters: &Voters) -> String {
    let has_zones = voters.nodes.iter().any(|voter| voter.zone.is_some());
    let mut columns = vec!["NAME", "NODE", "ROLE", "SINCE", "STATE", "BEHIND"];
    columns.extend(has_zones.then_some("ZONE"));
    columns.push("WHY");
    let mut listing = Listing::new(&columns);
    for voter in &voters.nodes {
        let name = voter.name.as_ref().map_or("-", Name::as_str);
        let state = if voter.up { "up" } else { "down" };
        let mut cells = vec![
            name.to_owned(),
            voter.node.to_string(),
            role(voter.role).to_owned(),
            lasting(voter.role_for_ms),
            format!("{state} {}", lasting(voter.state_for_ms)),
            voter
                .behind
                .map_or("-".to_owned(), |entries| entries.to_string()),
        ];
        if has_zones {
            cells.push(voter.zone.clone().unwrap_or_else(|| "-".to_owned()));
        }
        cells.push(why(voter.why).to_owned());
        listing.row(tone(voter), cells);
    }
    let votes = voters
        .nodes
        .iter()
        .filter(|voter| matches!(voter.role, VoterRole::Leader | VoterRole::Voter));
    format!(
        "{}\n{} of {} vote in term {}; {}\n",
        listing.render(),
        votes.count(),
        voters.wanted,
        voters.term,
        waits(&voters.waits)
    )
}

fn tone(voter: &Voter) -> Tone {
    let votes = matches!(voter.role, VoterRole::Leader | VoterRole::Voter);
    match (votes, voter.up) {
        (true, false) => Tone::Bad,
        (true, true) => Tone::Plain,
        (false, _) => Tone::Faint,
    }
}

fn role(role: VoterRole) -> &'static str {
    match role {
        VoterRole::Leader => "leader",
        VoterRole::Voter => "voter",
        VoterRole::Learner => "learner",
        VoterRole::None => "-",
    }
}

fn lasting(millis: Option<u64>) -> String {
    millis.map_or("-".to_owned(), |millis| {
        show_duration(Duration::from_millis(millis))
    })
}

/// Says what the leader waits for.
pub(in crate::cli) fn waits(waits: &Waits) -> String {
    let node = match (&waits.name, waits.node) {
        (Some(name), _) => name.to_string(),
        (None, Some(node)) => node.to_string(),
        (None, None) => String::new(),
    };
    match waits.what {
        WaitsFor::Nothing => "all is as it shall be".to_owned(),
        WaitsFor::Change => "a change is being made".to_owned(),
        WaitsFor::Log => format!("waiting until {node} has the log"),
        WaitsFor::Settled => format!("waiting until {node} has been up for a while"),
        WaitsFor::Majority => "waiting for a majority of the voters: no change is safe".to_owned(),
        WaitsFor::Return => format!("{node} is down: waiting whether it comes back"),
        WaitsFor::Replacement => format!("{node} is lost: waiting for a node to take its place"),
        WaitsFor::Nodes => "waiting for more nodes".to_owned(),
        WaitsFor::Leader => "no leader: nothing can be changed".to_owned(),
        WaitsFor::Other => "waiting for something that only a newer program knows".to_owned(),
    }
}

fn why(why: Why) -> &'static str {
    match why {
        Why::Leads => "leads",
        Why::Votes => "votes",
        Why::Down => "votes; keeps its vote for a minute",
        Why::Gone => "votes; lost, is replaced once another node can vote",
        Why::Removed => "removed; loses its vote once that is safe",
        Why::Leaving => "votes; another node will in its place",
        Why::CatchingUp => "will vote once it has the log",
        Why::Settling => "will vote once it has been up for a while",
        Why::Chosen => "will vote once a majority is up",
        Why::Standby => "has the log; its vote would make the number even",
        Why::Spare => "enough others vote",
        Why::Absent => "down",
        Why::Unknown => "no leader to say",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::NodeId;

    #[test]
    fn the_table_says_who_votes_and_why_and_what_is_waited_for() {
        let voter = |node, name: &str, role, why| Voter {
            node: NodeId(node),
            name: Some(Name::new(name).unwrap()),
            role,
            role_for_ms: Some(65_000),
            up: why != Why::Down,
            state_for_ms: Some(5_000),
            behind: (role != VoterRole::None).then_some(0),
            zone: Some("a".to_owned()),
            why,
        };
        let down = NodeId(2);
        let voters = Voters {
            leader: Some(NodeId(1)),
            term: 7,
            wanted: 3,
            waits: Waits {
                what: WaitsFor::Return,
                node: Some(down),
                name: Some(Name::new("n2").unwrap()),
            },
            nodes: vec![
                voter(1, "n1", VoterRole::Leader, Why::Leads),
                voter(2, "n2", VoterRole::Voter, Why::Down),
                voter(3, "n3", VoterRole::None, Why::Spare),
            ],
        };

        let shown = show(&voters);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @"
        NAME  NODE              ROLE    SINCE      STATE     BEHIND  ZONE  WHY
        n1    0000000000000001  leader  1 min 5 s  up 5 s    0       a     leads
        n2    0000000000000002  voter   1 min 5 s  down 5 s  0       a     votes; keeps its vote for a minute
        n3    0000000000000003  -       1 min 5 s  up 5 s    -       a     enough others vote

        2 of 3 vote in term 7; n2 is down: waiting whether it comes back
        ");
    }
}
