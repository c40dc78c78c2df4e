//! The table-driver protocol, `weft.TableDriver/1.0`: what a plugin says of tables and entries, and what it hears.
//!
//! `docs/table-driver-protocol.md` is its description for those who write plugins.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::message::{
    DecodeReply, DecodeTableEntry, EntryReply, Event, EventNotify, EventReply, NetworkReply,
    TableReply, network_id,
};
use crate::{
    core::model::{EndpointId, Key, TableEntry, TableName, Value},
    driver::{Decoded, EventBatch, ObjectType, Position, Progress, TableEvent, TableInterest},
};

/// In how many tables of a network a driver may be interested.
const TABLES_MAX: usize = 64;
/// How many entries a join may add.
const ENTRIES_MAX: usize = 1024;
/// The longest pause that a driver may ask for: longer, and its entries would be old news.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What a plugin answered to CreateNetwork.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Interests {
    pub(super) tables: Vec<TableInterest>,
    pub(super) position: Option<Position>,
}

pub(super) fn read_interests(reply: NetworkReply) -> Result<Interests, String> {
    if reply.tables.len() > TABLES_MAX {
        let count = reply.tables.len();
        return Err(format!("{count} tables: at most {TABLES_MAX} are allowed"));
    }
    let tables = reply.tables.iter().map(read_table);
    let position = match reply.position {
        Some(at) => {
            let stream = u64::from_str_radix(&at.stream, 16);
            let stream = stream.map_err(|error| format!("stream {:?}: {error}", at.stream))?;
            let revision = at.revision;
            Some(Position { stream, revision })
        }
        None => None,
    };
    Ok(Interests {
        tables: tables.collect::<Result<_, _>>()?,
        position,
    })
}

fn read_table(reply: &TableReply) -> Result<TableInterest, String> {
    let table = TableName::new(&reply.name);
    let table = table.map_err(|error| format!("table {:?}: {error}", reply.name))?;
    let object = ObjectType::try_from(reply.object_type);
    let object = object.map_err(|error| format!("table {table}: {error}"))?;
    Ok(TableInterest { table, object })
}

pub(super) fn read_entries(replies: &[EntryReply]) -> Result<Vec<TableEntry>, String> {
    if replies.len() > ENTRIES_MAX {
        let count = replies.len();
        return Err(format!(
            "{count} table entries: at most {ENTRIES_MAX} are allowed"
        ));
    }
    let mut places = BTreeSet::new();
    let mut entries = Vec::new();
    for reply in replies {
        let entry = read_entry(reply)?;
        if !places.insert((entry.table.clone(), entry.key.clone())) {
            let table = &entry.table;
            return Err(format!("table {table} has the key {:?} twice", reply.key));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_entry(reply: &EntryReply) -> Result<TableEntry, String> {
    let table = TableName::new(&reply.table_name);
    let table = table.map_err(|error| format!("table {:?}: {error}", reply.table_name))?;
    let decoded = |what: &str, text: &str| {
        let bytes = BASE64.decode(text);
        bytes.map_err(|error| format!("{what} {text:?} of table {table} is no base64: {error}"))
    };
    let key = Key::new(decoded("key", &reply.key)?);
    let key = key.map_err(|error| format!("a key of table {table}: {error}"))?;
    let value = Value::new(decoded("value", &reply.value)?);
    let value = value.map_err(|error| format!("a value of table {table}: {error}"))?;
    Ok(TableEntry { table, key, value })
}

pub(super) fn notice(batch: &EventBatch<'_>) -> EventNotify {
    let numbered = (batch.after.revision + 1..).zip(batch.events);
    EventNotify {
        network: network_id(batch.network),
        stream: format!("{:016x}", batch.after.stream),
        after: batch.after.revision,
        events: numbered.map(|(number, told)| event(number, told)).collect(),
    }
}

fn event(revision: u64, told: &TableEvent) -> Event {
    let text = |value: &Option<Value>| Some(BASE64.encode(value.as_ref()?.as_bytes()));
    Event {
        revision,
        kind: match (&told.previous, &told.value) {
            (None, Some(_)) => 1,
            (Some(_), Some(_)) => 2,
            (_, None) => 3,
        },
        table_name: told.table.to_string(),
        key: BASE64.encode(told.key.as_bytes()),
        value: text(&told.value),
        previous: text(&told.previous),
        owner: told.owner.to_string(),
    }
}

/// A plugin that does not say how far it has come has taken all.
pub(super) fn read_progress(
    reply: &EventReply,
    batch: &EventBatch<'_>,
) -> Result<Progress, String> {
    let last = batch.last();
    let through = reply.revision.unwrap_or(last);
    if through > last {
        return Err(format!(
            "it has taken events through revision {through}, but was told of {last} only"
        ));
    }
    let pause = reply.retry_after_ms.map(Duration::from_millis);
    Ok(Progress {
        through,
        pause: pause.map(|pause| pause.min(PAUSE_MAX)),
    })
}

pub(super) fn question(entry: &TableEntry) -> DecodeTableEntry {
    DecodeTableEntry {
        table_name: entry.table.to_string(),
        key: BASE64.encode(entry.key.as_bytes()),
        value: BASE64.encode(entry.value.as_bytes()),
    }
}

/// A plugin that says nothing of an entry does not know it.
pub(super) fn read_decoded(reply: DecodeReply) -> Result<Option<Decoded>, String> {
    let says: BTreeMap<String, String> = reply.info;
    let endpoint = match reply.endpoint.as_str() {
        "" => None,
        text => Some(read_endpoint(text).ok_or_else(|| format!("{text:?} is no endpoint's id"))?),
    };
    Ok((endpoint.is_some() || !says.is_empty()).then_some(Decoded { endpoint, says }))
}

/// Reads an endpoint's id as plugins know it: its 32 digits, twice.
fn read_endpoint(text: &str) -> Option<EndpointId> {
    let (first, second) = text.split_at_checked(32)?;
    let id = u128::from_str_radix(first, 16).ok()?;
    (first == second).then_some(EndpointId(id))
}
