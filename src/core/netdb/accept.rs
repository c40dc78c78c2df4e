//! Which logs may be written here by what others send, and which of their dots.

use super::{
    ATTACH_TABLE, LogId, NetDb, Reason, Refusal,
    message::{SEQ_MAX, WireDot},
    write::attach_key,
};
use crate::core::model::{Generation, Instant, Key, NetworkId, NodeId, Now, Value};

impl NetDb {
    /// Checks that a log may be written here by what others send, and learns what its name says of its owner.
    pub(super) fn accept(&mut self, now: Instant, log: &LogId) -> Result<(), Refusal> {
        if log.owner == self.me {
            return Err(self.about_us(log, 0));
        }
        let is_cluster = log.network == NetworkId::CLUSTER;
        let is_cluster_log = log.owner == NodeId::CLUSTER;
        let cluster_log_elsewhere =
            is_cluster_log && (!is_cluster || log.generation != Generation(0));
        if cluster_log_elsewhere || (is_cluster && log.epoch != 0) {
            return Err(Refusal::Forged);
        }
        // An epoch is the number of a dot.
        if log.epoch > SEQ_MAX || (!is_cluster && log.epoch == 0) {
            return Err(Refusal::Malformed);
        }
        if !self.replicas.contains_key(&log.network) {
            return Err(Refusal::NotCarried);
        }
        if self.owners.is_over(log) || (!is_cluster && self.has_ended(log)) {
            return Err(Refusal::Over);
        }
        if !self.owners.admits(log.owner) {
            return Err(Refusal::NoRoom);
        }
        if !is_cluster_log {
            let until = now + self.config.retention;
            self.owners.retain_unless_alive(log.owner, until);
        }
        let grace_until = now + self.config.grace;
        let mut news = self
            .owners
            .learn_generation(log.owner, log.generation, grace_until);
        if news {
            // It begins with nothing, whatever its former life had.
            self.floors.forget_node(log.owner);
        }
        if !is_cluster {
            let attached = self.owners.attach(*log, log.epoch, true);
            if attached {
                self.floors.forget_member(log.network, log.owner);
            }
            news |= attached;
        }
        if news {
            self.refresh(log.owner, Reason::Removed);
        }
        Ok(())
    }

    /// Says why what others send of our own logs is not taken: nobody has more of them than this node.
    pub(super) fn about_us(&self, log: &LogId, up_to: u64) -> Refusal {
        let scope = self.our_log(NetworkId::CLUSTER);
        let attached = scope.map_or(0, |scope| self.own_head(&scope));
        let of_ours = self.our_log(log.network) == Some(*log);
        let is_ahead = log.generation > self.generation
            || (log.generation == self.generation && log.epoch > attached)
            || (of_ours && up_to > self.own_head(log));
        if is_ahead {
            Refusal::Forged
        } else {
            Refusal::Over
        }
    }

    pub(super) fn check_dot(&self, now: Now, dot: &WireDot<'_>) -> Result<(), Refusal> {
        let sized = (Key::LEN_MIN..=Key::LEN_MAX).contains(&dot.key.len())
            && dot.value.is_none_or(|value| value.len() <= Value::LEN_MAX);
        if !sized || dot.seq == 0 || dot.seq > SEQ_MAX {
            return Err(Refusal::Malformed);
        }
        if dot.written.is_too_far_ahead(now.wall) {
            return Err(Refusal::AheadOfTime);
        }
        Ok(())
    }

    /// A snapshot may have taken entries of the cluster scope away: which attachments of the owner stand is read again.
    pub(super) fn reread_attachments(&mut self, log: LogId) {
        let standing: Vec<LogId> = self.owners.standing(&log).collect();
        let ended: Vec<LogId> = standing
            .into_iter()
            .filter(|it| self.is_ended(it))
            .collect();
        for made in &ended {
            self.owners.end_attachment(made);
        }
        if !ended.is_empty() {
            self.refresh(log.owner, Reason::OwnerLeft);
        }
    }

    /// Returns whether a log is of an attachment that has ended, although the tombstone that said so is gone here.
    fn has_ended(&self, log: &LogId) -> bool {
        !self.owners.stands(log) && self.is_ended(log)
    }

    /// Returns whether the dot that has made a log's attachment was had here, and neither it nor a later one of its key is held.
    fn is_ended(&self, log: &LogId) -> bool {
        let scope = LogId {
            network: NetworkId::CLUSTER,
            epoch: 0,
            ..*log
        };
        let cluster = &self.replicas[&NetworkId::CLUSTER];
        let key = attach_key(log.network, log.owner);
        cluster
            .log(&scope)
            .is_some_and(|held| held.have.contains(log.epoch))
            && !cluster.holds(&scope, ATTACH_TABLE, key.as_bytes())
    }
}
