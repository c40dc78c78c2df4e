//! What `weft members` and its kin tell of nodes, and that it is true.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use cluster_tests::cluster::{Cluster, Node, Profile, Seen, run};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};
use weft::{
    api::http::{
        members::{MemberDetail, Membership},
        transitions::{MemberEvent, Transition, What, Why},
        types::{Member, MemberState},
    },
    core::model::Labels,
};

use crate::WEFT;

/// How long what becomes of a member may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn labels_are_seen_everywhere_and_go_with_their_node() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let mut up = cluster[2].up();
    up.args(["--label", "zone=c,rack=7"]);
    cluster[2].stop().await?;
    cluster[2].start_as(up)?;
    cluster.until_members(3).await?;
    until_labels(&cluster, "rack=7,zone=c").await?;

    let set = cluster[2]
        .run(&["node", "label", "zone=d", "rack-"])
        .await?;

    assert_eq!(set.done()?.trim(), "zone=d");
    until_labels(&cluster, "zone=d").await?;
    let listed = cluster[0].run(&["members"]).await?;
    let listed = listed.done()?;
    let line = listed.lines().find(|line| line.starts_with("n3 "));
    assert!(line.is_some_and(|line| line.contains("zone=d")), "{listed}");

    // What was set is there after a restart; what only the command line gave is not.
    cluster[2].stop().await?;
    cluster[2].start()?;
    cluster.until_members(3).await?;
    let json = cluster[2].run(&["node", "label", "--json"]).await?;
    let labels: Labels = serde_json::from_str(json.done()?)?;
    assert_eq!(labels.to_string(), "zone=d");
    let json = cluster[2]
        .run(&["node", "label", "disk=ssd", "--json"])
        .await?;
    json.done()?;
    cluster[2].stop().await?;
    cluster[2].start()?;
    cluster.until_members(3).await?;
    until_labels(&cluster, "disk=ssd,zone=d").await?;

    cluster[0].client().member_remove("n3", true).await?;
    cluster
        .until_on(&[0, 1], "the labels are gone", async |node| {
            let left = of_n3(node).await?.map(|member| member.labels);
            let gone = left.as_ref().is_none_or(Labels::is_empty);
            Ok(Seen::when(gone, || format!("{left:?}")))
        })
        .await?;
    let ended = cluster[2].until_ended().await?;
    assert_eq!(ended.code(), Some(5));
    cluster.end().await
}

async fn until_labels(cluster: &Cluster, wanted: &str) -> anyhow::Result<()> {
    let what = format!("n3 has {wanted}");
    cluster
        .until_on(&[0, 1, 2], &what, async |node| {
            let labels = of_n3(node).await?.map(|member| member.labels.to_string());
            Ok(Seen::when(labels.as_deref() == Some(wanted), || {
                format!("{labels:?}")
            }))
        })
        .await
}

async fn of_n3(node: &Node) -> anyhow::Result<Option<Member>> {
    let members = node.client().members().await?;
    let named = |member: &Member| {
        member
            .name
            .as_ref()
            .is_some_and(|name| name.as_str() == "n3")
    };
    Ok(members.into_iter().find(named))
}

#[tokio::test]
async fn what_becomes_of_a_node_is_told_as_it_happens_and_kept() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(WEFT, 3).await?;
    let victim = cluster[2].id().await?;
    let mut people = Following::of(&cluster[0], &["members", "--watch"])?;
    let mut programs = Following::of(&cluster[0], &["members", "--watch", "--json"])?;
    people.until(|line| line.starts_with("n3 ")).await?;
    programs.until(|line| line.contains("synced")).await?;

    cluster[2].kill().await?;
    let suspected = programs.transition(What::Suspected).await?;
    let down = programs.transition(What::Down).await?;
    people
        .until(|line| line.contains(" down ") && line.contains(" n3: "))
        .await?;

    for transition in [&suspected, &down] {
        assert_eq!(transition.node, victim);
        assert_eq!(
            transition.name.as_ref().map(|name| name.as_str()),
            Some("n3")
        );
        let by = transition.by_name.as_ref().map(|name| name.as_str());
        assert!(matches!(by, Some("n1" | "n2")), "{transition:?}");
    }
    let listed = cluster[0].run(&["members"]).await?;
    let listed = listed.done()?;
    let line = listed.lines().find(|line| line.starts_with("n3 "));
    assert!(
        line.is_some_and(|line| line.contains(" down by n")),
        "{listed}"
    );

    cluster[2].start()?;
    cluster.until_members(3).await?;
    let returned = programs.transition(What::Returned).await?;
    assert_eq!(returned.state, Some(MemberState::Alive));
    assert!(returned.boot > down.boot);
    people.interrupt().await?;
    programs.interrupt().await?;

    // One goes on where another has ended; one that was away for too long is told so, and gets the members.
    let from = down.revision.context("no revision")?.to_string();
    let args = ["members", "--watch", "--json", "--from", &from];
    let mut resumed = Following::of(&cluster[0], &args)?;
    assert_eq!(
        resumed.transition(What::Returned).await?.revision,
        returned.revision
    );
    let mut late = Following::of(&cluster[0], &["members", "--watch", "--from", "1"])?;
    late.until(|line| line.contains("more became of the members"))
        .await?;
    late.until(|line| line.starts_with("n3 ")).await?;
    resumed.interrupt().await?;
    late.interrupt().await?;

    let shown = cluster[0].run(&["debug", "member", "n3", "--json"]).await?;
    let detail: MemberDetail = shown.json()?;
    let whats: Vec<What> = detail.history.iter().map(|one| one.what).collect();
    let ends_so = [What::Suspected, What::Down, What::Returned];
    assert!(whats.ends_with(&ends_so), "{whats:?}");
    let last = detail.member.last.map(|last| last.what);
    assert_eq!(last, Some(What::Returned));
    assert_eq!(detail.member.state, MemberState::Alive);
    let by_id = cluster[0]
        .run(&["debug", "member", &victim.to_string()])
        .await?;
    for said in ["suspected", "down", "returned"] {
        assert!(by_id.done()?.contains(said), "{}", by_id.stdout);
    }
    let own = cluster[0].run(&["debug", "member", "n1", "--json"]).await?;
    assert_eq!(own.json::<MemberDetail>()?.history[0].why, Why::Started);
    let unknown = cluster[0].run(&["debug", "member", "nobody"]).await?;
    unknown.refused(4, &["the cluster has no member nobody"])?;
    cluster.end().await
}

