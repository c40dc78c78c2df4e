//! The members, and the labels of this node.

use hyper::Method;

use super::{Client, ClientError};
use crate::{
    api::http::{members::ChangeLabels, types::Member},
    core::model::{LabelChange, Labels},
};

impl Client {
    /// Asks for the members.
    pub async fn members(&self) -> Result<Vec<Member>, ClientError> {
        self.get("/v1/members").await
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
