//! What the kernel can do for us, tried in a namespace that is gone afterwards.

use std::{fmt, fs, path::Path};

use rtnetlink::{Error, LinkBridge, LinkVeth, LinkVxlan};

use super::{
    namespace,
    netlink::{Netlink, reason},
};

/// Something that this host lacks for carrying packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// What it is.
    pub what: &'static str,
    /// What the system said.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.reason)
    }
}

/// Returns what is missing.
pub(super) async fn look(directory: &Path) -> Vec<Missing> {
    let mut missing = Vec::new();
    if let Err(error) = fs::create_dir_all(directory) {
        missing.push(Missing {
            what: "a directory for network namespaces",
            reason: format!("{}: {error}", directory.display()),
        });
    }
    match namespace::inside_a_new_one(Netlink::open).await {
        Ok(netlink) => missing.extend(try_links(&netlink).await),
        Err(error) => missing.push(Missing {
            what: "the right to make network namespaces (CAP_SYS_ADMIN)",
            reason: error.to_string(),
        }),
    }
    missing
}

async fn try_links(netlink: &Netlink) -> Vec<Missing> {
    const VNI: u32 = 1;
    let tried = [
        ("bridges", LinkBridge::new("probe-br").build()),
        ("veth pairs", LinkVeth::new("probe-a", "probe-b").build()),
        (
            "VXLAN links",
            LinkVxlan::new("probe-vx", VNI).port(1).build(),
        ),
    ];
    let mut missing = Vec::new();
    for (what, message) in tried {
        let made: Result<(), Error> = netlink.handle.link().add(message).execute().await;
        if let Err(error) = made {
            let reason = reason(&error);
            missing.push(Missing { what, reason });
        }
    }
    missing
}
