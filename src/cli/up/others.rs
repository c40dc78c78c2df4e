//! The others: what the disk remembers of them, whether one of them is our double, and finding them at the seeds again.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::member::{self, Member};
use crate::{
    api::http::types::{Code, Failure},
    cli::error::CliError,
    config::Seed,
    controller::says_removed,
    core::{
        membership::MemberState,
        model::NodeId,
        node::{MEMBERS_REQUEST, members_in},
        wire::codec,
    },
    runtime::{
        Handle, Stopped,
        streams::{Dialer, Service, StreamError},
    },
    store::Store,
};

/// How often the members are written to disk, at most.
const REMEMBER_EVERY: Duration = Duration::from_secs(5);
/// How long the one who may be our double, or sit at a seed's address, has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How many others are asked where this node is.
const ASKED_MAX: usize = 8;
/// How long nobody may be alive before the seeds are asked, and how often they are.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Returns the members that the disk remembers.
pub(super) fn remembered(store: &Store) -> Result<Vec<MemberState>, CliError> {
    let Some(bytes) = store.members()? else {
        return Ok(Vec::new());
    };
    Ok(codec::decode(&bytes).unwrap_or_else(|malformed| {
        tracing::warn!(%malformed, "the members on disk cannot be read");
        Vec::new()
    }))
}

/// Gives a node that starts the members that the disk remembers.
pub(super) async fn recall(handle: &Handle, remembered: Vec<MemberState>) -> Result<(), CliError> {
    let recalled = handle.apply_members(remembered).await;
    Ok(recalled.map_err(anyhow::Error::from)?)
}

/// What a node says that the cluster has removed.
pub(super) fn removed() -> CliError {
    let message = "this node was removed from the cluster: to join again, give it another --data-dir, or empty this one";
    Failure::new(Code::Removed, message).into()
}

/// Refuses to run as a node that the cluster has removed while it was away, and beside another daemon with this node's id: a
/// copied data directory.
///
/// Such a daemon is where this data directory was last, or where the others say that the node is.
pub(super) async fn refuse_double(
    dialer: &Dialer,
    member: &Member,
    remembered: &[MemberState],
) -> Result<(), CliError> {
    let node = member.identity.node;
    let (before, others): (Vec<_>, Vec<_>) = remembered
        .iter()
        .map(|state| state.identity)
        .partition(|it| it.node == node);
    let asked = others.iter().take(ASKED_MAX).map(|other| async {
        let reply = match ask(dialer, other.node, other.addr).await {
            Ok(reply) => reply,
            Err(error) if says_removed(&error) => return Err(removed()),
            Err(_no_answer) => return Ok(None),
        };
        let told = members_in(&reply).unwrap_or_default();
        let ours = told.iter().find(|state| state.identity.node == node);
        Ok(ours.map(|state| state.identity.addr))
    });
    let told: Result<Vec<Option<SocketAddr>>, CliError> =
        join_all(asked).await.into_iter().collect();
    let told = told?.into_iter().flatten();
    let places: BTreeSet<SocketAddr> = before.iter().map(|it| it.addr).chain(told).collect();
    let elsewhere = places.into_iter().filter(|addr| *addr != member.address);
    let answers = elsewhere.map(|addr| async move {
        let answer = ask(dialer, node, addr).await;
        answer.is_ok().then_some(addr)
    });
    let Some(addr) = join_all(answers).await.into_iter().flatten().next() else {
        return Ok(());
    };
    let message = format!(
        "this node's id {node} belongs to a daemon that runs at {addr}: was the data directory copied? Stop that one, or let this one join with a data directory of its own"
    );
    Err(Failure::new(Code::NameTaken, message).into())
}

async fn ask(dialer: &Dialer, node: NodeId, addr: SocketAddr) -> Result<Bytes, StreamError> {
    let request = Bytes::from_static(MEMBERS_REQUEST);
    dialer
        .call(node, addr, Service::Sync, request, ANSWER_WITHIN)
        .await
}

/// Asks at the seeds for the members while nobody is alive: after a restart of everything all may have new addresses.
pub(super) async fn find_again(
    handle: Handle,
    dialer: Dialer,
    seeds: Vec<Seed>,
    stop: CancellationToken,
) {
    let look = async {
        loop {
            sleep(ASK_EVERY).await;
            let members = handle.members().await?;
            if members
                .iter()
                .any(|member| !member.ours && member.state.is_alive())
            {
                continue;
            }
            let known: Vec<NodeId> = members
                .iter()
                .filter(|member| !member.ours)
                .map(|member| member.node)
                .collect();
            for addr in member::resolve(&seeds).await {
                if let Some(found) = who_is_at(&dialer, &known, addr).await {
                    tracing::info!(seed = %addr, "found the cluster again");
                    handle.apply_members(found).await?;
                    break;
                }
            }
        }
    };
    let looked: Option<Result<(), Stopped>> = stop.run_until_cancelled(look).await;
    if let Some(Err(stopped)) = looked {
        tracing::debug!(%stopped, "no longer looking for members");
    }
}

/// Returns the members as one of `known` tells them that is now at `addr`.
async fn who_is_at(
    dialer: &Dialer,
    known: &[NodeId],
    addr: SocketAddr,
) -> Option<Vec<MemberState>> {
    for &node in known {
        match ask(dialer, node, addr).await {
            Ok(reply) => return members_in(&reply).ok(),
            Err(StreamError::WrongNode { .. }) => {}
            Err(_nobody_there) => return None,
        }
    }
    None
}

/// Writes down who the members are whenever that changes, and once more at the end.
pub(super) async fn remember(handle: Handle, store: Store, stop: CancellationToken) {
    let mut changed = handle.members_changed();
    let mut is_last = false;
    while !is_last {
        is_last = tokio::select! {
            () = stop.cancelled() => true,
            told = changed.changed() => told.is_err(),
        };
        let Ok(members) = handle.member_states().await else {
            return;
        };
        let store = store.clone();
        let written =
            tokio::task::spawn_blocking(move || store.set_members(&codec::encode(&members)));
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "the members are not remembered");
        }
        if !is_last {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(REMEMBER_EVERY) => {}
            }
        }
    }
}
