//! A query's bytes and the names → the answer's bytes. Pure.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record,
        rdata::{A, AAAA, PTR},
    },
};

use super::Names;
use crate::core::model::NetworkId;

/// For how long an answer may be kept, unless told otherwise. Short: an endpoint's address goes with the endpoint.
pub const TTL: Duration = Duration::from_secs(5);

/// The longest answer over UDP, in bytes: what passes every path in one piece (DNS flag day 2020).
const UDP_MAX: u16 = 1232;

/// The most records in one answer; of more addresses, the first are given.
const RECORDS_MAX: usize = 64;

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// The answer must fit a datagram, or say that it was cut.
    Udp,
    /// The answer may be as long as it needs to be.
    Tcp,
}

/// How a query came, and what is known of who sent it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What carries the answer.
    pub transport: Transport,
    /// The networks in which a name alone is looked for; nothing: all.
    pub networks: Option<BTreeSet<NetworkId>>,
    /// How many queries came before: of several addresses, the next comes first.
    pub turn: usize,
    /// For how long the answer may be kept.
    pub ttl: Duration,
}

/// What becomes of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    /// It is none, or not to be answered.
    Nothing,
    /// The answer.
    With(Vec<u8>),
    /// It asks for what is not ours; this refuses it, if nobody else is asked.
    NotOurs(Vec<u8>),
}

/// Answers one query. What is no query gets no answer, so two servers cannot talk to each other for ever.
pub fn answer(query: &[u8], names: &dyn Names, asked: &Asked) -> Answered {
    match answered(query, names, asked) {
        None => Answered::Nothing,
        Some((bytes, ResponseCode::Refused)) => Answered::NotOurs(bytes),
        Some((bytes, _)) => Answered::With(bytes),
    }
}

fn answered(query: &[u8], names: &dyn Names, how: &Asked) -> Option<(Vec<u8>, ResponseCode)> {
    let Ok(request) = Message::from_vec(query) else {
        return malformed(query).map(|bytes| (bytes, ResponseCode::FormErr));
    };
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = empty_response(&request);
    response.metadata.response_code = match &request.queries[..] {
        _ if request.version() > 0 => ResponseCode::BADVERS,
        _ if request.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
        [asked] => {
            response.queries = vec![asked.clone()];
            resolve(asked, names, how, &mut response)
        }
        _ => ResponseCode::FormErr,
    };
    let bytes = response.to_vec().ok()?;
    let limit = request.max_payload().min(UDP_MAX);
    let code = response.metadata.response_code;
    if how.transport == Transport::Udp && bytes.len() > usize::from(limit) {
        return Some((response.truncate().to_vec().ok()?, code));
    }
    Some((bytes, code))
}

/// Makes the answer to a query that could not be passed on: that the server failed.
pub(super) fn failed(query: &[u8]) -> Option<Vec<u8>> {
    let request = Message::from_vec(query).ok()?;
    let mut response = empty_response(&request);
    response.metadata.response_code = ResponseCode::ServFail;
    response.queries = request.queries.clone();
    response.to_vec().ok()
}

/// Makes the answer to `request`, with nothing in it yet.
fn empty_response(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX);
        response.set_edns(edns);
    }
    response
}

/// Answers what looks like a query but does not decode: its id and that it is malformed, never more than it brought.
fn malformed(query: &[u8]) -> Option<Vec<u8>> {
    let [high, low, flags, ..] = *query.get(..12)? else {
        return None;
    };
    let is_query = flags & 0x80 == 0;
    let error = Message::error_msg(
        u16::from_be_bytes([high, low]),
        OpCode::Query,
        ResponseCode::FormErr,
    );
    error.to_vec().ok().filter(|_| is_query)
}

