//! `weft debug …`.

use std::{collections::BTreeSet, path::Path, time::Duration};

use super::{
    args::DebugCommand,
    error::CliError,
    output::{Listing, Output, Tone},
    transitions,
    up::namespaces,
};
use crate::{
    api::{
        client::{Client, ClientError},
        http::{
            Exit,
            dataplane::{Dataplane, Item},
            members::Membership,
            types::{Code, Failure},
        },
    },
    core::model::Name,
    dataplane::{Dataplane as _, Kernel, Missing},
};

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: DebugCommand,
) -> Result<(), CliError> {
    match command {
        DebugCommand::Member { member } => transitions::inspect(client, output, &member).await,
        DebugCommand::Membership => {
            let membership = client.membership().await?;
            Ok(output.answer(&membership, show_membership)?)
        }
        DebugCommand::Dataplane { clean: true, .. } => clean(client, output).await,
        DebugCommand::Dataplane { network, .. } => {
            let all = client.dataplane(network.as_deref()).await?;
            output.answer(&all, |all| show(all))?;
            match all.iter().all(|one| one.as_desired) {
                true => Ok(()),
                false => Err(CliError::Told(Exit::Failed)),
            }
        }
    }
}

/// Removes what a daemon has left in the kernel, which is not there any more or runs without a data plane.
async fn clean(client: &Client, output: Output) -> Result<(), CliError> {
    if carries_packets(client).await? {
        let message = format!(
            "the daemon at {} carries packets: stop it first, or have it leave with `weft leave`, which cleans up itself",
            client.socket().display()
        );
        return Err(Failure::new(Code::InUse, message).into());
    }
    let place = namespaces(client.socket());
    let left = Kernel::left(&place);
    let kernel = open(&place).await?;
    let cleaned = kernel.keep_only(&BTreeSet::new()).await;
    cleaned.map_err(anyhow::Error::from)?;
    let removed = serde_json::json!({ "removed": left });
    output.answer(&removed, |_| match left.as_slice() {
        [] => "no network has anything in the kernel".to_owned(),
        left => {
            let ids: Vec<String> = left.iter().map(ToString::to_string).collect();
            format!("removed from the kernel: network {}", ids.join(", "))
        }
    })?;
    Ok(())
}

