//! What foca wants done, gathered: its callbacks end here.

use std::time::Duration;

use foca::{Notification, Timer};

use super::{Identity, packet::Packet};

/// The effects of one call into foca, in its order.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Packets to send, with their preamble.
    pub(super) packets: Vec<(Identity, Vec<u8>)>,
    /// Timers to hand back to foca, and after how long.
    pub(super) timers: Vec<(Timer<Identity>, Duration)>,
    /// Our own incarnation, as the last packet named it; foca does not tell it otherwise.
    pub(super) incarnation: Option<u16>,
}

impl Effects {
    /// Returns whether somebody has become suspect.
    pub(super) fn suspects(&self) -> bool {
        let mut timers = self.timers.iter();
        timers.any(|(timer, _)| matches!(timer, Timer::ChangeSuspectToDown { .. }))
    }
}

impl foca::Runtime<Identity> for Effects {
    /// Nothing: what changed is read from foca's members, which also shows suspicions and incarnations.
    fn notify(&mut self, _notification: Notification<'_, Identity>) {}

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        if let Ok(packet) = Packet::read(data) {
            self.incarnation = Some(packet.header.src_incarnation);
        }
        self.packets.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((timer, after));
    }
}
