//! Where things are on the control API.

use std::time::Duration;

use crate::api::http::types::{Blob, Encoding, JoinQuery, KeyQuery, WatchQuery};

pub(super) fn at_network(network: &str, rest: &str) -> String {
    let mut uri = String::from("/v1/networks/");
    escape(network, &mut uri);
    uri.push_str(rest);
    uri
}

pub(super) fn at_driver(driver: &str) -> String {
    let mut uri = String::from("/v1/drivers/");
    escape(driver, &mut uri);
    uri
}

pub(super) fn at_plugin(plugin: &str) -> String {
    let mut uri = String::from("/v1/plugins/");
    escape(plugin, &mut uri);
    uri
}

pub(super) fn at_endpoint(network: &str, endpoint: &str, rest: &str) -> String {
    let mut uri = at_network(network, "/endpoints/");
    escape(endpoint, &mut uri);
    uri.push_str(rest);
    uri
}

pub(super) fn at_member(member: &str) -> String {
    let mut uri = String::from("/v1/members/");
    escape(member, &mut uri);
    uri
}

pub(super) fn at_removal(member: &str, keep_token: bool) -> String {
    let kept = keep_token.then_some("true");
    with_query(at_member(member), &[("keep_token", kept)])
}

pub(super) fn at_member_watch(from: Option<u64>) -> String {
    let from = from.map(|revision| revision.to_string());
    with_query("/v1/watch/members".to_owned(), &[("from", from.as_deref())])
}

pub(super) fn at_table(network: &str, table: &str) -> String {
    let mut uri = at_network(network, "/tables/");
    escape(table, &mut uri);
    uri
}

pub(super) fn at_key(network: &str, table: &str, key: &Blob) -> String {
    let query = match key.as_text() {
        Some(text) => KeyQuery {
            key: text.to_owned(),
            encoding: Encoding::Utf8,
        },
        None => KeyQuery {
            key: key.to_base64(),
            encoding: Encoding::Base64,
        },
    };
    let mut uri = at_table(network, table);
    uri.push_str("/entries?encoding=");
    uri.push_str(encoding_word(query.encoding));
    uri.push_str("&key=");
    escape(&query.key, &mut uri);
    uri
}

/// Adds how long the daemon may wait.
pub(super) fn waiting(uri: String, wait: Duration) -> String {
    format!("{uri}?wait_ms={}", wait.as_millis())
}

pub(super) fn at_watch(query: &WatchQuery) -> String {
    let from = query.from.map(|revision| revision.to_string());
    let encoding = query.prefix.as_ref().map(|_| encoding_word(query.encoding));
    let parts = [
        ("network", Some(query.network.as_str())),
        ("table", query.table.as_ref().map(|table| table.as_str())),
        ("prefix", query.prefix.as_deref()),
        ("encoding", encoding),
        ("from", from.as_deref()),
    ];
    with_query("/v1/watch".to_owned(), &parts)
}

pub(super) fn at_join(network: &str, endpoint: &str, query: &JoinQuery) -> String {
    let parts = [
        ("netns", query.netns.as_deref()),
        ("interface", query.interface.as_deref()),
    ];
    with_query(at_endpoint(network, endpoint, "/join"), &parts)
}

/// Adds the parts that there are.
fn with_query(mut uri: String, parts: &[(&str, Option<&str>)]) -> String {
    let mut mark = '?';
    for (name, value) in parts {
        if let Some(value) = value {
            uri.push(mark);
            uri.push_str(name);
            uri.push('=');
            escape(value, &mut uri);
            mark = '&';
        }
    }
    uri
}

fn encoding_word(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Utf8 => "utf-8",
        Encoding::Base64 => "base64",
    }
}

/// Writes a part of a uri: all but the unreserved characters (RFC 3986 §2.3) as `%XX`.
fn escape(part: &str, uri: &mut String) {
    use std::fmt::Write;
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || byte == b'.' && part.len() > 2
        {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02X}").expect("a string takes everything");
        }
    }
}