/// Adds the records of the answer and returns its code.
fn resolve(asked: &Query, names: &dyn Names, how: &Asked, response: &mut Message) -> ResponseCode {
    if asked.query_class() != DNSClass::IN {
        return ResponseCode::Refused;
    }
    let found = match asked.name().parse_arpa_name() {
        Ok(prefix) => reverse(
            prefix.addr(),
            prefix.prefix_len() == prefix.max_prefix_len(),
            names,
        ),
        Err(_not_reverse) => forward(asked.name(), names, how),
    };
    let records = match found {
        Found::NotOurs => return ResponseCode::Refused,
        Found::Nothing => {
            response.metadata.authoritative = true;
            return ResponseCode::NXDomain;
        }
        Found::Records(records) => records,
    };
    response.metadata.authoritative = true;
    let wanted = records
        .into_iter()
        .filter(|data| data.record_type() == asked.query_type());
    let owner = asked.name();
    let ttl = how.ttl.as_secs().try_into().unwrap_or(u32::MAX);
    response.add_answers(
        wanted
            .take(RECORDS_MAX)
            .map(|data| Record::from_rdata(owner.clone(), ttl, data)),
    );
    ResponseCode::NoError
}

enum Found {
    NotOurs,
    Nothing,
    Records(Vec<RData>),
}

/// Both names may have dots, so each dot may be the one between them.
fn forward(name: &Name, names: &dyn Names, how: &Asked) -> Found {
    let labels: Option<Vec<&str>> = name
        .iter()
        .map(|label| str::from_utf8(label).ok())
        .collect();
    let Some(text) = labels.map(|labels| labels.join(".")) else {
        return Found::NotOurs;
    };
    let all = |mut addresses: Vec<IpAddr>| {
        let turns = how.turn.checked_rem(addresses.len()).unwrap_or_default();
        addresses.rotate_left(turns);
        Found::Records(addresses.into_iter().map(record).collect())
    };
    let mut found = if names.has_network(&text) {
        Found::Records(Vec::new())
    } else {
        Found::NotOurs
    };
    for (dot, _) in text.match_indices('.') {
        let (endpoint, network) = (&text[..dot], &text[dot + 1..]);
        if !names.has_network(network) {
            continue;
        }
        match names.addresses(endpoint, network) {
            Some(addresses) => return all(addresses),
            None if matches!(found, Found::NotOurs) => found = Found::Nothing,
            None => {}
        }
    }
    match names.anywhere(&text, how.networks.as_ref()) {
        Some(addresses) => all(addresses),
        None => found,
    }
}

