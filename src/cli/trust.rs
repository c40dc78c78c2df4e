//! `weft keys` and `weft node`: what the cluster trusts.

use super::{
    args::{KeysCommand, NodeCommand},
    error::CliError,
    members,
    output::Output,
    status::show_certificate,
};
use crate::{
    api::{
        client::Client,
        http::trust::{Keys, RemovedMember, Rotated},
    },
    core::model::Name,
};

pub(super) async fn keys(
    client: &Client,
    output: Output,
    command: KeysCommand,
) -> Result<(), CliError> {
    match command {
        KeysCommand::Ls => output.answer(&client.keys().await?, show_keys)?,
        KeysCommand::Rotate { retire } => {
            output.answer(&client.keys_rotate(retire).await?, show_rotated)?;
        }
    }
    Ok(())
}

pub(super) async fn node(
    client: &Client,
    output: Output,
    command: NodeCommand,
) -> Result<(), CliError> {
    match command {
        NodeCommand::Label { changes } => return members::label(client, output, changes).await,
        NodeCommand::Rm { node, keep_token } => {
            let removed = client.member_remove(&node, keep_token).await?;
            output.answer(&removed, show_removed)?;
        }
    }
    Ok(())
}

fn show_keys(keys: &Keys) -> String {
    let others: Vec<String> = keys.keys.iter().skip(1).map(u8::to_string).collect();
    let opens = if others.is_empty() {
        "nothing else opens".to_owned()
    } else {
        format!("key {} opens too", others.join(", "))
    };
    let ring = format!("key {} seals, {opens}; ring {}", keys.primary, keys.version);
    match &keys.certificate {
        Some(certificate) => format!("{ring}\n{}", show_certificate(certificate)),
        None => ring,
    }
}

fn show_rotated(rotated: &Rotated) -> String {
    let former = if rotated.retired {
        "former keys are retired"
    } else {
        "the former key opens until the next rotation"
    };
    let behind = show_behind(&rotated.behind);
    format!("key {} seals, {former}{behind}", rotated.primary)
}

fn show_behind(behind: &[Name]) -> String {
    if behind.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = behind.iter().map(Name::as_str).collect();
    format!("; not in time, they will fetch it: {}", names.join(", "))
}

fn show_removed(removed: &RemovedMember) -> String {
    let name = removed.name.as_ref().map_or("", Name::as_str);
    let token = if removed.token_rotated {
        "\nthe join token was replaced: `weft token` shows the new one"
    } else {
        ""
    };
    let keys = show_rotated(&removed.keys);
    format!("node {name} {} is removed; {keys}{token}", removed.node)
}
