//! The grammar of `weft table`.

use clap::Subcommand;

use super::wait::Wait;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TableCommand {
    /// List the tables of a network, or the entries of one table
    #[command(visible_alias = "list")]
    Ls {
        /// The network's name or id
        network: String,
        /// The table
        table: Option<String>,
    },
    /// Write the value of an entry to standard output, as it is
    #[command(after_help = "\
Examples:
  weft table get app services web
  weft table get app blobs AAEC --base64      key and value in base64, for bytes that are no text")]
    Get(TableKey),
    /// Write an entry; it lives as long as this node
    #[command(after_help = "\
Examples:
  weft table put app services web 10.0.0.7:80
  weft table put app certs web - < cert.pem
  weft table put app blobs AAEC /wA= --base64
  weft table put app services web 10.0.0.7:80 --wait")]
    Put {
        #[command(flatten)]
        at: TableKey,
        /// The value; `-` reads it from standard input, as it is
        value: String,
        /// Fail if the key exists
        #[arg(long, conflicts_with = "update")]
        create: bool,
        /// Fail unless the key exists
        #[arg(long)]
        update: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove an entry of this node
    Rm {
        #[command(flatten)]
        at: TableKey,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show what is in the tables of a network, then every change, until interrupted
    #[command(after_help = "\
Each change has a revision, its place in this node's history. A watch that was interrupted goes on after the last one it
has seen (--from); if that is no longer remembered, it says so and lists again.

Examples:
  weft table watch app
  weft table watch app services --prefix web- --json
  weft table watch app services --json --from 1876424117223425")]
    Watch {
        /// The network's name or id
        network: String,
        /// Only this table
        table: Option<String>,
        /// Only keys that begin so
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// The prefix is written in base64
        #[arg(long, requires = "prefix")]
        base64: bool,
        /// Go on after this revision instead of listing first
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TableKey {
    /// The network's name or id
    pub(in crate::cli) network: String,
    /// The table
    pub(in crate::cli) table: String,
    /// The key
    pub(in crate::cli) key: String,
    /// Key and value are written in base64
    #[arg(long)]
    pub(in crate::cli) base64: bool,
}
