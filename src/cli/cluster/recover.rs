//! `weft cluster recover`: the last resort, on the data directory of a node that is stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use rand::RngExt;
use serde::Serialize;

use crate::{
    api::http::types::{Code, Failure},
    cli::{error::CliError, init, output::Output},
    config::{Config, Host, Layer},
    core::model::{Hlc, Name, NodeId},
    raft::{RecoverError, Recovery},
    runtime::clock,
    store::Store,
};

/// What a recovery does, or did.
#[derive(Debug, Serialize)]
struct Recovered {
    /// The node that is the only voter.
    node: NodeId,
    name: Name,
    /// How far its log goes.
    term: u64,
    index: u64,
    networks: usize,
    leases: usize,
    /// Who is, or was, removed from the cluster.
    removed: Vec<Other>,
    /// Who stays, and gets the log again.
    kept: Vec<Other>,
    /// Whether there was anything to recover from.
    needed: bool,
    /// Whether it was done.
    done: bool,
}

#[derive(Debug, Serialize)]
struct Other {
    node: NodeId,
    name: Option<Name>,
}

pub(super) async fn run(
    data_dir: Option<PathBuf>,
    keep: &[String],
    yes: bool,
    output: Output,
) -> Result<(), CliError> {
    let layer = Layer {
        data_dir,
        ..Layer::default()
    };
    let config = Config::resolve(layer, &Host::here())?;
    if !config.data_dir.is_dir() {
        return Err(nothing(&config));
    }
    let store = init::open(&config.data_dir).await?;
    let Some(identity) = store.identity()? else {
        return Err(nothing(&config));
    };
    let found = Recovery::look(&store, identity.node).map_err(refused)?;
    let keep = kept(&found, keep)?;
    let mut answer = describe(&found, identity.name, &keep);
    if !found.is_done() && yes {
        perform(found, &store, &keep)?;
        answer.done = true;
    }
    output.answer(&answer, show)?;
    if answer.needed && !answer.done {
        let message = "nothing was done: say it again with --yes once you are sure that the others never come back";
        return Err(CliError::Usage(message.to_owned()));
    }
    Ok(())
}

fn nothing(config: &Config) -> CliError {
    CliError::Usage(format!(
        "{} is no data directory of a node: give the one of a surviving voter with --data-dir",
        config.data_dir.display()
    ))
}

fn refused(error: RecoverError) -> CliError {
    let code = match error {
        RecoverError::Store(store) => return store.into(),
        RecoverError::Load(_) | RecoverError::Hole(_) => Code::Failed,
        RecoverError::NoLog | RecoverError::NoVoter(_) => Code::Invalid,
        RecoverError::Removed => Code::Removed,
        RecoverError::NotVoting(_) => Code::NoSuchMember,
    };
    Failure::new(code, error.to_string()).into()
}

/// Finds who is meant to stay.
fn kept(found: &Recovery, named: &[String]) -> Result<BTreeSet<NodeId>, CliError> {
    let members = found.state().members();
    let find = |text: &String| {
        let id = text.parse::<NodeId>().ok();
        let mut others = found.others().iter();
        let other = others.find(|node| {
            let name = members.get(node).map(|member| member.name.as_str());
            id == Some(**node) || name == Some(text.as_str())
        });
        other.copied().ok_or_else(|| {
            let message = format!("{text} is none of the other voters: it needs not be kept");
            CliError::from(Failure::new(Code::NoSuchMember, message))
        })
    };
    named.iter().map(find).collect()
}

fn describe(found: &Recovery, name: Name, keep: &BTreeSet<NodeId>) -> Recovered {
    let state = found.state();
    let names: BTreeMap<NodeId, Name> = state
        .members()
        .iter()
        .map(|(node, member)| (*node, member.name.clone()))
        .collect();
    let of = |kept: bool| -> Vec<Other> {
        let others = found.others().iter().copied();
        let such = others.filter(|node| keep.contains(node) == kept);
        let other = |node| Other {
            node,
            name: names.get(&node).cloned(),
        };
        such.map(other).collect()
    };
    let (term, index) = found.reach();
    Recovered {
        node: found.node(),
        name,
        term,
        index,
        networks: state.networks().len(),
        leases: state.blocks().count(),
        removed: of(false),
        kept: of(true),
        needed: !found.is_done(),
        done: false,
    }
}

fn perform(found: Recovery, store: &Store, keep: &BTreeSet<NodeId>) -> Result<(), CliError> {
    let at = Hlc::default().tick(clock::wall());
    let request = clock::entropy().random::<u128>();
    found.perform(store, keep, (at, request)).map_err(refused)?;
    Ok(())
}

fn show(recovered: &Recovered) -> String {
    let Recovered { name, node, .. } = recovered;
    if !recovered.needed {
        return format!("{name} ({node}) is the only voter already: there is nothing to recover");
    }
    let has = format!(
        "its log goes to term {}, entry {}: {} networks, {} leases",
        recovered.term, recovered.index, recovered.networks, recovered.leases
    );
    if recovered.done {
        return format!(
            "{name} ({node}) is the only voter now, {has}\nremoved from the cluster: {}\n{}\nstart it with `weft up`; other nodes get a vote again by themselves",
            names(&recovered.removed),
            stays(&recovered.kept)
        );
    }
    format!(
        "{name} ({node}) would be the only voter; {has}\nit would remove from the cluster: {}\n{}",
        names(&recovered.removed),
        stays(&recovered.kept)
    )
}

fn stays(kept: &[Other]) -> String {
    if kept.is_empty() {
        return "all other members stay".to_owned();
    }
    format!("{} and all other members stay", names(kept))
}

fn names(others: &[Other]) -> String {
    let shown: Vec<String> = others
        .iter()
        .map(|other| match &other.name {
            Some(name) => format!("{name} ({})", other.node),
            None => other.node.to_string(),
        })
        .collect();
    if shown.is_empty() {
        "nobody".to_owned()
    } else {
        shown.join(", ")
    }
}
