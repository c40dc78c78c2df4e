//! The grammar of `weft keys` and `weft node`.

use clap::Subcommand;

use crate::core::model::LabelChange;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// Show which keys this node opens with, and which one seals; never the keys themselves
    #[command(visible_alias = "list")]
    Ls,
    /// Replace the key that seals, on all nodes, with no datagram lost
    #[command(after_help = "\
The leader does so every 12 hours by itself. A node that cannot be reached now fetches the keys once it can.

Examples:
  weft keys rotate
  weft keys rotate --retire     a key may be known to somebody who should not know it")]
    Rotate {
        /// Open nothing that is sealed with former keys, once all live nodes have the new one
        #[arg(long)]
        retire: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NodeCommand {
    /// Set and remove labels of this node, or show them
    #[command(after_help = "\
Every node sees the labels of all: `weft members`. The leader spreads votes over the nodes' `zone`. A label that is set here is \
kept on disk; one that `weft up --label` or the configuration file gives comes back with the next start.

Examples:
  weft node label                     show this node's labels
  weft node label zone=a rack=7       set two
  weft node label rack-               remove one")]
    Label {
        /// KEY=VALUE sets a label, KEY- removes one
        #[arg(value_name = "KEY=VALUE|KEY-")]
        changes: Vec<LabelChange>,
    },
    /// Remove a node for good: it is heard no longer, and its name and addresses are free
    #[command(after_help = "\
For a node that is lost, or must not be trusted any longer; one that you can still use should `weft leave`. Its certificate is \
refused at once, the datagram keys that it knows are retired, and the join token is replaced. If that is cut off, because no \
leader is there, say it again with the node's id.

Examples:
  weft node rm n3
  weft node rm 4c43ea8839f18ff9
  weft node rm n3 --keep-token     the host is lost, and nobody else has its disk")]
    Rm {
        /// The node's name or id
        node: String,
        /// Leave the join token as it is
        #[arg(long)]
        keep_token: bool,
    },
}
