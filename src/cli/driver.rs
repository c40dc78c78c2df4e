//! `weft driver …`.

use super::{
    args::DriverCommand,
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::{
    api::{
        client::Client,
        http::types::{Driver, Scope},
    },
    core::model::Name,
};

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: DriverCommand,
) -> Result<(), CliError> {
    match command {
        DriverCommand::Ls => {
            let drivers = client.drivers().await?;
            output.answer(&drivers, |drivers| show(drivers))?;
        }
        DriverCommand::Inspect { driver } => {
            let drivers = client.driver(&driver).await?;
            output.answer(&drivers, |drivers| show_closely(drivers))?;
        }
    }
    Ok(())
}

fn show(drivers: &[Driver]) -> String {
    let mut listing = Listing::new(&[
        "NAME",
        "KIND",
        "ORIGIN",
        "STATE",
        "SCOPE",
        "CAPABILITY",
        "NETWORKS",
    ]);
    for driver in drivers {
        let networks: Vec<&str> = driver.networks.iter().map(Name::as_str).collect();
        let tone = if driver.alive { Tone::Plain } else { Tone::Bad };
        let origin = driver.address.as_deref().unwrap_or("built-in");
        let state = if driver.alive { "ready" } else { "restarting" };
        listing.row(
            tone,
            vec![
                driver.name.to_string(),
                driver.kind.as_str().to_owned(),
                origin.to_owned(),
                state.to_owned(),
                driver.data_scope.map_or("-", Scope::as_str).to_owned(),
                capability(driver),
                joined(&networks),
            ],
        );
    }
    listing.render()
}

fn capability(driver: &Driver) -> String {
    match driver.connectivity_scope {
        Some(scope) => format!("connects {}", scope.as_str()),
        None => joined(&driver.needs),
    }
}

fn joined(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words[..] {
        [] => "-".to_owned(),
        _ => words.join(","),
    }
}

fn show_closely(drivers: &[Driver]) -> String {
    let mut shown = show(drivers);
    for driver in drivers.iter().filter(|driver| !driver.state.is_null()) {
        let state = serde_json::to_string_pretty(&driver.state)
            .expect("a JSON value can be written as JSON");
        let heading = format!("\n{} driver:", driver.kind.as_str());
        shown.push_str(&format!("{}\n{state}\n", Tone::Heading.paint(&heading)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::types::DriverKind;

    #[test]
    fn a_list_of_drivers_has_all_kinds_with_origin_scope_capability_and_networks() {
        let driver = |name: &str, kind, networks: &[&str]| Driver {
            name: Name::new(name).unwrap(),
            kind,
            built_in: true,
            address: None,
            alive: true,
            data_scope: Some(Scope::Global),
            connectivity_scope: None,
            needs: Vec::new(),
            networks: networks
                .iter()
                .map(|name| Name::new(name).unwrap())
                .collect(),
            state: serde_json::Value::Null,
        };
        let wire = driver("wire", DriverKind::Network, &[]);
        let pools = driver("pools", DriverKind::Ipam, &["app"]);
        let drivers = [
            Driver {
                connectivity_scope: Some(Scope::Global),
                ..driver("overlay", DriverKind::Network, &["app", "db"])
            },
            Driver {
                address: Some("unix:///p/wire.sock".to_owned()),
                alive: false,
                connectivity_scope: Some(Scope::Local),
                ..wire
            },
            Driver {
                data_scope: None,
                needs: vec!["mac".to_owned(), "replay".to_owned()],
                ..pools
            },
            driver("null", DriverKind::Allocator, &[]),
        ];

        let shown = show(&drivers);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        NAME     KIND       ORIGIN               STATE       SCOPE   CAPABILITY       NETWORKS
        overlay  network    built-in             ready       global  connects global  app,db
        wire     network    unix:///p/wire.sock  restarting  global  connects local   -
        pools    ipam       built-in             ready       -       mac,replay       app
        null     allocator  built-in             ready       global  -                -
        ");
    }
}
