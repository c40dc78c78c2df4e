//! Managed plugins behind an engine's API on a socket: lookup, acquire and release, by network.

use std::{path::PathBuf, sync::Arc};

use super::{Plugin, Reaction};
use crate::{
    core::model::{Instant, Name},
    driver::{Kind, Plugins, Registry, SourceError},
    plugin::{self, Directories, Getter},
};

/// P1 to P3 as a registry uses them: a lookup counts nobody, each network is one user, and giving back works whatever the engine
/// says, or is.
#[tokio::test]
async fn a_managed_plugin_is_counted_while_networks_use_it() {
    let plugin = Plugin::start(&[("GetCapabilities", r#"{"Scope":"global"}"#)]);
    let engine = Plugin::start(&[("plugins", &listed(&plugin, true))]);
    let registry = registry(&engine, &plugin);
    let wire = Name::new("wire").unwrap();
    registry.get(&wire, Instant::default()).await.unwrap();
    assert_eq!(users(&registry).await, Some(0));

    for _ in 0..2 {
        registry.acquire(Kind::Network, &wire).await.unwrap();
    }
    let as_ipam = registry.acquire(Kind::Ipam, &wire).await;
    assert_eq!(users(&registry).await, Some(2));
    engine.react("plugins", Reaction::Json(listed(&plugin, false)));
    let disabled = registry.acquire(Kind::Network, &wire).await;
    registry.release(Kind::Network, &wire);
    let after_one = users(&registry).await;
    engine.react("plugins", Reaction::Status(500, "the engine is ill"));
    registry.release(Kind::Network, &wire);
    registry.release(Kind::Network, &wire);
    engine.react("plugins", Reaction::Json(listed(&plugin, true)));

    let broken = |refused: Result<(), SourceError>| match refused {
        Err(SourceError::Broken(reason)) => reason,
        other => panic!("it was to be broken: {other:?}"),
    };
    assert!(broken(as_ipam).contains("does not implement IpamDriver"));
    assert!(broken(disabled).contains("is disabled"));
    assert_eq!((after_one, users(&registry).await), (Some(1), Some(0)));
}

/// A plugin that brings its own socket is nobody's to count, and a built-in driver is no plugin.
#[tokio::test]
async fn what_the_engine_does_not_manage_is_not_counted() {
    let plugin = Plugin::start(&[("Activate", r#"{"Implements":["NetworkDriver"]}"#)]);
    let engine = Plugin::start(&[("plugins", "[]")]);
    let registry = registry(&engine, &plugin);
    let null = Arc::new(crate::driver::Null);
    registry
        .register("null", crate::driver::Origin::BuiltIn, null)
        .unwrap();

    registry
        .acquire(Kind::Network, &Name::new("null").unwrap())
        .await
        .unwrap();
    let legacy = Name::new("p").unwrap();
    let path = plugin.path();
    let directories = Directories {
        sockets: path.parent().unwrap().to_owned(),
        specs: Vec::new(),
    };
    let own = registry_of(&engine, directories);
    own.acquire(Kind::Network, &legacy).await.unwrap();
    own.release(Kind::Network, &legacy);

    assert_eq!(own.plugins().await.unwrap()[0].users, None);
}

async fn users(registry: &Registry) -> Option<u32> {
    registry.plugins().await.unwrap()[0].users
}

/// What the engine lists: its plugins' sockets are in directories named after their ids.
fn listed(plugin: &Plugin, is_enabled: bool) -> String {
    serde_json::json!([{
        "Id": id(plugin),
        "Name": "wire:latest",
        "Enabled": is_enabled,
        "Config": {"Interface": {"Types": ["docker.networkdriver/1.0"], "Socket": "p.sock"}},
    }])
    .to_string()
}

fn id(plugin: &Plugin) -> String {
    let path: PathBuf = plugin.path();
    let directory = path.parent().unwrap();
    directory.file_name().unwrap().to_str().unwrap().to_owned()
}

fn registry(engine: &Plugin, plugin: &Plugin) -> Registry {
    let directories = Directories {
        sockets: plugin.path().ancestors().nth(2).unwrap().to_owned(),
        specs: Vec::new(),
    };
    registry_of(engine, directories)
}

fn registry_of(engine: &Plugin, directories: Directories) -> Registry {
    let getter = Getter::new(plugin::Config {
        engine: Some(engine.path()),
        directories,
        ..plugin::Config::default()
    });
    Registry::new().with_source(Arc::new(Plugins::new(
        getter,
        Arc::new(crate::dataplane::Memory::default()),
    )))
}
