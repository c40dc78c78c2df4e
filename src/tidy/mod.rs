//! Checks of the code itself: who may import whom, where each heavy crate lives, how long a file is.
//!
//! They read tokens, not types: comments and strings are left out, so documentation may name any room or crate.

mod code;

use std::{
    fs,
    path::{Path, PathBuf},
};

use code::{Source, paths, tokens};

/// Every room, and the rooms it may import.
///
/// **Invariant:** a room imports rooms above it only, so the table is its own proof that there is no cycle. A new line
/// here, or a longer one, is an argued change of its own.
const ROOMS: &[(&str, &[&str])] = &[
    ("core::model", &[]),
    ("core::wire", &["core::model"]),
    ("core::membership", &["core::model", "core::wire"]),
    ("core::netdb", &["core::model", "core::wire"]),
    ("core::watch", &["core::model", "core::netdb"]),
    ("core::ipam", &["core::model"]),
    ("core::agreement", &["core::model"]),
    (
        "core::allocator",
        &["core::model", "core::wire", "core::ipam"],
    ),
    ("core::overlay", &["core::model"]),
    (
        "core::node",
        &[
            "core::model",
            "core::wire",
            "core::membership",
            "core::netdb",
            "core::watch",
        ],
    ),
    ("sim", &["core"]),
    ("store", &["core"]),
    ("runtime", &["core"]),
    ("raft", &["core", "store", "runtime"]),
    ("dataplane", &["core"]),
    ("plugin", &["core"]),
    ("driver", &["core", "plugin", "dataplane"]),
    (
        "controller",
        &["core", "store", "runtime", "raft", "driver"],
    ),
    ("dns", &["core", "runtime"]),
    ("engine", &["core", "plugin", "controller"]),
    (
        "api",
        &[
            "core",
            "runtime",
            "plugin",
            "driver",
            "controller",
            "engine",
        ],
    ),
    ("config", &["core", "runtime", "raft", "dns", "api"]),
    (
        "cli",
        &[
            "core",
            "sim",
            "store",
            "runtime",
            "raft",
            "dataplane",
            "plugin",
            "driver",
            "controller",
            "dns",
            "engine",
            "api",
            "config",
        ],
    ),
];

/// Crates and modules that stay in the rooms named beside them, so that each can be changed in one place.
const HEAVY: &[(&str, &[&str])] = &[
    ("foca", &["core::membership"]),
    ("bincode::config", &["core::wire"]),
    ("bincode::decode_from_slice", &["core::wire"]),
    ("bincode::encode_to_vec", &["core::wire"]),
    ("aws_lc_rs", &["core::wire", "runtime"]),
    ("openraft", &["raft"]),
    ("redb", &["store", "raft"]),
    ("rustls", &["runtime", "plugin"]),
    ("tokio_rustls", &["runtime", "plugin"]),
    ("rcgen", &["runtime", "plugin"]),
    ("tokio::net", &["runtime", "plugin", "dns", "api"]),
    ("hyper", &["plugin", "api"]),
    ("hyper_util", &["plugin", "api"]),
    ("axum", &["api"]),
    ("hickory_proto", &["dns"]),
    ("rtnetlink", &["dataplane"]),
    ("toml", &["config"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("plotters", &["cli"]),
];

/// What the core must not touch: it decides, and the rest acts. Tests of the core may.
const BANNED_IN_CORE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::time::Instant",
    "std::time::SystemTime",
    "rand::rngs::SysRng",
];

/// What the repository shows at its top, apart from dotfiles and what `.gitignore` names.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "cluster-tests",
    "docker-compose.yml",
    "docs",
    "src",
];

/// The longest file, in lines.
const LINES_MAX: usize = 600;

#[test]
fn the_import_table_has_no_cycle() {
    let mut above = Vec::new();
    for (room, imports) in ROOMS {
        for import in *imports {
            assert!(
                *import == "core" || above.contains(import),
                "{room} imports {import}, which does not stand above it in ROOMS: move the room, or turn the import round"
            );
            assert!(
                *import != "core" || !room.starts_with("core::"),
                "{room} is in the core: name the rooms it imports one by one"
            );
        }
        above.push(room);
    }
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    report(sources("src").flat_map(|source| import_faults(&source)));
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    report(sources("src").flat_map(|source| heavy_faults(&source)));
}

#[test]
fn the_core_touches_nothing_outside() {
    report(sources("src").flat_map(|source| core_faults(&source)));
}

#[test]
fn no_path_climbs_two_modules() {
    report(sources("src").flat_map(|source| climb_faults(&source)));
}

