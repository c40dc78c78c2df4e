//! A barrier that ended `Everywhere` is true: every node whose attachment was known to whoever asked, and that lives and is
//! attached still, has the write.

use weft::{
    core::{
        model::{Boot, NetworkId, NodeId},
        netdb::{Applied, BarrierId, LogId, Version},
    },
    sim::Machine,
};

use super::Violation;
use crate::sim::World;

const PROPERTY: &str = "a barrier that ended is true";

/// A barrier, and who must have the write when it ends.
#[derive(Debug)]
struct Asked {
    at: usize,
    id: BarrierId,
    version: Version,
    /// Machines and the boots they were in.
    members: Vec<(usize, Boot)>,
    is_everywhere: bool,
}

/// The barriers that were asked for.
#[derive(Default, Debug)]
pub struct Barriers {
    asked: Vec<Asked>,
    /// How many ended because everyone had the write, and somebody had to have it.
    pub everywhere: u64,
    /// How many ended because time was over.
    pub late: u64,
}

impl Barriers {
    /// Notes a barrier as it is asked for.
    pub fn note_asked(world: &mut World, at: usize, asked: (BarrierId, Version)) {
        let (id, version) = asked;
        let network = version.log.network;
        let Some(node) = &world.machines[at].node else {
            return;
        };
        let known: Vec<NodeId> = node.attached(network).collect();
        let views = node.view_logs();
        // An attachment is known once the dot that made it is here; before that nobody can be waited for.
        let is_known = |machine: &Machine| {
            let attached = machine.node.as_ref()?.written(network).ok()?.log;
            let scope = LogId {
                network: NetworkId::CLUSTER,
                epoch: 0,
                ..attached
            };
            let view = views.iter().find(|view| view.log == scope)?;
            Some(known.contains(&machine.id) && view.has(attached.epoch))
        };
        let others = (0..world.machines.len()).filter(|other| *other != at);
        let members = others
            .map(|other| (other, &world.machines[other]))
            .filter(|(_, machine)| is_known(machine).unwrap_or(false))
            .map(|(other, machine)| (other, machine.disk.boot))
            .collect();
        world.observer.barriers.asked.push(Asked {
            at,
            id,
            version,
            members,
            is_everywhere: false,
        });
    }

    /// Notes how a barrier ended.
    pub fn note_ended(&mut self, at: usize, id: BarrierId, applied: &Applied) {
        let found = self.asked.iter().position(|a| a.at == at && a.id == id);
        let Some(place) = found else {
            return;
        };
        match applied {
            Applied::Everywhere => {
                self.everywhere += u64::from(!self.asked[place].members.is_empty());
                self.asked[place].is_everywhere = true;
            }
            Applied::NotBy(_) => {
                self.late += 1;
                self.asked.remove(place);
            }
        }
    }

    /// A machine's program has ended: its barriers are gone, and nobody waits for it.
    pub fn forget(&mut self, at: usize) {
        self.asked.retain(|asked| asked.at != at);
        for asked in &mut self.asked {
            asked.members.retain(|(member, _)| *member != at);
        }
    }

    /// A machine has left a network: what it wrote there is gone, and nobody waits for it.
    pub fn forget_member(&mut self, at: usize, network: NetworkId) {
        self.asked
            .retain(|asked| asked.at != at || asked.version.log.network != network);
        for asked in &mut self.asked {
            if asked.version.log.network == network {
                asked.members.retain(|(member, _)| *member != at);
            }
        }
    }

    /// A machine holds another for dead, so it does not wait for it.
    pub fn forget_dead(&mut self, at: usize, dead: usize) {
        for asked in self.asked.iter_mut().filter(|asked| asked.at == at) {
            asked.members.retain(|(member, _)| *member != dead);
        }
    }

    /// Checks the property for the barriers that have ended since.
    pub fn check(world: &mut World) -> Result<(), Violation> {
        let asked = std::mem::take(&mut world.observer.barriers.asked);
        let (ended, waiting) = asked.into_iter().partition(|asked| asked.is_everywhere);
        world.observer.barriers.asked = waiting;
        let ended: Vec<Asked> = ended;
        for asked in ended {
            for (member, boot) in &asked.members {
                check_member(world, &asked, (*member, *boot))?;
            }
        }
        Ok(())
    }
}

fn check_member(world: &World, asked: &Asked, member: (usize, Boot)) -> Result<(), Violation> {
    let (member, boot) = member;
    let machine = &world.machines[member];
    let Some(node) = machine.node.as_ref().filter(|_| machine.disk.boot == boot) else {
        return Ok(());
    };
    let log = asked.version.log;
    let held = node.logs().find(|(id, ..)| *id == log);
    let prefix = held.map_or(0, |(_, prefix, _)| prefix);
    // Who holds the owner for dead may have forgotten the log since.
    let lives = node.membership().is_alive(log.owner);
    if prefix < asked.version.seq && (lives || held.is_some()) {
        return Err(Violation {
            property: PROPERTY,
            seen: format!(
                "machine {} was told that dot {} of {log:?} is everywhere, machine {member} has it up to {prefix}",
                asked.at, asked.version.seq
            ),
        });
    }
    Ok(())
}
