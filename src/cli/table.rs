//! `weft table …`.

use std::io::Read;

use super::{
    args::{TableCommand, TableKey, Wait},
    error::CliError,
    network::told_everyone,
    output::{Listing, Output, Tone},
    status::Names,
};
use crate::{
    api::{
        client::Client,
        http::types::{
            Blob, Change, ChangeKind, Encoding, Entry, PutEntry, PutMode, SyncState, Table,
            WatchEvent, WatchQuery,
        },
    },
    core::model::{NodeId, TableName, Value},
};

/// How much of a value a table for people shows, in characters.
const SHOWN_MAX: usize = 60;

pub(super) async fn run(
    client: &Client,
    output: Output,
    command: TableCommand,
) -> Result<(), CliError> {
    match command {
        TableCommand::Ls {
            network,
            table: None,
        } => {
            let tables = client.tables(&network).await?;
            output.answer(&tables, |tables| show_tables(tables))?;
        }
        TableCommand::Ls {
            network,
            table: Some(table),
        } => {
            let entries = client.entries(&network, &table).await?;
            let names = names(client, output).await?;
            output.answer(&entries, |entries| show_entries(entries, &names))?;
        }
        TableCommand::Get(at) => {
            let entry = client.entry(&at.network, &at.table, &at.key()?).await?;
            write_value(&entry, output, at.base64)?;
        }
        TableCommand::Put {
            at,
            value,
            create,
            update,
            wait,
        } => {
            let mode = match (create, update) {
                (true, _) => PutMode::Create,
                (false, true) => PutMode::Update,
                (false, false) => PutMode::Upsert,
            };
            let value = read_value(&value, at.encoding())?;
            let entry = PutEntry { value, mode };
            client
                .put_with(&at.network, &at.table, &at.key()?, &entry)
                .await?;
            output.answer(&at.done("put")?, |_| format!("{} put", at.key))?;
            return tell_everyone(client, &at.network, wait).await;
        }
        TableCommand::Rm { at, wait } => {
            client.remove(&at.network, &at.table, &at.key()?).await?;
            output.answer(&at.done("removed")?, |_| format!("{} removed", at.key))?;
            return tell_everyone(client, &at.network, wait).await;
        }
        TableCommand::Watch {
            network,
            table,
            prefix,
            base64,
            from,
        } => {
            let table = table.as_deref().map(TableName::new).transpose();
            let query = WatchQuery {
                network,
                table: table.map_err(|refused| CliError::Usage(refused.to_string()))?,
                prefix,
                encoding: encoding(base64),
                from,
            };
            watch(client, output, &query).await?;
        }
    }
    Ok(())
}

impl TableKey {
    fn encoding(&self) -> Encoding {
        encoding(self.base64)
    }

    fn key(&self) -> Result<Blob, CliError> {
        parse(&self.key, self.encoding())
    }

    fn done(&self, what: &str) -> Result<serde_json::Value, CliError> {
        let key = self.key()?;
        Ok(serde_json::json!({ what: key, "network": self.network, "table": self.table }))
    }
}

fn encoding(base64: bool) -> Encoding {
    if base64 {
        Encoding::Base64
    } else {
        Encoding::Utf8
    }
}

/// Waits, if that was asked for, until all that this node has written is known to every live member.
async fn tell_everyone(client: &Client, network: &str, wait: Wait) -> Result<(), CliError> {
    let Some(limit) = wait.limit() else {
        return Ok(());
    };
    let applied = client.applied(network, limit).await?;
    told_everyone(Some(&applied), limit)
}

fn parse(text: &str, encoding: Encoding) -> Result<Blob, CliError> {
    Blob::parse(text, encoding).map_err(|refused| CliError::Usage(format!("{text:?} is {refused}")))
}

/// Takes the value as it is written, or `-`: standard input as it is.
fn read_value(text: &str, encoding: Encoding) -> Result<Blob, CliError> {
    if text != "-" {
        return parse(text, encoding);
    }
    let one_too_many = Value::LEN_MAX as u64 + 1;
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(one_too_many)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Usage(format!("cannot read standard input: {error}")))?;
    let value = Value::new(bytes).map_err(|refused| CliError::Usage(refused.to_string()))?;
    Ok(Blob(value.into_bytes()))
}

fn write_value(entry: &Entry, output: Output, base64: bool) -> std::io::Result<()> {
    if output.is_json() {
        output.answer(entry, |_| String::new())
    } else if base64 {
        output.bytes((entry.value.to_base64() + "\n").as_bytes())
    } else {
        output.bytes(&entry.value.0)
    }
}

async fn watch(client: &Client, output: Output, query: &WatchQuery) -> Result<(), CliError> {
    let names = names(client, output).await?;
    let mut watch = client.watch(query).await?;
    while let Some(event) = watch.next().await {
        let event = event?;
        output.each(&event, |event| show_event(event, &names))?;
    }
    Err(anyhow::anyhow!("the daemon ended the watch").into())
}

