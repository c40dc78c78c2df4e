//! Answering other voters.

use bytes::Bytes;
use openraft::{
    error::{InstallSnapshotError, RaftError as OpenError},
    raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest},
};

use super::{
    Inner, Raft, SNAPSHOT_MAX, recover,
    types::Types,
    wire::{self, Message, Reply, WireVote},
};
use crate::core::model::NodeId;

impl Raft {
    /// Answers a message of another voter, which the transport has authenticated.
    pub async fn handle_raft(&self, from: NodeId, request: Bytes) -> Bytes {
        let reply = match wire::open::<Message>(&request) {
            Ok(message) => self.inner.answer(from, message).await,
            Err(error) => Reply::Refused(error.to_string()),
        };
        wire::seal(&reply)
    }
}

impl Inner {
    async fn answer(&self, from: NodeId, message: Message) -> Reply {
        if let Some(why) = self.refusal(from, &message) {
            return Reply::Refused(why);
        }
        match message {
            Message::Append {
                vote,
                prev,
                commit,
                entries,
            } => {
                let request = AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: prev.map(Into::into),
                    leader_commit: commit.map(Into::into),
                    entries: entries.into_iter().map(Into::into).collect(),
                };
                match self.raft.append_entries(request).await {
                    Ok(response) => Reply::appended(&response),
                    Err(_stopped) => Reply::Stopped,
                }
            }
            Message::Vote { vote, last } => {
                let request = VoteRequest::new(vote.into(), last.map(Into::into));
                match self.raft.vote(request).await {
                    Ok(response) => Reply::voted(&response),
                    Err(_stopped) => Reply::Stopped,
                }
            }
            Message::Snapshot {
                vote,
                meta,
                offset,
                data,
                done,
            } => {
                let request = InstallSnapshotRequest {
                    vote: vote.into(),
                    meta: meta.into(),
                    offset,
                    data,
                    done,
                };
                self.install(request).await
            }
            Message::PreVote { last, .. } => Reply::PreVote {
                granted: self.would_vote(last.map(Into::into)).await,
            },
            Message::Resign => {
                self.hint_gone(from);
                Reply::Noted
            }
            Message::StepAside => {
                self.aside.notify_one();
                Reply::Noted
            }
            Message::Transfer { term, to } => self.handle_transfer(from, term, to).await,
            Message::Confirm => match self.confirm().await {
                Some(last) => Reply::Confirmed(last),
                None => Reply::Refused("the node does not lead".to_owned()),
            },
            Message::Voters => match self.voters() {
                Some(report) => Reply::Voters(report),
                None => Reply::Refused("the node does not lead".to_owned()),
            },
        }
    }

    /// Takes a page of a snapshot.
    async fn install(&self, request: InstallSnapshotRequest<Types>) -> Reply {
        match self.raft.install_snapshot(request).await {
            Ok(response) => Reply::Snapshot(WireVote::from(&response.vote)),
            Err(OpenError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                let (expect, got) = (mismatch.expect, mismatch.got);
                Reply::SnapshotMismatch((expect.id, expect.offset), (got.id, got.offset))
            }
            Err(OpenError::Fatal(_)) => Reply::Stopped,
        }
    }

    /// Returns why a message is not for the engine, if it is not.
    fn refusal(&self, from: NodeId, message: &Message) -> Option<String> {
        let (vote, snapshot_to) = match message {
            Message::Append { vote, .. }
            | Message::Vote { vote, .. }
            | Message::PreVote { vote, .. } => (vote, 0),
            Message::Snapshot {
                vote, offset, data, ..
            } => (vote, offset.saturating_add(data.len() as u64)),
            Message::Resign
            | Message::Voters
            | Message::Confirm
            | Message::StepAside
            | Message::Transfer { .. } => {
                return None;
            }
        };
        if vote.node != from.0 {
            return Some("the message speaks for another node".to_owned());
        }
        if recover::epoch(vote.term) < recover::epoch(self.status().term) {
            // Its log is one that was given up, and its terms must not become ours.
            return Some("the cluster was recovered since, without that log".to_owned());
        }
        (snapshot_to > SNAPSHOT_MAX)
            .then(|| format!("the snapshot is too long: over {SNAPSHOT_MAX} bytes"))
    }
}