fn record(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn reverse(address: IpAddr, is_whole: bool, names: &dyn Names) -> Found {
    match names.names(address).filter(|_| is_whole) {
        None => Found::NotOurs,
        Some(found) if found.is_empty() => Found::Nothing,
        Some(found) => {
            let targets = found
                .iter()
                .filter_map(|name| Name::from_utf8(format!("{name}.")).ok());
            Found::Records(targets.map(|target| RData::PTR(PTR(target))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RecordType, rdata::NULL};
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Names for Fixed {
        fn has_network(&self, network: &str) -> bool {
            ["app", "a.b"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(network))
        }

        fn addresses(&self, endpoint: &str, network: &str) -> Option<Vec<IpAddr>> {
            match (
                endpoint.to_ascii_lowercase().as_str(),
                network.to_ascii_lowercase().as_str(),
            ) {
                ("web", "app") => Some(vec![
                    "10.0.0.2".parse().unwrap(),
                    "fd00::2".parse().unwrap(),
                ]),
                ("web.1", "a.b") => Some(vec!["10.0.1.2".parse().unwrap()]),
                ("many", "app") => Some(
                    (0..200)
                        .map(|last| IpAddr::from([10, 0, 2, last]))
                        .collect(),
                ),
                _ => None,
            }
        }

        fn anywhere(
            &self,
            endpoint: &str,
            networks: Option<&BTreeSet<NetworkId>>,
        ) -> Option<Vec<IpAddr>> {
            match (endpoint, networks) {
                ("web", None) => self.addresses("web", "app"),
                ("web", Some(_)) => Some(vec!["10.0.9.9".parse().unwrap()]),
                _ => None,
            }
        }

        fn network_of(&self, _address: IpAddr) -> Option<NetworkId> {
            None
        }

        fn names(&self, address: IpAddr) -> Option<Vec<String>> {
            match address.to_string().as_str() {
                "10.0.0.2" | "fd00::2" => Some(vec!["web.app".into()]),
                "10.0.0.3" => Some(Vec::new()),
                _ => None,
            }
        }
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn asked(transport: Transport) -> Asked {
        Asked {
            transport,
            networks: None,
            turn: 0,
            ttl: TTL,
        }
    }

    fn bytes(query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match answer(query, &Fixed, &asked(transport)) {
            Answered::Nothing => None,
            Answered::With(bytes) | Answered::NotOurs(bytes) => Some(bytes),
        }
    }

    fn ask(message: &Message, transport: Transport) -> Message {
        let bytes = bytes(&message.to_vec().unwrap(), transport).unwrap();
        let response = Message::from_vec(&bytes).unwrap();
        assert_eq!(response.metadata.id, 7);
        assert_eq!(response.metadata.message_type, MessageType::Response);
        response
    }

    fn ask_for(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        let response = ask(&query(name, kind), Transport::Udp);
        let data = response
            .answers
            .iter()
            .map(|record| record.data.to_string());
        (response.metadata.response_code, data.collect())
    }

    #[test]
    fn an_endpoint_is_found_in_each_family_and_in_any_case() {
        assert_eq!(
            ask_for("web.app.", RecordType::A),
            (ResponseCode::NoError, vec!["10.0.0.2".into()])
        );
        assert_eq!(
            ask_for("WEB.App.", RecordType::AAAA),
            (ResponseCode::NoError, vec!["fd00::2".into()])
        );
    }

    #[test]
    fn a_name_alone_is_found_in_the_askers_networks_and_addresses_come_in_turn() {
        let query = query("web.", RecordType::A).to_vec().unwrap();
        let first = |networks, turn| {
            let asked = Asked {
                transport: Transport::Udp,
                networks,
                turn,
                ttl: TTL,
            };
            let Answered::With(bytes) = answer(&query, &Fixed, &asked) else {
                panic!("it is ours")
            };
            Message::from_vec(&bytes).unwrap().answers[0]
                .data
                .to_string()
        };
        let many = |turn| {
            let how = Asked {
                turn,
                ..asked(Transport::Tcp)
            };
            match forward(&Name::from_ascii("many.app.").unwrap(), &Fixed, &how) {
                Found::Records(records) => records[0].to_string(),
                Found::NotOurs | Found::Nothing => panic!("it is there"),
            }
        };

        assert_eq!(first(None, 0), "10.0.0.2");
        assert_eq!(first(Some([NetworkId(9)].into()), 0), "10.0.9.9");
        assert_eq!(
            [many(0), many(1), many(200)],
            ["10.0.2.0", "10.0.2.1", "10.0.2.0"]
        );
    }

    #[test]
    fn names_with_dots_are_split_where_the_network_begins() {
        assert_eq!(
            ask_for("web.1.a.b.", RecordType::A),
            (ResponseCode::NoError, vec!["10.0.1.2".into()])
        );
    }

    #[test]
    fn an_address_is_found_by_its_reverse_name() {
        let nibbles = format!("2.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));

        assert_eq!(
            ask_for("2.0.0.10.in-addr.arpa.", RecordType::PTR),
            (ResponseCode::NoError, vec!["web.app.".into()])
        );
        assert_eq!(
            ask_for(&nibbles, RecordType::PTR),
            (ResponseCode::NoError, vec!["web.app.".into()])
        );
        assert_eq!(
            ask_for("3.0.0.10.in-addr.arpa.", RecordType::PTR).0,
            ResponseCode::NXDomain
        );
        assert_eq!(
            ask_for("4.0.0.10.in-addr.arpa.", RecordType::PTR).0,
            ResponseCode::Refused
        );
        assert_eq!(
            ask_for("0.0.10.in-addr.arpa.", RecordType::PTR).0,
            ResponseCode::Refused
        );
    }

    #[test]
    fn what_is_missing_what_is_empty_and_what_is_not_ours_differ() {
        assert_eq!(
            ask_for("db.app.", RecordType::A),
            (ResponseCode::NXDomain, vec![])
        );
        assert_eq!(
            ask_for("web.1.a.b.", RecordType::AAAA),
            (ResponseCode::NoError, vec![])
        );
        assert_eq!(
            ask_for("web.app.", RecordType::TXT),
            (ResponseCode::NoError, vec![])
        );
        assert_eq!(
            ask_for("app.", RecordType::A),
            (ResponseCode::NoError, vec![])
        );
        assert_eq!(
            ask_for("example.com.", RecordType::A),
            (ResponseCode::Refused, vec![])
        );
        assert_eq!(ask_for(".", RecordType::A), (ResponseCode::Refused, vec![]));
    }

    #[test]
    fn an_answer_too_long_for_a_datagram_is_cut_and_whole_over_tcp() {
        let plain = query("many.app.", RecordType::A);
        let mut extended = plain.clone();
        extended.set_edns(Edns::new());
        extended.edns.as_mut().unwrap().set_max_payload(4096);

        let cut = ask(&plain, Transport::Udp);
        let whole = ask(&plain, Transport::Tcp);
        let fits = ask(&extended, Transport::Udp);

        assert!(cut.metadata.truncation && cut.answers.is_empty());
        assert_eq!(whole.answers.len(), RECORDS_MAX);
        assert_eq!(
            (fits.metadata.truncation, fits.answers.len()),
            (false, RECORDS_MAX)
        );
    }

    #[test]
    fn what_is_no_plain_query_is_told_so_or_left_alone() {
        let mut response = query("web.app.", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        let mut update = query("web.app.", RecordType::A);
        update.metadata.op_code = OpCode::Status;
        let mut two = query("web.app.", RecordType::A);
        two.add_query(Query::query(
            Name::from_ascii("db.app.").unwrap(),
            RecordType::A,
        ));
        let mut newer = query("web.app.", RecordType::A);
        newer.set_edns(Edns::new());
        newer.edns.as_mut().unwrap().set_version(1);

        assert_eq!(bytes(&response.to_vec().unwrap(), Transport::Udp), None);
        assert_eq!(
            ask(&update, Transport::Udp).metadata.response_code,
            ResponseCode::NotImp
        );
        assert_eq!(
            ask(&two, Transport::Udp).metadata.response_code,
            ResponseCode::FormErr
        );
        // 16 is BADSIG where there is a signature.
        let refused = ask(&newer, Transport::Udp).metadata.response_code;
        assert_eq!(u16::from(refused), u16::from(ResponseCode::BADVERS));
        assert_eq!(bytes(&[0, 7, 0], Transport::Udp), None);
    }

    #[test]
    fn a_record_in_a_query_is_no_reason_to_answer_more() {
        let mut loaded = query("example.com.", RecordType::A);
        loaded.add_additional(Record::from_rdata(
            Name::root(),
            0,
            RData::NULL(NULL::with(vec![1; 300])),
        ));

        let response = ask(&loaded, Transport::Udp);

        assert!(response.additionals.is_empty());
    }

    proptest! {
        #[test]
        fn random_bytes_never_get_more_than_a_header_or_a_query_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(answered) = self::bytes(&bytes, Transport::Udp) {
                prop_assert!(answered.len() <= usize::from(UDP_MAX));
                prop_assert!(answered[2] & 0x80 != 0);
            }
        }

        #[test]
        fn a_truncated_query_never_panics(cut in 0_usize..40) {
            let whole = query("web.app.", RecordType::A).to_vec().unwrap();
            let _ = bytes(&whole[..cut.min(whole.len())], Transport::Udp);
        }
    }
}
