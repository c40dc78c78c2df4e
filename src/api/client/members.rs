//! The members, what becomes of them, and the labels of this node.

use hyper::Method;

use super::{
    Client, ClientError, Watch,
    uri::{at_member, at_member_watch},
};
use crate::{
    api::http::{
        members::{ChangeLabels, MemberDetail, Membership},
        transitions::MemberEvent,
        types::Member,
    },
    core::model::{LabelChange, Labels},
};

impl Client {
    /// Asks for the members.
    pub async fn members(&self) -> Result<Vec<Member>, ClientError> {
        self.get("/v1/members").await
    }

    /// Asks for a member, by name or id, and what became of it.
    pub async fn member(&self, member: &str) -> Result<MemberDetail, ClientError> {
        self.get(&at_member(member)).await
    }

    /// Watches the members: first as they are, then what becomes of them; or only that, after a revision.
    pub async fn watch_members(
        &self,
        from: Option<u64>,
    ) -> Result<Watch<MemberEvent>, ClientError> {
        self.follow(&at_member_watch(from)).await
    }

    /// Asks by which figures members are probed.
    pub async fn membership(&self) -> Result<Membership, ClientError> {
        self.get("/v1/membership").await
    }

    /// Asks for the labels of this node.
    pub async fn labels(&self) -> Result<Labels, ClientError> {
        self.get("/v1/labels").await
    }

    /// Changes labels of this node; returns what it has then.
    pub async fn labels_change(&self, changes: Vec<LabelChange>) -> Result<Labels, ClientError> {
        let wish = ChangeLabels { changes };
        self.send(Method::PATCH, "/v1/labels", Some(&wish)).await
    }
}
