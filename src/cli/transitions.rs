//! `weft members --watch` and `weft debug member`: what became of the members, and why.

use super::{
    error::CliError,
    members::{age, show_members, show_rtt, show_state},
    output::{Listing, Output, Tone},
    status::show_duration,
};
use crate::{
    api::{
        client::Client,
        http::{
            members::MemberDetail,
            transitions::{MemberEvent, Transition, What, Why},
            types::Member,
        },
    },
    core::model::{Name, UnixMillis},
    runtime::clock,
};

/// Tells what becomes of the members, until ctrl-C.
pub(super) async fn watch(
    client: &Client,
    output: Output,
    from: Option<u64>,
) -> Result<(), CliError> {
    let mut watch = client.watch_members(from).await?;
    let mut listed: Vec<Member> = Vec::new();
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            pressed = tokio::signal::ctrl_c() => return Ok(pressed?),
        };
        let Some(event) = event else {
            return Err(anyhow::anyhow!("the daemon ended the watch").into());
        };
        let event = event?;
        if let MemberEvent::Member(member) = &event
            && !output.is_json()
        {
            // People are shown the members in one table.
            listed.push((**member).clone());
            continue;
        }
        output.each(&event, |event| {
            show_event(event, std::mem::take(&mut listed))
        })?;
    }
}

/// Shows a member and what became of it.
pub(super) async fn inspect(client: &Client, output: Output, which: &str) -> Result<(), CliError> {
    let found = client.member(which).await?;
    let now = clock::wall();
    output.answer(&found, |found| show_detail(found, now))?;
    Ok(())
}

fn show_event(event: &MemberEvent, listed: Vec<Member>) -> String {
    match event {
        MemberEvent::Synced { .. } if !listed.is_empty() => {
            let table = show_members(&listed, clock::wall());
            table.trim_end().to_owned()
        }
        MemberEvent::Transition(transition) => show_transition(transition),
        MemberEvent::Lagged => {
            Tone::Bad.paint("-- more became of the members than could be told; as they are now: --")
        }
        MemberEvent::Synced { revision } => {
            Tone::Faint.paint(&format!("-- after revision {revision}: --"))
        }
        MemberEvent::Member(member) => member.node.to_string(),
    }
}

fn show_transition(transition: &Transition) -> String {
    let what = format!("{:<9}", transition.what.as_str());
    let name = name(transition);
    let (time, why) = (show_time(transition.at_ms), reason(transition));
    let faint = |text: &str| Tone::Faint.paint(text);
    let revision = transition.revision.map_or_else(String::new, |revision| {
        faint(&format!("  (revision {revision})"))
    });
    let what = tone(transition.what).paint(&what);
    format!("{} {what} {name}: {why}{revision}", faint(&time))
}

fn tone(what: What) -> Tone {
    match what {
        What::Joined | What::Refuted | What::Returned => Tone::Good,
        What::Suspected | What::Restarted => Tone::Doubtful,
        What::Down => Tone::Bad,
        What::Left | What::Forgotten => Tone::Faint,
    }
}

fn name(transition: &Transition) -> String {
    let name = transition.name.as_ref();
    name.map_or_else(|| transition.node.to_string(), Name::to_string)
}

/// Says why it happened, and what else has changed with it.
fn reason(transition: &Transition) -> String {
    let by = match (&transition.by_name, transition.by) {
        (Some(name), _) => name.to_string(),
        (None, Some(node)) => node.to_string(),
        (None, None) => "a list of members".to_owned(),
    };
    let is_end = transition.what == What::Down;
    let why = match transition.why {
        Why::Started => "it began".to_owned(),
        Why::SaidOfUs if transition.what == What::Returned => format!("{by} held it for down"),
        Why::SaidOfUs => format!("{by} suspected it"),
        Why::SaidItself => "it says so".to_owned(),
        Why::Told | Why::Listed => format!("{by} says so"),
        Why::NoAck => format!("{by} had no ack of a probe"),
        Why::NoAnswer => format!("{by} had no ack of a probe, and no answer on a stream"),
        Why::NotRefuted => format!("{by} suspected it, and it did not refute"),
        Why::Accused if is_end => format!("{by} holds it for down, and it did not refute"),
        Why::Accused => format!("{by} holds it for down"),
        Why::Removed => "the cluster removed it".to_owned(),
        Why::Outlived => "it was gone for long, or too many were".to_owned(),
    };
    let moved = transition.moved_from.map_or_else(String::new, |from| {
        format!("; moved from {from} to {}", transition.address)
    });
    format!("{why}{moved}")
}

/// Shows the time of day, in UTC.
fn show_time(at_ms: u64) -> String {
    let (seconds, millis) = (at_ms / 1_000, at_ms % 1_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}Z", seconds % 60)
}

