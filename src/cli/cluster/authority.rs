//! `weft cluster authority` and `weft cluster rotate-ca`.

use std::time::Duration;

use crate::{
    api::{client::Client, http::authority::Authority},
    cli::{error::CliError, output::Output, status::show_duration},
    core::model::Name,
};

pub(super) async fn show(client: &Client, output: Output) -> Result<(), CliError> {
    output.answer(&client.authority().await?, describe)?;
    Ok(())
}

pub(super) async fn rotate(client: &Client, output: Output, now: bool) -> Result<(), CliError> {
    output.answer(&client.authority_rotate(now).await?, |authority| {
        let stands = describe(authority);
        if authority.next.is_none() {
            format!("{stands}\njoin tokens pin it: `weft token` shows the new one")
        } else {
            stands
        }
    })?;
    Ok(())
}

fn describe(authority: &Authority) -> String {
    let short = |digest: &str| digest.chars().take(16).collect::<String>();
    let signs = short(&authority.signs);
    let names: Vec<&str> = authority.waits_for.iter().map(Name::as_str).collect();
    let waits_for = match names.as_slice() {
        [] => "all members".to_owned(),
        names => names.join(", "),
    };
    if let Some(next) = &authority.next {
        return format!(
            "authority {signs} signs; {} will, once it is trusted by {waits_for}",
            short(next)
        );
    }
    match &authority.former {
        None => format!("authority {signs} signs, and no other is trusted"),
        Some(former) => {
            let since = Duration::from_millis(authority.former_for_ms.unwrap_or_default());
            format!(
                "authority {signs} signs; {} is trusted still, {} after it signed last, until a new certificate is had by {waits_for}",
                short(former),
                show_duration(since)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_of_a_change_is_one_line_that_names_who_is_waited_for() {
        let settled = Authority {
            signs: "ab".repeat(32),
            next: None,
            former: None,
            former_for_ms: None,
            waits_for: Vec::new(),
        };
        let announced = Authority {
            next: Some("cd".repeat(32)),
            waits_for: vec![Name::new("n3").unwrap()],
            ..settled.clone()
        };
        let promoted = Authority {
            former: Some("ef".repeat(32)),
            former_for_ms: Some(3_000),
            waits_for: announced.waits_for.clone(),
            ..settled.clone()
        };

        let lines = [settled, announced, promoted].map(|authority| describe(&authority));

        assert_eq!(
            lines,
            [
                "authority abababababababab signs, and no other is trusted",
                "authority abababababababab signs; cdcdcdcdcdcdcdcd will, once it is trusted by n3",
                "authority abababababababab signs; efefefefefefefef is trusted still, 3 s after it signed last, until a new certificate is had by n3",
            ]
        );
    }
}
