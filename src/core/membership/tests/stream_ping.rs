//! Asking on a stream before suspecting.

use super::{is_down, network::*, secs};
use crate::core::membership::{Event, Stats};

fn sum(network: &Network, of: impl Fn(&Stats) -> u64) -> u64 {
    network.nodes.values().map(|node| of(node.stats())).sum()
}

#[test]
fn who_answers_on_a_stream_is_not_suspected_though_every_datagram_is_lost() {
    let mut network = Network::with_nodes(8, 41);
    network.streams = true;
    network.run(secs(1));
    network.loss = 1.0;

    network.run(secs(60));

    assert_eq!(network.count(is_down), 0);
    assert_eq!(sum(&network, |stats| stats.suspected), 0);
    assert!(sum(&network, |stats| stats.stream_pongs) > 8 * 60);

    network.streams = false;
    network.run(secs(60));
    assert!(network.count(is_down) > 0);
}

#[test]
fn at_thirty_percent_loss_few_are_suspected_who_can_be_asked_on_a_stream() {
    let suspected = [false, true].map(|streams| {
        let mut network = Network::with_nodes(16, 42);
        network.loss = 0.3;
        network.streams = streams;
        network.run(secs(200));
        sum(&network, |stats| stats.suspected)
    });

    let [without, with] = suspected;
    assert!(without > 10, "{without}");
    assert_eq!(with, 0);
}

#[test]
fn a_member_that_answers_as_another_life_of_itself_is_known_as_that() {
    let mut network = Network::with_nodes(2, 44);
    network.loss = 1.0;
    network.streams = true;
    network.crash(2);
    network.start(identity(2, 9));

    network.run(secs(2));

    assert_eq!(network.count(is_down), 0);
    assert_eq!(network.count(|event| matches!(event, Event::Moved(..))), 1);
}