fn show_detail(found: &MemberDetail, now: UnixMillis) -> String {
    let member = &found.member;
    let since = show_duration(age(member.since_ms, now));
    let lines = [
        ("node", member.node.to_string()),
        ("address", member.address.to_string()),
        ("state", format!("{}, for {since}", show_state(member))),
        ("answers", show_answers(member)),
        (
            "life",
            format!(
                "boot {}, rejoin {}, incarnation {}",
                member.boot, member.rejoin, member.incarnation
            ),
        ),
        (
            "version",
            member.version.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        (
            "labels",
            match member.labels.is_empty() {
                true => "-".to_owned(),
                false => member.labels.to_string(),
            },
        ),
    ];
    let lines: String = lines
        .iter()
        .map(|(what, text)| format!("{}  {text}\n", Tone::Heading.paint(&format!("{what:<7}"))))
        .collect();
    let mut listing = Listing::new(&["AGO", "TIME", "WHAT", "LIFE", "WHY"]);
    for transition in &found.history {
        let life = (transition.boot, transition.rejoin, transition.incarnation);
        listing.row(
            tone(transition.what),
            vec![
                show_duration(age(transition.at_ms, now)),
                show_time(transition.at_ms),
                transition.what.as_str().to_owned(),
                format!("{}.{}.{}", life.0, life.1, life.2),
                reason(transition),
            ],
        );
    }
    let dropped = match found.dropped {
        0 => String::new(),
        count => format!("{count} earlier ones are not kept\n"),
    };
    let name = member.name.as_ref();
    let name = name.map_or_else(|| member.node.to_string(), Name::to_string);
    let heading = Tone::Heading.paint(&name);
    format!("{heading}\n{lines}\n{}{dropped}", listing.render())
}

fn show_answers(member: &Member) -> String {
    let health = &member.health;
    if member.ours {
        return "this is the node that you ask".to_owned();
    }
    if health.probes == 0 {
        return "not probed yet".to_owned();
    }
    let rtt = member.rtt_us.map_or_else(String::new, |rtt| {
        format!(
            "; RTT {}, varies by {}",
            show_rtt(rtt),
            show_rtt(health.rtt_variation_us)
        )
    });
    format!(
        "{} of the last {} probes directly, {} through others, {} on a stream, {} not{rtt}",
        health.direct, health.probes, health.through, health.stream, health.missed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::http::{members::Health, types::MemberState},
        core::model::{Labels, NodeId},
    };

    fn transition(what: What, why: Why) -> Transition {
        Transition {
            revision: Some(7),
            at_ms: 1_764_445_311_042,
            node: NodeId(3),
            name: Name::new("n3").ok(),
            what,
            why,
            by: Some(NodeId(1)),
            by_name: Name::new("n1").ok(),
            state: Some(MemberState::Alive),
            address: "10.0.0.3:9338".parse().unwrap(),
            moved_from: None,
            boot: 1_764_445_300,
            rejoin: 0,
            incarnation: 1,
        }
    }

    #[test]
    fn a_transition_is_one_line_that_says_what_happened_and_why() {
        let moved = Transition {
            moved_from: "10.0.0.9:9338".parse().ok(),
            ..transition(What::Returned, Why::SaidItself)
        };
        let listed = Transition {
            by: None,
            by_name: None,
            ..transition(What::Joined, Why::Listed)
        };
        for (transition, said) in [
            (
                transition(What::Suspected, Why::NoAnswer),
                "suspected n3: n1 had no ack of a probe, and no answer on a stream",
            ),
            (
                transition(What::Down, Why::Accused),
                "down      n3: n1 holds it for down, and it did not refute",
            ),
            (
                transition(What::Refuted, Why::SaidOfUs),
                "refuted   n3: n1 suspected it",
            ),
            (
                moved,
                "returned  n3: it says so; moved from 10.0.0.9:9338 to 10.0.0.3:9338",
            ),
            (listed, "joined    n3: a list of members says so"),
        ] {
            let shown = show_event(&MemberEvent::Transition(transition), Vec::new());

            let shown = anstream::adapter::strip_str(&shown).to_string();
            assert_eq!(shown, format!("19:41:51.042Z {said}  (revision 7)"));
        }
    }

    #[test]
    fn a_member_is_shown_with_all_that_became_of_it() {
        let found = MemberDetail {
            member: Member {
                node: NodeId(3),
                name: Name::new("n3").ok(),
                address: "10.0.0.3:9338".parse().unwrap(),
                state: MemberState::Down,
                since_ms: 1_764_445_311_042,
                last: Some(transition(What::Down, Why::NotRefuted)),
                rtt_us: Some(421),
                health: Health {
                    percent: Some(87),
                    rtt_variation_us: 90,
                    probes: 16,
                    direct: 14,
                    through: 1,
                    stream: 0,
                    missed: 1,
                },
                boot: 1_764_445_300,
                rejoin: 0,
                incarnation: 1,
                version: None,
                leader: false,
                voter: false,
                ours: false,
                labels: Labels::new(["zone=a".parse().unwrap()]).unwrap(),
                capabilities: Vec::new(),
            },
            history: vec![
                transition(What::Suspected, Why::NoAck),
                transition(What::Down, Why::NotRefuted),
            ],
            dropped: 2,
        };

        let shown = show_detail(&found, UnixMillis(1_764_445_314_042));

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        n3
        node     0000000000000003
        address  10.0.0.3:9338
        state    down by n1, for 3 s
        answers  14 of the last 16 probes directly, 1 through others, 0 on a stream, 1 not; RTT 0.42 ms, varies by 0.09 ms
        life     boot 1764445300, rejoin 0, incarnation 1
        version  -
        labels   zone=a

        AGO  TIME           WHAT       LIFE            WHY
        3 s  19:41:51.042Z  suspected  1764445300.0.1  n1 had no ack of a probe
        3 s  19:41:51.042Z  down       1764445300.0.1  n1 suspected it, and it did not refute
        2 earlier ones are not kept
        ");
    }
}
