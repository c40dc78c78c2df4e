//! The grammar of `weft driver` and `weft plugin`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DriverCommand {
    /// List the drivers of this node, of all kinds: network drivers, IPAM drivers and network allocators, built in or plugins in use
    #[command(visible_alias = "list")]
    Ls,
    /// Show what a name stands for, of each kind; a plugin that is not in use yet is activated
    #[command(after_help = "\
Examples:
  weft driver inspect overlay
  weft driver inspect wire        finds out whether a plugin of that name works")]
    Inspect {
        /// Its name
        driver: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PluginCommand {
    /// List the plugins of this host, and how each is
    #[command(visible_alias = "list")]
    Ls,
    /// Show a plugin
    Inspect {
        /// The name by which `weft plugin ls` has it
        plugin: String,
    },
}
