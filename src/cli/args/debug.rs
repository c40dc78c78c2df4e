//! The grammar of `weft debug`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DebugCommand {
    /// Show what this node's kernel should hold beside what it does hold, and exit 1 where they differ
    #[command(after_help = "\
Links, gateways' addresses, forwarding entries, neighbours and nftables sets of the networks that this node carries, as the daemon \
wants them and as the kernel shows them at this moment; and when the daemon last compared them, why, and what came of it. What \
differs is mended within a second, unless the kernel refuses it: then the reason is shown.

With --clean, what a daemon that is not running any more has left in the kernel is removed. That needs root, and cuts off what is \
still attached.

Examples:
  weft debug dataplane
  weft debug dataplane app --json
  weft debug dataplane --clean")]
    Dataplane {
        /// The network's name or id [default: all]
        network: Option<String>,
        /// Remove all that a daemon has left in the kernel; none may be running that carries packets
        #[arg(long, conflicts_with = "network")]
        clean: bool,
    },
    /// Show a member, and what became of it and why, as far as this node knows
    #[command(after_help = "\
Who suspected it and why, whether it refuted, who held it for down, when it returned or was started anew, and where it moved. Of each \
member the last 64 of these are kept; the word of one node may differ from that of another, so ask the node that surprises you.

Examples:
  weft debug member n3
  weft debug member 4c43ea8839f18ff9 --json")]
    Member {
        /// The member's name or id
        member: String,
    },
    /// Show by which figures members are probed and suspected, and within which bounds they may be set
    #[command(after_help = "\
A figure is set with `weft up --membership FIGURE=VALUE`, or in the configuration file in the table [membership]. All nodes of a \
cluster should have the same.")]
    Membership,
}
