//! `weft driver …`.

use super::{
    args::DriverCommand,
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::{
    api::{client::Client, http::types::Driver},
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
            let driver = client.driver(&driver).await?;
            output.answer(&driver, show_one)?;
        }
    }
    Ok(())
}

fn show(drivers: &[Driver]) -> String {
    let mut listing = Listing::new(&["NAME", "KIND", "DATA", "CONNECTIVITY", "NETWORKS"]);
    for driver in drivers {
        let networks: Vec<&str> = driver.networks.iter().map(Name::as_str).collect();
        let kind = if driver.built_in {
            "built-in"
        } else {
            "plugin"
        };
        listing.row(
            Tone::Plain,
            vec![
                driver.name.to_string(),
                kind.to_owned(),
                driver.data_scope.as_str().to_owned(),
                driver.connectivity_scope.as_str().to_owned(),
                match networks[..] {
                    [] => "-".to_owned(),
                    _ => networks.join(","),
                },
            ],
        );
    }
    listing.render()
}

fn show_one(driver: &Driver) -> String {
    let listed = show(std::slice::from_ref(driver));
    if driver.state.is_null() {
        return listed;
    }
    let state =
        serde_json::to_string_pretty(&driver.state).expect("a JSON value can be written as JSON");
    format!("{listed}{}\n{state}\n", Tone::Heading.paint("\ndriver:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http::types::Scope;

    #[test]
    fn a_list_of_drivers_has_kinds_scopes_and_networks() {
        let driver = |name: &str, built_in, networks: &[&str]| Driver {
            name: Name::new(name).unwrap(),
            built_in,
            data_scope: Scope::Local,
            connectivity_scope: Scope::Global,
            networks: networks
                .iter()
                .map(|name| Name::new(name).unwrap())
                .collect(),
            state: serde_json::Value::Null,
        };
        let drivers = [
            driver("overlay", true, &["app", "db"]),
            driver("wire", false, &[]),
        ];

        let shown = show(&drivers);

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        NAME     KIND      DATA   CONNECTIVITY  NETWORKS
        overlay  built-in  local  global        app,db
        wire     plugin    local  global        -
        ");
    }
}
