//! `weft up`: runs this node until it is told to stop, or has left its cluster.

mod daemon;
mod doors;
mod drivers;
mod log;
mod member;
mod notify;
mod others;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(super) use drivers::namespaces;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    daemon::{Daemon, Ended},
    doors::Doors,
    notify::Notify,
};
use super::{
    args::{Global, UpArgs},
    error::CliError,
    init,
    output::Output,
};
use crate::{
    config::{Config, Host, Layer},
    core::model::{ClusterId, Name, NodeId},
    runtime::Sockets,
};

/// The one line that says that the node is up.
#[derive(Debug, Serialize)]
struct Up<'a> {
    node: NodeId,
    name: &'a Name,
    cluster: ClusterId,
    address: std::net::SocketAddr,
    socket: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<std::net::SocketAddr>,
}

pub(super) async fn run(args: UpArgs, global: &Global, output: Output) -> Result<(), CliError> {
    let file = match &args.place.config {
        Some(path) => Layer::from_file(path)?,
        None => Layer::default(),
    };
    let may_found = args.init;
    let config = Config::resolve(args.layer(global).over(file), &Host::here())?;
    log::start(&config)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    tokio::pin!(stopped);
    let notify = Notify::from_environment();

    let started = async {
        let store = init::open(&config.data_dir).await?;
        #[cfg(feature = "mutations")]
        abort_where_a_test_wants(&store);
        // A port or a socket in use is found out before anything is written.
        let doors = Doors::open(&config).await?;
        let sockets = Sockets::bind(config.listen).await?;
        let member = member::Member::find(&config, &store, sockets.addr, may_found).await?;
        let daemon = Daemon::start(member, store, sockets, doors, &config).await?;
        daemon.until_ready().await?;
        Ok::<_, CliError>(daemon)
    };
    let mut daemon = tokio::select! {
        daemon = started => daemon?,
        why = &mut stopped => {
            tracing::info!(signal = why, "stopped before the node was up");
            return Ok(());
        }
    };
    output.each(&daemon.up(), |up| {
        let (name, node, cluster) = (up.name, up.node, up.cluster);
        let socket = up.socket.display();
        let names = up.dns.map(|at| format!(", names at {at}"));
        let names = names.unwrap_or_default();
        format!(
            "{name} is up: node {node}, cluster {cluster}, address {}, socket {socket}{names}",
            up.address
        )
    })?;
    notify.ready("this node is up");
    if let Some(path) = config.token_file.as_deref().filter(|_| may_found) {
        daemon.offer_token(path).await;
    }

    let ended = tokio::select! {
        ended = daemon.until_ended() => ended,
        why = &mut stopped => {
            tracing::info!(signal = why, "stopping");
            Ok(Ended::Told)
        }
    };
    notify.stopping();
    let ended = ended?;
    daemon.stop(ended).await
}

/// Sets a fault point: `before:2` has the daemon die before its second write of an endpoint, `after:2` after it.
#[cfg(feature = "mutations")]
fn abort_where_a_test_wants(store: &crate::store::Store) {
    use crate::store::Side;

    let wanted = std::env::var("WEFT_ABORT_AT").unwrap_or_default();
    let side = match wanted.split(':').next() {
        Some("before") => Side::Before,
        Some("after") => Side::After,
        Some(_) | None => return,
    };
    let number = wanted
        .split(':')
        .nth(1)
        .and_then(|number| number.parse().ok());
    store.abort_at(side, number.unwrap_or(1));
}
