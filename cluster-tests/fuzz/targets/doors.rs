//! What people and other programs hand to the daemon as text: tokens, settings, names, CNI's configuration.
#![no_main]

use std::{fmt::Display, path::PathBuf};

use fuzz::at_once;
use libfuzzer_sys::fuzz_target;
use weft::{
    api::cni,
    config::{Advertise, LogFormat, Profile, Seed},
    core::model::{ClusterId, EndpointId, Mac, Name, NodeId, TableName, Vni},
    runtime::trust::{CertifiedName, Token},
};

fuzz_target!(|text: &str| {
    survives::<Token>(text);
    survives::<CertifiedName>(text);
    survives::<NodeId>(text);
    survives::<ClusterId>(text);
    survives::<EndpointId>(text);
    survives::<Mac>(text);
    drop(text.parse::<Advertise>());
    drop(text.parse::<Seed>());
    drop(text.parse::<Profile>());
    drop(text.parse::<LogFormat>());
    drop(Name::new(text));
    drop(TableName::new(text));
    drop(text.parse().map(Vni::new));
    let variable = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".to_owned());
    drop(at_once(cni::answer(
        variable,
        text.as_bytes(),
        PathBuf::new(),
    )));
});

/// Checks that what was read is written as it can be read again.
fn survives<T: std::str::FromStr + Display>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        let again = written.parse::<T>().ok().map(|value| value.to_string());
        assert_eq!(again.as_ref(), Some(&written), "{text:?}");
    }
}