async fn carries_packets(client: &Client) -> Result<bool, CliError> {
    let overlay = Name::new("overlay").expect("letters are a name");
    match client.driver(overlay.as_str()).await {
        Ok(kinds) => Ok(kinds
            .iter()
            .any(|driver| driver.state["carries_packets"] == true)),
        Err(ClientError::NoDaemon { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn open(place: &Path) -> Result<Kernel, CliError> {
    Kernel::open(place.to_owned()).await.map_err(|missing| {
        let missing: Vec<String> = missing.iter().map(Missing::to_string).collect();
        anyhow::anyhow!(
            "the kernel cannot be cleaned up: missing {}",
            missing.join(", ")
        )
        .into()
    })
}

fn show(all: &[Dataplane]) -> String {
    match all {
        [] => "no network here has a data plane".to_owned(),
        all => all.iter().map(show_one).collect::<Vec<_>>().join("\n"),
    }
}

fn show_one(one: &Dataplane) -> String {
    let differing = one.items.iter().filter(|item| item.differs).count();
    let state = match (&one.problem, differing) {
        (Some(problem), _) => Tone::Bad.paint(problem),
        (None, 0) => Tone::Good.paint("as desired"),
        (None, count) => Tone::Bad.paint(&format!("{count} not as desired")),
    };
    let memory = match one.carries_packets {
        true => "",
        false => ", in memory only: this node carries no packets",
    };
    let mut listing = Listing::new(&["KIND", "NAME", "DESIRED", "ACTUAL"]);
    for item in &one.items {
        let tone = if item.differs { Tone::Bad } else { Tone::Plain };
        listing.row(tone, cells(item));
    }
    let name = Tone::Heading.paint(one.name.as_str());
    let last = show_last(one);
    format!("{name}: {state}{memory}\n{last}\n{}", listing.render())
}

fn cells(item: &Item) -> Vec<String> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        item.kind.as_str().to_owned(),
        item.name.clone(),
        or_none(&item.desired),
        or_none(&item.actual),
    ]
}

fn show_last(one: &Dataplane) -> String {
    let Some(last) = &one.last else {
        return "not reconciled yet".to_owned();
    };
    let ago = Duration::from_millis(last.ago_ms).as_secs_f64();
    let took = Duration::from_micros(last.took_us).as_secs_f64() * 1_000.0;
    let came = match (&last.error, last.steps) {
        (Some(error), _) => Tone::Bad.paint(error),
        (None, Some(0)) => "nothing to do".to_owned(),
        (None, steps) => format!("{} steps", steps.unwrap_or_default()),
    };
    let (count, failures) = (one.reconciliations, one.failures);
    format!(
        "reconciled {ago:.1} s ago ({}), in {took:.1} ms: {came}; {count} times since the start, {failures} failed",
        last.why
    )
}

fn show_membership(membership: &Membership) -> String {
    let mut listing = Listing::new(&["FIGURE", "VALUE", "PROFILE", "LEAST", "MOST", "WHAT"]);
    for figure in &membership.figures {
        let tone = match figure.value == figure.default {
            true => Tone::Plain,
            false => Tone::Good,
        };
        listing.row(
            tone,
            [
                &figure.name,
                &figure.value,
                &figure.default,
                &figure.least,
                &figure.most,
                &figure.what,
            ]
            .map(String::clone)
            .to_vec(),
        );
    }
    let (nodes, rides) = (membership.nodes, membership.rides);
    let profile = membership.profile.as_str();
    format!(
        "profile {profile}, tuned for {nodes} nodes: a change rides along {rides} times\n{}",
        listing.render()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::http::dataplane::{ItemKind, LastReconciliation},
        core::{
            membership::{Config, FIGURES},
            model::NetworkId,
        },
    };

    #[test]
    fn what_differs_is_shown_with_what_it_should_be() {
        let mut one = Dataplane {
            network: NetworkId(1),
            name: Name::new("app").unwrap(),
            carries_packets: true,
            as_desired: true,
            problem: None,
            items: Vec::new(),
            last: None,
            reconciliations: 2,
            steps: 5,
            failures: 1,
        };
        assert!(show(&[one.clone()]).contains("as desired"));
        one.items.push(Item {
            kind: ItemKind::Fdb,
            name: "vxlan 4096 02:00:00:00:00:02".to_owned(),
            desired: Some("192.0.2.2".to_owned()),
            actual: None,
            differs: true,
        });
        one.last = Some(LastReconciliation {
            ago_ms: 1_500,
            took_us: 2_500,
            why: "event".to_owned(),
            steps: None,
            error: Some("it was refused".to_owned()),
        });

        let shown = anstream::adapter::strip_str(&show(&[one])).to_string();

        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "app: 1 not as desired");
        assert!(lines[1].starts_with("reconciled 1.5 s ago (event), in 2.5 ms: it was refused"));
        let row: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(
            row[..],
            [
                "fdb",
                "vxlan",
                "4096",
                "02:00:00:00:00:02",
                "192.0.2.2",
                "-"
            ]
        );
    }

    #[test]
    fn the_guide_shows_every_figure_with_its_profiles_and_bounds() {
        let guide = include_str!("../../docs/membership.md");
        let profiles = [Config::lan(), Config::wan(), Config::local()];
        for figure in &FIGURES {
            let values = profiles
                .each_ref()
                .map(|config| figure.value(config).to_string());
            let row = format!(
                "| `{}` | {} | {} to {} | {} |",
                figure.name,
                values.join(" | "),
                figure.least,
                figure.most,
                figure.what
            );
            assert!(guide.contains(&row), "{row}");
        }
    }
}
