//! `weft members` and `weft node label`: who is there, and what they say of themselves.

use std::time::Duration;

use super::{
    error::CliError,
    output::{Listing, Output, Tone},
    status::show_duration,
};
use crate::{
    api::{
        client::Client,
        http::types::{Member, MemberState},
    },
    core::model::{LabelChange, Labels, Name, UnixMillis},
    runtime::clock,
};

pub(super) async fn list(client: &Client, output: Output) -> Result<(), CliError> {
    let mut members = client.members().await?;
    members.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
    let now = clock::wall();
    output.answer(&members, |members| show_members(members, now))?;
    Ok(())
}

pub(super) async fn label(
    client: &Client,
    output: Output,
    changes: Vec<LabelChange>,
) -> Result<(), CliError> {
    let labels = if changes.is_empty() {
        client.labels().await?
    } else {
        client.labels_change(changes).await?
    };
    output.answer(&labels, show_labels)?;
    Ok(())
}

fn show_labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "no labels".to_owned();
    }
    let lines = labels.iter();
    lines
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

pub(super) fn show_members(members: &[Member], now: UnixMillis) -> String {
    let columns = [
        "NAME", "NODE", "ADDRESS", "STATE", "SINCE", "RTT", "HEALTH", "ROLE", "VERSION", "LABELS",
    ];
    let mut listing = Listing::new(&columns);
    for member in members {
        let tone = match member.state {
            MemberState::Alive => Tone::Plain,
            MemberState::Suspect => Tone::Doubtful,
            MemberState::Down => Tone::Bad,
            MemberState::Left => Tone::Faint,
        };
        let name = member.name.as_ref().map_or("-", Name::as_str);
        let here = if member.ours { " *" } else { "" };
        let role = match (member.leader, member.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "-",
        };
        listing.row(
            tone,
            vec![
                format!("{name}{here}"),
                member.node.to_string(),
                member.address.to_string(),
                show_state(member),
                show_duration(age(member.since_ms, now)),
                member.rtt_us.map_or_else(none, show_rtt),
                member
                    .health
                    .percent
                    .map_or_else(none, |share| format!("{share} %")),
                role.to_owned(),
                member.version.clone().unwrap_or_else(none),
                member.labels.to_string(),
            ],
        );
    }
    listing.render()
}

fn none() -> String {
    "-".to_owned()
}

/// Says how a member is; of one that is suspected or down, also on whose word.
pub(super) fn show_state(member: &Member) -> String {
    let state = member.state.as_str();
    let last = member.last.as_ref();
    let by = last.and_then(|last| {
        Some(
            last.by_name
                .as_ref()
                .map_or(last.by?.to_string(), Name::to_string),
        )
    });
    match (member.state, by) {
        (MemberState::Suspect | MemberState::Down, Some(by)) => format!("{state} by {by}"),
        (MemberState::Alive | MemberState::Left, Some(_)) | (_, None) => state.to_owned(),
    }
}

/// Returns how long ago that was.
pub(super) fn age(at_ms: u64, now: UnixMillis) -> Duration {
    Duration::from_millis(now.0.saturating_sub(at_ms))
}

pub(super) fn show_rtt(micros: u64) -> String {
    format!(
        "{:.2} ms",
        Duration::from_micros(micros).as_secs_f64() * 1_000.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::http::{
            members::Health,
            transitions::{Transition, What, Why},
        },
        core::model::NodeId,
    };

    #[test]
    fn the_members_table_tells_who_answers_and_who_leads() {
        let member = |node, name: &str, leader: bool, labels: &[&str]| Member {
            node: NodeId(node),
            name: Some(Name::new(name).unwrap()),
            address: "127.0.0.1:9338".parse().unwrap(),
            state: MemberState::Alive,
            since_ms: 1_000,
            last: None,
            rtt_us: leader.then_some(421),
            health: Health {
                percent: leader.then_some(93),
                ..Health::default()
            },
            boot: 1,
            rejoin: 0,
            incarnation: 0,
            version: Some("0.1.0".to_owned()),
            leader,
            voter: true,
            ours: !leader,
            labels: Labels::new(labels.iter().map(|label| label.parse().unwrap())).unwrap(),
            capabilities: Vec::new(),
        };

        let mut members = [
            member(1, "n1", true, &["zone=a", "rack=7"]),
            member(2, "n2", false, &[]),
        ];

        let shown = show_members(&members, UnixMillis(66_000));

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        NAME  NODE              ADDRESS         STATE  SINCE      RTT      HEALTH  ROLE    VERSION  LABELS
        n1    0000000000000001  127.0.0.1:9338  alive  1 min 5 s  0.42 ms  93 %    leader  0.1.0    rack=7,zone=a
        n2 *  0000000000000002  127.0.0.1:9338  alive  1 min 5 s  -        -       voter   0.1.0
        ");

        members[0].state = MemberState::Down;
        members[0].last = Some(down_by(Name::new("n2").ok()));
        assert!(show_members(&members, UnixMillis(0)).contains(" down by n2 "));
        members[0].last = Some(down_by(None));
        assert!(show_members(&members, UnixMillis(0)).contains(" down by 0000000000000002 "));
    }

    fn down_by(by_name: Option<Name>) -> Transition {
        Transition {
            revision: None,
            at_ms: 1_000,
            node: NodeId(1),
            name: None,
            what: What::Down,
            why: Why::NotRefuted,
            by: Some(NodeId(2)),
            by_name,
            state: Some(MemberState::Down),
            address: "127.0.0.1:9338".parse().unwrap(),
            moved_from: None,
            boot: 1,
            rejoin: 0,
            incarnation: 0,
        }
    }
}
