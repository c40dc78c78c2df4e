//! The grammar of `weft cluster`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClusterCommand {
    /// List who votes and why, and what the leader waits for before it changes that
    #[command(
        visible_alias = "ls",
        after_help = "\
The leader answers. It keeps three voters, spread over the zones that nodes are labelled with: a node gets a vote once it has \
the log and has been up for a while, and takes the place of a voter that has been down for a minute. Two nodes are no safer \
than one, so a second one has the log without a vote.

Examples:
  weft cluster voters
  weft cluster voters --json"
    )]
    Voters,
    /// Show which authority signs the nodes' certificates, and how a change of it stands
    Authority,
    /// Replace the authority that signs the nodes' certificates, while the cluster runs
    #[command(after_help = "\
The leader makes a new one. Once all live members trust it beside the present one it signs, and every member has its \
certificate renewed at once; the former one is dropped when every member has a new certificate. A member that is away is waited \
for, until it is back, is removed with `weft node rm`, or its certificate has run out. The change goes on by itself, also under \
another leader; say this again, or `weft cluster authority`, to see how it stands. Join tokens pin the authority: those from \
before are refused once the new one signs.

Examples:
  weft cluster rotate-ca
  weft cluster rotate-ca --now     somebody else may have the authority's key")]
    RotateCa {
        /// Wait ten seconds at each step and for nobody longer: members that do not answer must join again, with a new token
        #[arg(long)]
        now: bool,
    },
    /// Make this node the only voter, after most voters are lost for ever: the last resort
    #[command(after_help = "\
Works on the data directory while no daemon runs on it, on a node that votes or has the log. All that this node has agreed to \
is kept: networks, leases, keys, tokens, members. The other voters are removed from the cluster unless they are kept, so that \
one that comes back with its old data is told so and ends; what the lost ones had agreed to and this node had not yet is lost. \
Without --yes it only says what it would do, and how far this node's log goes: of several survivors choose the one that goes \
furthest. The whole procedure is in docs/recover.md.

Examples:
  weft cluster recover --data-dir /var/lib/weft
  weft cluster recover --yes
  weft cluster recover --keep n2 --yes      n2 survives too, and gets the log from this node")]
    Recover {
        /// Where the node keeps its state [default: /var/lib/weft; if you are not root, ~/.local/state/weft]
        #[arg(
            long,
            env = "WEFT_DATA_DIR",
            hide_env_values = true,
            value_name = "DIR"
        )]
        data_dir: Option<PathBuf>,
        /// A voter, by name or id, that is not lost: it stays a member; may be given several times
        #[arg(long, value_name = "NODE")]
        keep: Vec<String>,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
}
