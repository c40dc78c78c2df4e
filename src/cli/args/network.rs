//! The grammar of `weft network` and `weft endpoint`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Subcommand;

use super::wait::{Wait, span};
use crate::{
    api::http::pools::DefaultPool,
    core::model::{Name, Prefix},
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NetworkCommand {
    /// Create a network; the leader answers with its id, subnets and VNIs
    #[command(after_help = "\
Examples:
  weft network create app
  weft network create app --subnet 10.7.0.0/16 --gateway 10.7.0.1
  weft network create app --subnet 10.7.0.0/16 --subnet fd00:7::/64
  weft network create app --subnet 10.7.0.0/16 --ip-range 10.7.8.0/21 --aux-address router=10.7.8.1
  weft network create app --ipv6
  weft network create lab --driver null
  weft network create app --driver wire -o color=blue
  weft network create app --ipam-driver pools --ipam-opt site=7")]
    Create {
        /// Its name, unique in the cluster
        name: Name,
        /// The driver
        #[arg(long, short, default_value = "overlay")]
        driver: Name,
        /// A subnet; may be given more than once [default: one from the cluster's pool]
        #[arg(long = "subnet", value_name = "PREFIX", value_parser = prefix)]
        subnets: Vec<Prefix>,
        /// The gateway of the subnet that it lies in [default: the first address]
        #[arg(long = "gateway", value_name = "IP", requires = "subnets")]
        gateways: Vec<IpAddr>,
        /// Hand out addresses only from this part of the subnet that it lies in; one that is named may be outside
        #[arg(long = "ip-range", value_name = "PREFIX", value_parser = prefix, requires = "subnets")]
        ranges: Vec<Prefix>,
        /// Hand out to nobody an address of the subnets that something outside has; may be given more than once
        #[arg(long = "aux-address", value_name = "[NAME=]IP", value_parser = auxiliary, requires = "subnets")]
        reserved: Vec<IpAddr>,
        /// Have a subnet of IPv6, too [default: a /64 of the cluster's own, unless a subnet is one]
        #[arg(long)]
        ipv6: bool,
        /// An option for the driver; may be given more than once
        #[arg(long = "option", short, value_name = "NAME=VALUE", value_parser = pair)]
        options: Vec<(String, String)>,
        /// Have a plugin hand out its subnets and addresses; null: it has none [default: the leader does]
        #[arg(long, value_name = "NAME")]
        ipam_driver: Option<Name>,
        /// An option for the IPAM driver; may be given more than once
        #[arg(long = "ipam-opt", value_name = "NAME=VALUE", value_parser = pair, requires = "ipam_driver")]
        ipam_options: Vec<(String, String)>,
    },
    /// List all networks, and how far each has come on this node
    #[command(
        visible_alias = "list",
        after_help = "\
It needs no leader: it is what this node has heard, which may be a moment old, or older on a node that is cut off. With --confirmed \
the leader says first what was agreed.

Examples:
  weft network ls
  weft network ls --confirmed     exits 6 if no leader can say"
    )]
    Ls {
        /// List all that was agreed by now: the leader says so, and this node waits until it has heard of it
        #[arg(long)]
        confirmed: bool,
    },
    /// Show a network, its endpoints, and how far it has come on this node
    #[command(after_help = "\
Examples:
  weft network inspect app
  weft network inspect app --wait --timeout 30s     for scripts: exits 6 unless it is ready and synced by then")]
    Inspect {
        /// Its name or id
        network: String,
        /// Wait until it is set up on this node and all its entries have come; exit 6 if they have not in time
        #[arg(long)]
        wait: bool,
        /// How long to wait at most: 500ms, 10s, 2m
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span, requires = "wait")]
        timeout: Duration,
    },
    /// Wait until every live member of a network has all that this node has written in it
    #[command(after_help = "\
Exits 6 and names the members that may lack something, if there are any when the time is over.