async fn names(client: &Client, output: Output) -> Result<Names, CliError> {
    if output.is_json() {
        return Ok(Names::default());
    }
    Ok(Names::of(&client.members().await?))
}

fn show_tables(tables: &[Table]) -> String {
    let mut listing = Listing::new(&["TABLE", "ENTRIES"]);
    for table in tables {
        listing.row(
            Tone::Plain,
            vec![table.name.to_string(), table.entries.to_string()],
        );
    }
    listing.render()
}

fn show_entries(entries: &[Entry], names: &Names) -> String {
    let mut listing = Listing::new(&["KEY", "VALUE", "OWNER"]);
    for entry in entries {
        listing.row(
            Tone::Plain,
            vec![
                show(&entry.key),
                show(&entry.value),
                owner(entry.owner, entry.ours, names),
            ],
        );
    }
    listing.render()
}

fn show_event(event: &WatchEvent, names: &Names) -> String {
    match event {
        WatchEvent::Entry(entry) => Tone::Faint.paint(&format!(
            "{:<10} {} {} = {}  ({})",
            "there",
            entry.table,
            show(&entry.key),
            show(&entry.value),
            owner(entry.owner, entry.ours, names)
        )),
        WatchEvent::Synced { revision } => {
            Tone::Faint.paint(&format!("-- changes after revision {revision}: --"))
        }
        WatchEvent::State { sync, .. } => show_state(*sync),
        WatchEvent::Change(change) => show_change(change, names),
        WatchEvent::Lagged => Tone::Bad.paint("-- changes were missed; what is there now: --"),
    }
}

fn show_change(change: &Change, names: &Names) -> String {
    let tone = match change.kind {
        ChangeKind::Created => Tone::Good,
        ChangeKind::Updated => Tone::Plain,
        ChangeKind::Removed
        | ChangeKind::OwnerLeft
        | ChangeKind::OwnerDown
        | ChangeKind::Detached => Tone::Bad,
    };
    let value = match &change.value {
        Some(value) => format!(" = {}", show(value)),
        None => String::new(),
    };
    let kind = format!("{:<10}", change.kind.as_str());
    format!(
        "{} {} {}{value}  ({})",
        tone.paint(&kind),
        change.table,
        show(&change.key),
        owner(change.owner, change.ours, names)
    )
}

/// Returns the owner's name; what is this node's own is marked as among the members.
fn owner(owner: NodeId, ours: bool, names: &Names) -> String {
    let here = if ours { " *" } else { "" };
    format!("{}{here}", names.show(owner))
}

fn show_state(state: Option<SyncState>) -> String {
    match state {
        Some(SyncState::Synced) => Tone::Faint.paint("-- synced: this is all there is --"),
        Some(SyncState::Syncing) => Tone::Doubtful.paint("-- syncing: there may be more --"),
        Some(SyncState::Degraded) => {
            Tone::Bad.paint("-- degraded: a member does not answer, so there may be more --")
        }
        None => Tone::Bad.paint("-- this node does not carry the network --"),
    }
}

/// Returns text as it is and other bytes in base64, on one line and not too long.
fn show(blob: &Blob) -> String {
    let text = match blob.as_text() {
        Some(text) => text.replace(['\n', '\t'], " "),
        None => format!("base64:{}", blob.to_base64()),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::NetworkId;

    #[test]
    fn a_long_or_binary_value_is_shown_on_one_short_line() {
        assert_eq!(show(&Blob::from("a\nb")), "a b");
        assert_eq!(show(&Blob(vec![0, 1].into())), "base64:AAE=");
        assert_eq!(
            show(&Blob::from("ü".repeat(100).as_str())).chars().count(),
            61
        );
    }

    #[test]
    fn what_is_this_nodes_own_is_marked_and_bytes_are_shown_in_base64() {
        let entry = |key: Blob, ours| Entry {
            network: NetworkId(1),
            table: TableName::new("t").unwrap(),
            key,
            value: "v".into(),
            owner: NodeId(3),
            written_ms: 0,
            ours,
        };
        let entries = [
            entry("k".into(), true),
            entry(Blob(vec![255].into()), false),
        ];

        let shown = show_entries(&entries, &Names::default());

        insta::assert_snapshot!(anstream::adapter::strip_str(&shown).to_string(), @r"
        KEY          VALUE  OWNER
        k            v      0000000000000003 *
        base64:/w==  v      0000000000000003
        ");
    }

    #[test]
    fn a_change_is_one_line_with_what_happened_to_what() {
        let change = Change {
            revision: 7,
            kind: ChangeKind::OwnerDown,
            network: NetworkId(1),
            table: TableName::new("services").unwrap(),
            key: "web".into(),
            value: None,
            previous: Some("10.0.0.7:80".into()),
            owner: NodeId(3),
            written_ms: 0,
            ours: false,
        };

        let shown = show_event(&WatchEvent::Change(change), &Names::default());

        assert_eq!(
            anstream::adapter::strip_str(&shown).to_string(),
            "owner_down services web  (0000000000000003)"
        );
    }
}
