//! `--confirmed`: whether what is listed is all that was agreed, as the leader says, or what this node has heard.

use std::time::Duration;

use super::{
    error::CliError,
    output::{Output, tell},
};
use crate::api::{
    client::Client,
    http::types::{Code, Failure},
};

/// How long a node may take to hear of all that was agreed.
const WITHIN: Duration = Duration::from_secs(10);

/// Makes sure that what is read next is as fresh as was asked for, or says what it is.
pub(super) async fn ensure(
    client: &Client,
    output: Output,
    confirmed: bool,
) -> Result<(), CliError> {
    if !confirmed {
        if !output.is_json() && client.status().await?.leader.is_none() {
            tell("no leader is known: this is what the node had heard before");
        }
        return Ok(());
    }
    let fresh = client.confirm(WITHIN).await?;
    if fresh.is_confirmed() {
        return Ok(());
    }
    let failure = match fresh.agreed {
        None => Failure::new(
            Code::NoLeader,
            "no leader confirms what was agreed: without --confirmed it is listed as this node has heard it",
        ),
        Some(agreed) => {
            let here = fresh.here;
            let message = format!(
                "this node has heard of {here} of {agreed} changes after {WITHIN:?}: look at `weft status`"
            );
            Failure::new(Code::TimedOut, message)
        }
    };
    Err(failure.into())
}