Examples:
  weft network applied app
  weft network applied app --timeout 500ms")]
    Applied {
        /// Its name or id
        network: String,
        /// How long to wait at most: 500ms, 10s, 2m
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = span)]
        timeout: Duration,
    },
    /// Remove a network that has no endpoints
    Rm {
        /// Its name or id
        network: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum IpamCommand {
    /// Show how many addresses each subnet has, and how many are leased to nodes and in use
    #[command(after_help = "\
What is in use is as this node has heard it. A share of 80 % and more is shown in yellow; the leader warns of it in its log.

Examples:
  weft ipam status
  weft ipam status --json
  weft ipam status --confirmed     all leases that were agreed by now; exits 6 if no leader can say")]
    Status {
        /// Show all leases that were agreed by now: the leader says so, and this node waits until it has heard of it
        #[arg(long)]
        confirmed: bool,
    },
    /// Show the default pools, where subnets come from that nobody names, or set others for the whole cluster
    #[command(after_help = "\
Without pools of one's own there are 31 local ones (172.17.0.0/16 to 172.31.0.0/16, and 192.168.0.0/16 in /20s), of networks \
whose driver carries no data from node to node, 65,536 global ones (10.0.0.0/8 in /24s), and for IPv6 the /64s of a /48 that is \
the cluster's own. With --set all configured pools are replaced; a space and a family of which none is given has those again. \
Subnets that networks have stay.

Examples:
  weft ipam pools
  weft ipam pools --set base=10.10.0.0/16,size=24
  weft ipam pools --set base=10.10.0.0/16,size=24 --set base=10.20.0.0/16,size=26 --set base=fd00:1::/48,size=64
  weft ipam pools --set base=172.16.0.0/12,size=20,space=local
  weft ipam pools --reset")]
    Pools {
        /// A pool and the length of its subnets' prefixes; may be given more than once
        #[arg(long = "set", value_name = "base=PREFIX,size=LENGTH[,space=local]")]
        set: Vec<DefaultPool>,
        /// Go back to the pools that are built in
        #[arg(long, conflicts_with = "set")]
        reset: bool,
        /// Show the pools that were agreed by now: the leader says so, and this node waits until it has heard of it
        #[arg(long, conflicts_with_all = ["set", "reset"])]
        confirmed: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EndpointCommand {
    /// Create an endpoint on this node: an address and a MAC, not yet reachable
    #[command(after_help = "\
Examples:
  weft endpoint create app web
  weft endpoint create app web --address 10.0.0.7 --join
  weft endpoint create both web --address 10.0.0.7 --address fd00::7
  weft endpoint create app web --join --netns /run/netns/web")]
    Create {
        /// The network's name or id
        network: String,
        /// The endpoint's name
        name: Name,
        /// The address; once for each family of a network that has both [default: one of each that is free]
        #[arg(long, value_name = "IP")]
        address: Vec<IpAddr>,
        /// Join at once
        #[arg(long)]
        join: bool,
        #[command(flatten)]
        sandbox: SandboxArgs,
    },
    /// Join an endpoint of this node to its network: every node hears of it
    #[command(after_help = "\
With --netns its interface is moved into that network namespace and has its address and routes there. The endpoint \
stays in the network until it leaves.

Examples:
  ip netns add web && weft endpoint join app web --netns /run/netns/web
  weft endpoint join app web --netns /proc/4711/ns/net --interface app0")]
    Join {
        #[command(flatten)]
        at: EndpointName,
        #[command(flatten)]
        sandbox: SandboxArgs,
    },
    /// Take an endpoint of this node out of its network; it keeps its address
    #[command(after_help = "\
With --wait the driver keeps the endpoint connected until everybody has heard, so nobody sends to what is gone.

Examples:
  weft endpoint leave app web
  weft endpoint leave app web --wait --timeout 30s")]
    Leave {
        #[command(flatten)]
        at: EndpointName,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show an endpoint, its table entries with their owner and meaning, and who may not have them yet
    #[command(after_help = "\
Examples:
  weft endpoint inspect app web
  weft --json endpoint inspect app web")]
    Inspect(EndpointName),
    /// Remove an endpoint of this node, taking it out of its network first
    Rm(EndpointName),
    /// List the endpoints of one network, or of all, on every node
    #[command(visible_alias = "list")]
    Ls {
        /// The network's name or id
        network: Option<String>,
    },
}

/// Where the interface of an endpoint goes.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct SandboxArgs {
    /// The network namespace that gets the interface [default: whoever asked moves it]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) netns: Option<PathBuf>,
    /// The interface's name there [default: the first free of eth0, eth1 …]
    #[arg(long, value_name = "NAME", requires = "netns")]
    pub(in crate::cli) interface: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct EndpointName {
    /// The network's name or id
    pub(in crate::cli) network: String,
    /// The endpoint's name or id
    pub(in crate::cli) endpoint: String,
}

fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse().map(Prefix).map_err(|error| {
        format!("{error}: an address and a length are expected, for example 10.7.0.0/16")
    })
}

fn auxiliary(text: &str) -> Result<IpAddr, String> {
    let address = text
        .rsplit_once('=')
        .map_or(text, |(_name, address)| address);
    let parsed = address.parse();
    parsed.map_err(|error| format!("{error}: an address is expected, for example router=10.7.0.9"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("NAME=VALUE is expected".to_owned()),
    }
}
