//! `weft members` and `weft node label`: who is there, and what they say of themselves.

use super::{
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::{
    api::{
        client::Client,
        http::types::{Member, MemberState},
    },
    core::model::{LabelChange, Labels, Name},
};

pub(super) async fn list(client: &Client, output: Output) -> Result<(), CliError> {
    let mut members = client.members().await?;
    members.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
    output.answer(&members, |members| show_members(members))?;
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

fn show_members(members: &[Member]) -> String {
    let columns = [
        "NAME", "NODE", "ADDRESS", "STATE", "ROLE", "VERSION", "LABELS",
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
                member.state.as_str().to_owned(),
                role.to_owned(),
                member.version.clone().unwrap_or_else(|| "-".to_owned()),
                member.labels.to_string(),
            ],
        );
    }
    listing.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::NodeId;

    #[test]
    fn the_members_table_tells_who_answers_and_who_leads() {
        let member = |node, name: &str, leader, labels: &[&str]| Member {
            node: NodeId(node),
            name: Some(Name::new(name).unwrap()),
            address: "127.0.0.1:9338".parse().unwrap(),
            state: MemberState::Alive,
            version: Some("0.1.0".to_owned()),
            leader,
            voter: true,
            ours: !leader,
            labels: Labels::new(labels.iter().map(|label| label.parse().unwrap())).unwrap(),
            capabilities: Vec::new(),
        };

        let shown = show_members(&[
            member(1, "n1", true, &["zone=a", "rack=7"]),
            member(2, "n2", false, &[]),
        ]);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        NAME  NODE              ADDRESS         STATE  ROLE    VERSION  LABELS
        n1    0000000000000001  127.0.0.1:9338  alive  leader  0.1.0    rack=7,zone=a
        n2 *  0000000000000002  127.0.0.1:9338  alive  voter   0.1.0
        ");
    }
}