#[tokio::test]
async fn members_are_shown_with_the_time_that_their_probes_take() -> anyhow::Result<()> {
    let cluster = Cluster::start(WEFT, 2).await?;

    cluster
        .until_on(&[0], "n2 was probed", async |node| {
            let listed = node.run(&["members", "--json"]).await?;
            let members: Vec<Member> = listed.json()?;
            let other = members.iter().find(|member| !member.ours);
            let other = other.context("it knows only itself")?;
            let probed = other.rtt_us.is_some_and(|rtt| rtt > 0) && other.health.direct > 0;
            assert!(other.since_ms > 0 && other.version.is_some());
            Ok(Seen::when(probed, || format!("{other:?}")))
        })
        .await?;
    cluster.end().await
}

#[tokio::test]
async fn figures_of_membership_are_set_shown_and_refused_out_of_bounds() -> anyhow::Result<()> {
    let mut cluster = Cluster::empty(WEFT, Profile::Lan)?;
    let at = cluster.add()?;
    for (given, said) in [
        (
            "suspect-for=1h",
            "suspect-for may be from 50ms to 10m, and not 1h",
        ),
        ("patience=1h", "has no figure \"patience\""),
        ("copies=many", "a whole number is expected"),
    ] {
        let mut up = cluster[at].up();
        up.args(["--init", "--membership", given]);
        let ran = run(up.into(), b"").await?;
        assert_eq!(ran.code, Some(2), "{given}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{given}: {}", ran.stderr);
    }
    let mut up = cluster[at].up();
    up.args(["--init", "--membership", "probe-period=200ms"]);
    let narrow =
        "membership: probe-timeout may be from 5ms to 100ms, half of probe-period, and not 150ms";
    run(up.into(), b"").await?.refused(2, &[narrow])?;

    let mut up = cluster[at].up();
    up.args([
        "--init",
        "--membership",
        "probe-period=500ms,suspect-for=900ms",
    ]);
    cluster[at].start_as(up)?;
    cluster[at].until_ready().await?;

    let shown = cluster[at].run(&["debug", "membership", "--json"]).await?;
    let membership: Membership = shown.json()?;
    let figure = |name: &str| {
        let mut figures = membership.figures.iter();
        let found = figures.find(|figure| figure.name == name);
        found.map(|figure| (figure.value.as_str(), figure.default.as_str()))
    };
    assert_eq!(figure("probe-period"), Some(("500ms", "450ms")));
    assert_eq!(figure("suspect-for"), Some(("900ms", "700ms")));
    assert_eq!(figure("copies"), Some(("2", "2")));
    assert_eq!(membership.nodes, 1);
    let table = cluster[at].run(&["debug", "membership"]).await?;
    assert!(table.done()?.starts_with("profile lan, tuned for 1 nodes"));
    cluster.end().await
}

/// A command that goes on, and what it says.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn of(node: &Node, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = tokio::process::Command::from(node.weft());
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Self { child, lines })
    }

    async fn until(&mut self, is_it: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let told = timeout(TOLD_WITHIN, async {
            loop {
                let line = self.lines.next_line().await?;
                let line = line.context("it has ended")?;
                if is_it(&line) {
                    return anyhow::Ok(line);
                }
            }
        });
        told.await.context("not told in time")?
    }

    /// Waits until a transition is told; each line is one event.
    async fn transition(&mut self, what: What) -> anyhow::Result<Transition> {
        loop {
            let line = self.until(|_| true).await?;
            match serde_json::from_str(&line)? {
                MemberEvent::Transition(found) if found.what == what => return Ok(found),
                MemberEvent::Transition(_)
                | MemberEvent::Member(_)
                | MemberEvent::Synced { .. }
                | MemberEvent::Lagged => {}
            }
        }
    }

    /// Does what ctrl-C does, and checks that it ends well.
    async fn interrupt(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().context("it has ended")?;
        kill(Pid::from_raw(pid.try_into()?), Signal::SIGINT)?;
        let ended = timeout(TOLD_WITHIN, self.child.wait()).await??;
        ensure!(ended.success(), "it ended with {ended}");
        Ok(())
    }
}
