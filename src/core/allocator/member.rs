//! Founding and members.

use bincode::{Decode, Encode};

use super::{
    Action, Allocator, AllocatorError, Command, Outcome, REMOVED_TABLE, Secret, TokenSecret,
    members_table,
};
use crate::core::{
    model::{ClusterId, Hlc, Key, Name, NodeId, TableName, Value},
    wire::{codec, keyring::Keyring},
};

/// What the founder brought.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The certificate of the cluster's authority.
    pub ca_cert_der: Vec<u8>,
    /// Its key.
    pub ca_key_der: Secret,
    /// The keys of the datagrams.
    pub keyring: Keyring,
    /// The secret of the join token.
    pub token_secret: TokenSecret,
}

/// One member, as the leader admitted it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MemberRecord {
    /// Its name.
    pub name: Name,
    /// When it was admitted.
    pub admitted: Hlc,
}

impl Allocator {
    pub(super) fn found(&mut self, command: &Command) -> Result<Outcome, AllocatorError> {
        if self.founding.is_some() {
            return Err(AllocatorError::AlreadyFounded);
        }
        let Action::Genesis {
            cluster,
            ca_cert_der,
            ca_key_der,
            keyring,
            token_secret,
            founder,
            name,
        } = &command.action
        else {
            return Err(AllocatorError::NotFounded);
        };
        self.founding = Some(Founding {
            cluster: *cluster,
            ca_cert_der: ca_cert_der.clone(),
            ca_key_der: ca_key_der.clone(),
            keyring: keyring.clone(),
            token_secret: token_secret.clone(),
        });
        self.admit_member(command.at, *founder, name)
    }

    /// A member that is admitted again under its name was: its answer got lost.
    pub(super) fn admit_member(
        &mut self,
        at: Hlc,
        node: NodeId,
        name: &Name,
    ) -> Result<Outcome, AllocatorError> {
        if self.removed.contains(&node) || node == NodeId::CLUSTER {
            return Err(AllocatorError::Removed(node));
        }
        if let Some(member) = self.members.get(&node) {
            if member.name == *name {
                return Ok(Outcome::Done);
            }
            let name = member.name.clone();
            return Err(AllocatorError::IdTaken { node, name });
        }
        if let Some((holder, _)) = self.members.iter().find(|(_, member)| member.name == *name) {
            return Err(AllocatorError::NameTaken {
                name: name.clone(),
                node: *holder,
            });
        }
        let name = name.clone();
        let record = MemberRecord { name, admitted: at };
        self.log
            .put(at, members_table(), member_key(node), member_value(&record));
        self.members.insert(node, record);
        Ok(Outcome::Done)
    }

    /// A member that is admitted again must be the one that was: its answer got lost, or its certificate has run out.
    pub(super) fn admit_node(
        &mut self,
        at: Hlc,
        (node, name): (NodeId, &Name),
        key: [u8; 32],
    ) -> Result<Outcome, AllocatorError> {
        let is_member = self.members.contains_key(&node);
        if is_member && self.member_keys.get(&node) != Some(&key) {
            return Err(AllocatorError::NotItsKey(node));
        }
        let outcome = self.admit_member(at, node, name)?;
        self.member_keys.insert(node, key);
        Ok(outcome)
    }

    pub(super) fn record_key(
        &mut self,
        node: NodeId,
        key: [u8; 32],
    ) -> Result<Outcome, AllocatorError> {
        if !self.members.contains_key(&node) {
            return Err(AllocatorError::NotMember(node));
        }
        if *self.member_keys.entry(node).or_insert(key) != key {
            return Err(AllocatorError::NotItsKey(node));
        }
        Ok(Outcome::Done)
    }

    pub(super) fn remove_member(
        &mut self,
        at: Hlc,
        node: NodeId,
    ) -> Result<Outcome, AllocatorError> {
        if self.members.remove(&node).is_none() {
            return Err(AllocatorError::NotMember(node));
        }
        self.member_keys.remove(&node);
        self.removed.insert(node);
        self.log.delete(at, members_table(), member_key(node));
        self.return_blocks_of(at, node);
        self.log
            .put(at, removed_table(), member_key(node), nothing());
        Ok(Outcome::Done)
    }

    pub(super) fn rotate_token(&mut self, secret: &TokenSecret) -> Result<Outcome, AllocatorError> {
        let founding = self.founding.as_mut().ok_or(AllocatorError::NotFounded)?;
        founding.token_secret = secret.clone();
        Ok(Outcome::Done)
    }
}

fn removed_table() -> TableName {
    TableName::new(REMOVED_TABLE).expect("a constant within the limits")
}

fn member_key(node: NodeId) -> Key {
    Key::new(node.0.to_be_bytes().to_vec()).expect("eight bytes are within the limits")
}

fn nothing() -> Value {
    Value::new(Vec::new()).expect("nothing is short")
}

fn member_value(record: &MemberRecord) -> Value {
    Value::new(codec::encode(record)).expect("a name is short")
}
