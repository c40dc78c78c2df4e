//! `weft demo`: a real cluster on this machine, and its story with measured times.
//!
//! **Invariant:** nothing that was started outlives the command, unless it was told to keep it; and nothing is ended that
//! it did not start.

mod look;
mod nodes;
mod report;
mod story;

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use self::{nodes::Nodes, report::Report, story::Story};
use super::{
    error::CliError,
    output::{self, Output},
};
use crate::api::http::Exit;

/// How long the whole story may take.
const STORY_MAX: Duration = Duration::from_secs(30);

/// Why a step was not observed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// Its deadline passed.
    #[error("not observed within {:.1} s; last seen: {seen}", after.as_secs_f64())]
    NotSeen {
        /// How long it was waited for.
        after: Duration,
        /// What was seen instead.
        seen: String,
    },
    /// A node ended that should run.
    #[error("node {node} ended by itself: {status}")]
    Ended {
        /// Its name.
        node: String,
        /// How it ended.
        status: String,
    },
    /// A call failed that should not.
    #[error("{what}: {source}")]
    Call {
        /// What was asked.
        what: String,
        /// The failure.
        source: crate::api::client::ClientError,
    },
    /// What was observed contradicts the story.
    #[error("{0}")]
    Wrong(String),
    /// The machine refused.
    #[error("{what}: {source}")]
    Machine {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

pub(super) async fn run(output: Output, count: u8, keep: bool) -> Result<(), CliError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut report = Report::new(output);
    report.title(count)?;
    let mut nodes = Nodes::new(usize::from(count), keep)?;
    let told = tokio::select! {
        told = timeout(STORY_MAX, Story::new(&mut nodes, &mut report).tell()) => Some(told),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    match told {
        Some(Ok(Ok(()))) if keep => {
            report.done()?;
            nodes.keep();
            output::tell(&nodes.how_to_talk());
            Ok(())
        }
        Some(Ok(Ok(()))) => {
            report.done()?;
            nodes.end().await;
            Ok(())
        }
        Some(Ok(Err(error))) => {
            fail(&mut report, &mut nodes, &error.to_string()).await?;
            Err(CliError::Told(Exit::Failed))
        }
        Some(Err(_elapsed)) => {
            let late = format!("the story has taken more than {} s", STORY_MAX.as_secs());
            fail(&mut report, &mut nodes, &late).await?;
            Err(CliError::Told(Exit::Failed))
        }
        None => {
            report.clear();
            nodes.end().await;
            Err(anyhow::anyhow!("interrupted; all nodes of the demo are stopped").into())
        }
    }
}

async fn fail(report: &mut Report, nodes: &mut Nodes, why: &str) -> Result<(), CliError> {
    if nodes.are_kept() {
        report.failed(why, &nodes.log_tails())?;
        nodes.keep();
        output::tell(&nodes.how_to_talk());
    } else {
        nodes.end().await;
        report.failed(why, &nodes.log_tails())?;
    }
    Ok(())
}