#[test]
fn every_file_says_what_it_is_and_is_short_enough_to_read() {
    let all = ["src", "cluster-tests", "benches"];
    report(
        all.into_iter()
            .flat_map(sources)
            .flat_map(|source| shape_faults(&source)),
    );
}

#[test]
fn the_top_level_is_fixed() {
    let root = root();
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let names = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());

    report(names.filter_map(|name| top_level_fault(&name, &ignored)));
}

fn import_faults(source: &Source) -> Vec<String> {
    let paths = paths(source);
    let crossings = paths
        .iter()
        .filter_map(|path| Some((path.line, imported_room(&path.parts)?)));
    let Some(room) = source.room() else {
        // A front door declares rooms. `main.rs` calls the command line and nothing else.
        let is_main = source.path == "src/main.rs";
        return crossings
            .filter(|(_, import)| {
                !(source.path.starts_with("src/tidy/") || (is_main && import == "cli"))
            })
            .map(|(line, import)| {
                source.fault(
                    line,
                    &format!("this file may not import {import}: move the code into a room"),
                )
            })
            .collect();
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![source.fault(
            1,
            &format!("room {room} is not in ROOMS (src/tidy/mod.rs): give it its place there"),
        )];
    };
    crossings
        .filter(|(_, import)| *import != room)
        .filter(|(_, import)| !allowed.iter().any(|room| import == room || (*room == "core" && import.starts_with("core::"))))
        .map(|(line, import)| {
            source.fault(
                line,
                &format!("{room} may not import {import}: pass what it needs as an argument, or argue for a new line in ROOMS (src/tidy/mod.rs)"),
            )
        })
        .collect()
}

/// Returns the room that a path from the crate's top leads into.
fn imported_room(parts: &[String]) -> Option<String> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["crate" | "weft", "core", room, ..] => Some(format!("core::{room}")),
        ["crate" | "weft", room, ..] => Some(room.to_owned()),
        _ => None,
    }
}

fn heavy_faults(source: &Source) -> Vec<String> {
    let room = source.room().unwrap_or_default();
    let mut faults = Vec::new();
    for path in paths(source) {
        for (heavy, rooms) in HEAVY {
            if !source.path.starts_with("src/tidy/")
                && leads_into(&path.parts, heavy)
                && !rooms.contains(&room.as_str())
            {
                let what = format!(
                    "{heavy} is named in {} only: ask that room for what is needed here",
                    rooms.join(", ")
                );
                faults.push(source.fault(path.line, &what));
            }
        }
    }
    faults
}

fn core_faults(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/core/") || source.is_test_file() {
        return Vec::new();
    }
    let banned = paths(source)
        .into_iter()
        .filter(|path| !path.in_tests)
        .filter_map(|path| {
            let name = BANNED_IN_CORE
                .iter()
                .find(|banned| leads_into(&path.parts, banned))?;
            Some(source.fault(
                path.line,
                &format!("the core may not use {name}: take its outcome as an argument"),
            ))
        });
    let waits = tokens(&source.text)
        .into_iter()
        .filter(|token| matches!(token.text.as_str(), "async" | "await"));
    banned
        .chain(waits.map(|token| {
            source.fault(
                token.line,
                "the core does not wait: make it an input or a poll",
            )
        }))
        .collect()
}

fn leads_into(parts: &[String], prefix: &str) -> bool {
    let mut parts = parts.iter();
    prefix
        .split("::")
        .all(|expected| parts.next().is_some_and(|part| part == expected))
}

fn climb_faults(source: &Source) -> Vec<String> {
    tokens(&source.text)
        .windows(3)
        .filter(|window| {
            window
                .iter()
                .map(|token| token.text.as_str())
                .eq(["super", "::", "super"])
        })
        .map(|window| {
            source.fault(
                window[0].line,
                "`super::super` hides where it leads: write the path from `crate`",
            )
        })
        .collect()
}

fn shape_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    if !source.text.starts_with("//!") {
        faults.push(source.fault(
            1,
            "the first line must begin with `//!` and say what the file is",
        ));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        let what = format!(
            "{lines} lines, at most {LINES_MAX} are allowed: split the file by state or by concern"
        );
        faults.push(source.fault(LINES_MAX + 1, &what));
    }
    faults
}

fn top_level_fault(name: &str, gitignore: &str) -> Option<String> {
    let is_ignored = gitignore.lines().any(|line| line.trim_matches('/') == name);
    let is_known = name.starts_with('.') || TOP_LEVEL.contains(&name) || is_ignored;
    (!is_known).then(|| {
        format!(
            "{name}:1: the top level is fixed: put it under src, cluster-tests, benches or docs"
        )
    })
}

