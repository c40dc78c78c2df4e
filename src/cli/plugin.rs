//! `weft plugin …`.

use super::{
    args::PluginCommand,
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::api::{
    client::Client,
    http::types::{Plugin, PluginState},
};

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: PluginCommand,
) -> Result<(), CliError> {
    match command {
        PluginCommand::Ls => {
            let plugins = client.plugins().await?;
            output.answer(&plugins, |plugins| show(plugins))?;
        }
        PluginCommand::Inspect { plugin } => {
            let plugin = client.plugin(&plugin).await?;
            output.answer(&plugin, |plugin| show(std::slice::from_ref(plugin)))?;
        }
    }
    Ok(())
}

fn show(plugins: &[Plugin]) -> String {
    let mut listing = Listing::new(&["NAME", "KIND", "STATE", "USERS", "IMPLEMENTS", "ADDRESS"]);
    for plugin in plugins {
        let (tone, state) = match &plugin.state {
            PluginState::Enabled => (Tone::Plain, "enabled".to_owned()),
            PluginState::Disabled => (Tone::Faint, "disabled".to_owned()),
            PluginState::Broken { reason } => (Tone::Bad, format!("broken: {reason}")),
        };
        listing.row(
            tone,
            vec![
                plugin.name.clone(),
                match plugin.managed {
                    Some(_) => "managed".to_owned(),
                    None => "v1".to_owned(),
                },
                state,
                plugin
                    .users
                    .map_or("-".to_owned(), |users| users.to_string()),
                match plugin.implements[..] {
                    [] => "-".to_owned(),
                    _ => plugin.implements.join(","),
                },
                plugin.address.clone().unwrap_or_else(|| "-".to_owned()),
            ],
        );
    }
    listing.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_plugins_says_why_one_is_broken() {
        let plugin = |name: &str, state, implements: &[&str]| Plugin {
            name: name.to_owned(),
            managed: None,
            address: Some(format!("unix:///p/{name}.sock")),
            state,
            implements: implements.iter().map(|&text| text.to_owned()).collect(),
            users: None,
        };
        let reason = "nobody listens".to_owned();
        let plugins = [
            plugin("wire", PluginState::Enabled, &["NetworkDriver"]),
            plugin("dead", PluginState::Broken { reason }, &[]),
        ];

        let shown = show(&plugins);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        NAME  KIND  STATE                   USERS  IMPLEMENTS     ADDRESS
        wire  v1    enabled                 -      NetworkDriver  unix:///p/wire.sock
        dead  v1    broken: nobody listens  -      -              unix:///p/dead.sock
        ");
    }
}
