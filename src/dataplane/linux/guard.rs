//! Guards: an nftables table in the host's namespace that drops tunnelled packets of nodes that are in no such network.
//!
//! It is replaced as a whole in one transaction. A set's name says which network and tunnel it guards, so a restart reads
//! from the kernel whom it guards against.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    process::Stdio,
};

use tokio::{io::AsyncWriteExt, process::Command, sync::Mutex};

use crate::{
    core::{
        model::{NetworkId, Vni, Vtep},
        overlay::Guard,
    },
    dataplane::DataplaneError,
};

const TABLE: &str = "weft";
/// What `nft` says of a table that is not there.
const ABSENT: &str = "No such file or directory";

type Held = BTreeMap<(NetworkId, Vni), Guard>;

/// The guards of all networks of this node.
pub(super) struct Guards {
    /// Whether there is an `nft` that works. Without, guards are kept here only.
    is_enforced: bool,
    /// What the kernel holds; nothing: it has to be asked.
    held: Mutex<Option<Held>>,
}

impl Guards {
    /// Looks whether `nft` works here, and says why not.
    pub(super) async fn open() -> (Self, Result<(), DataplaneError>) {
        // A table like those to come, which is looked at only.
        let guard = Guard {
            port: 4789,
            members: BTreeSet::new(),
        };
        let sample = Held::from([((NetworkId(1), Vni::MAX), guard)]);
        let works = nft(&["-c", "-f", "-"], &ruleset(&sample)).await.map(drop);
        let guards = Self {
            is_enforced: works.is_ok(),
            held: Mutex::new(works.is_err().then(Held::new)),
        };
        (guards, works)
    }

    /// Returns the guards of a network.
    pub(super) async fn list(
        &self,
        network: NetworkId,
    ) -> Result<BTreeMap<Vni, Guard>, DataplaneError> {
        let mut held = self.held.lock().await;
        let held = self.known(&mut held).await?;
        let of_network = held.iter().filter(|((of, _), _)| *of == network);
        Ok(of_network
            .map(|((_, vni), guard)| (*vni, guard.clone()))
            .collect())
    }

    /// Sets a guard, or takes it away.
    pub(super) async fn set(
        &self,
        network: NetworkId,
        vni: Vni,
        guard: Option<Guard>,
    ) -> Result<(), DataplaneError> {
        self.change(|held| {
            match guard {
                Some(guard) => held.insert((network, vni), guard),
                None => held.remove(&(network, vni)),
            };
        })
        .await
    }

    /// Takes the guards of all networks away but these.
    pub(super) async fn keep_only(
        &self,
        networks: &BTreeSet<NetworkId>,
    ) -> Result<(), DataplaneError> {
        self.change(|held| held.retain(|(network, _), _| networks.contains(network)))
            .await
    }

    /// Has the kernel be asked the next time: something else may have changed it.
    pub(super) async fn forget(&self) {
        if self.is_enforced {
            *self.held.lock().await = None;
        }
    }

    async fn change(&self, work: impl FnOnce(&mut Held)) -> Result<(), DataplaneError> {
        let mut held = self.held.lock().await;
        let mut wanted = self.known(&mut held).await?.clone();
        work(&mut wanted);
        if held.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if self.is_enforced {
            // Not known until it is done.
            *held = None;
            nft(&["-f", "-"], &ruleset(&wanted)).await?;
        }
        *held = Some(wanted);
        Ok(())
    }

    async fn known<'a>(&self, held: &'a mut Option<Held>) -> Result<&'a Held, DataplaneError> {
        let known = match held.take() {
            Some(known) => known,
            None => ask().await?,
        };
        Ok(held.insert(known))
    }
}

/// Writes the table that holds these guards.
fn ruleset(held: &Held) -> String {
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\n");
    if held.is_empty() {
        return text;
    }
    let (mut sets, mut rules) = (String::new(), String::new());
    for ((network, vni), guard) in held {
        for (family, field, kind) in [(4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr")] {
            let port = guard.port;
            let set = format!("n{network}-vni{vni}-port{port}-ip{family}");
            let of_family = |vtep: &&Vtep| vtep.0.is_ipv4() == (family == 4);
            let members: Vec<String> = guard
                .members
                .iter()
                .filter(of_family)
                .map(|vtep| vtep.0.to_string())
                .collect();
            let elements = match members.is_empty() {
                true => String::new(),
                false => format!(" elements = {{ {} }}", members.join(", ")),
            };
            // A VXLAN header's network id is 96 bits after the beginning of UDP's (RFC 7348 §5).
            let packet = format!("udp dport {port} @th,96,24 {vni}");
            let _ = writeln!(sets, "  set {set} {{ type {kind};{elements} }}");
            let _ = writeln!(rules, "    {packet} {field} saddr != @{set} counter drop");
        }
    }
    let _ = write!(
        text,
        "table inet {TABLE} {{\n{sets}  chain input {{\n    type filter hook input priority -10; policy accept;\n{rules}  }}\n}}\n"
    );
    text
}

async fn ask() -> Result<Held, DataplaneError> {
    match nft(&["-j", "list", "table", "inet", TABLE], "").await {
        Ok(listed) => read(&listed),
        Err(DataplaneError::Refused { reason, .. }) if reason.contains(ABSENT) => Ok(Held::new()),
        Err(error) => Err(error),
    }
}

/// Reads what the kernel holds. A table that was tampered with counts as none, and is made anew.
fn read(text: &str) -> Result<Held, DataplaneError> {
    let malformed = |error: serde_json::Error| DataplaneError::Refused {
        what: "read what nft lists".to_owned(),
        reason: error.to_string(),
    };
    let listing: serde_json::Value = serde_json::from_str(text).map_err(malformed)?;
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    let (mut held, mut sets, mut rules) = (Held::new(), 0, 0);
    for object in objects {
        let is_ours = |object: &serde_json::Value| object["table"] == TABLE;
        if is_ours(&object["rule"]) {
            rules += 1;
        }
        if !is_ours(&object["set"]) {
            continue;
        }
        sets += 1;
        if let Some((place, guard)) = read_set(&object["set"]) {
            let members = guard.members.clone();
            let entry = held.entry(place).or_insert(guard);
            entry.members.extend(members);
        }
    }
    if rules != sets || sets != 2 * held.len() {
        tracing::warn!("the nftables table {TABLE} was changed by somebody else: it is made anew");
        return Ok(Held::new());
    }
    Ok(held)
}

fn read_set(set: &serde_json::Value) -> Option<((NetworkId, Vni), Guard)> {
    let mut parts = set["name"].as_str()?.split('-');
    let network = parts.next()?.strip_prefix('n')?.parse().ok()?;
    let vni = parts.next()?.strip_prefix("vni")?.parse().ok()?;
    let port = parts.next()?.strip_prefix("port")?.parse().ok()?;
    let elements = set["elem"].as_array().cloned().unwrap_or_default();
    let ip = |element: &serde_json::Value| element.as_str()?.parse::<IpAddr>().ok();
    let members = elements.iter().filter_map(ip).map(Vtep).collect();
    Some((
        (NetworkId(network), Vni::new(vni)?),
        Guard { port, members },
    ))
}

/// Runs `nft` with these bytes on its standard input.
async fn nft(arguments: &[&str], input: &str) -> Result<String, DataplaneError> {
    let failed = |reason: String| DataplaneError::Refused {
        what: format!("run nft {}", arguments.join(" ")),
        reason,
    };
    let started = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = started.map_err(|error| failed(error.to_string()))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // What nft has to say of a pipe that it closed early is in its answer.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or_default();
        return Err(failed(format!("{}: {first}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