fn report(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(
        faults.is_empty(),
        "{} to mend:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file under a directory of the repository, in the order of their paths.
fn sources(directory: &str) -> impl Iterator<Item = Source> {
    let mut found = Vec::new();
    collect(&root().join(directory), &mut found);
    assert!(
        !found.is_empty(),
        "no Rust file under {directory}: has the tree moved?"
    );
    found.sort();
    found.into_iter().map(|path| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
    })
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_forbidden_import_is_found_in_every_way_to_write_it() {
        for text in [
            "use crate::raft::Raft;",
            "use crate::{core::model, raft};",
            "use crate::{core::{model::{NodeId as Id, Name}, wire}, raft::*};",
            "fn f() { crate::raft::Raft::start(); }",
            "use super::raft;",
            "mod tests { use crate::raft::Raft; }",
        ] {
            let faults =
                import_faults(&source("src/store/mod.rs", &format!("//! Disk.\n\n{text}")));

            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert!(
                faults[0].starts_with("src/store/mod.rs:3: store may not import raft"),
                "{}",
                faults[0]
            );
        }
    }

    #[test]
    fn what_the_table_allows_is_not_reported() {
        for (path, text) in [
            (
                "src/store/mod.rs",
                "use crate::core::{model::NodeId, wire::codec};",
            ),
            (
                "src/core/wire/codec.rs",
                "use super::keyring::Keyring; use crate::core::model;",
            ),
            ("src/core/wire/mod.rs", "mod tests { use super::keyring; }"),
            (
                "src/store/mod.rs",
                "//! [`crate::raft`]\n/* crate::raft /* x */ crate::raft */ const A: &str = \"crate::raft\";",
            ),
            (
                "src/store/mod.rs",
                "const A: &str = r#\"a \"crate::raft\" b\"#; fn f<'a>(x: &'a u8) -> char { '\"' }",
            ),
            ("src/main.rs", "fn main() { weft::cli::run(); }"),
        ] {
            assert_eq!(
                import_faults(&source(path, text)),
                Vec::<String>::new(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_room_inside_the_core_is_reached_by_super_too() {
        let faults = import_faults(&source("src/core/wire/mod.rs", "use super::netdb;"));

        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn a_heavy_crate_is_found_outside_its_room() {
        for text in [
            "use foca::Foca;",
            "use {foca::Foca, std::fmt};",
            "fn f(x: foca::Foca) {}",
            "use foca;",
        ] {
            assert_eq!(
                heavy_faults(&source("src/core/netdb/mod.rs", text)).len(),
                1,
                "{text}"
            );
            assert!(
                heavy_faults(&source("src/core/membership/mod.rs", text)).is_empty(),
                "{text}"
            );
        }
        let own = "let foca = self.foca.len(); other::foca::x();";
        assert!(heavy_faults(&source("src/core/netdb/mod.rs", own)).is_empty());
    }

    #[test]
    fn the_core_may_not_lock_or_wait_but_its_tests_may_read_files() {
        assert_eq!(
            core_faults(&source(
                "src/core/netdb/mod.rs",
                "use std::sync::{Arc, Mutex};"
            ))
            .len(),
            1
        );
        assert_eq!(
            core_faults(&source("src/core/netdb/mod.rs", "async fn f() {}")).len(),
            1
        );
        assert!(
            core_faults(&source(
                "src/core/netdb/mod.rs",
                "mod tests { use std::fs; }"
            ))
            .is_empty()
        );
        assert!(core_faults(&source("src/runtime/mod.rs", "use tokio::sync::mpsc;")).is_empty());
    }

    #[test]
    fn a_climb_a_missing_header_and_a_long_file_are_found() {
        assert_eq!(
            climb_faults(&source("src/store/a.rs", "use super::super::b;")).len(),
            1
        );
        assert_eq!(shape_faults(&source("src/store/a.rs", "use a;")).len(), 1);
        let long = format!("//! Long.\n{}", "\n".repeat(600));
        assert_eq!(shape_faults(&source("src/store/a.rs", &long)).len(), 1);
    }

    #[test]
    fn a_stranger_at_the_top_is_found() {
        assert!(top_level_fault("src", "").is_none());
        assert!(top_level_fault(".ci", "").is_none());
        assert!(top_level_fault("target", "/target\n").is_none());
        assert!(top_level_fault("scripts", "/target\n").is_some());
    }
}
