//! How well members answer: round trips and missed probes, of the probes that are sent anyway.

use std::{collections::BTreeMap, time::Duration};

use foca::{Header, Message};

use super::{Identity, Membership};
use crate::core::model::{Instant, NodeId};

/// Of how many probes of a member it is remembered how they ended.
pub const PROBES_MAX: usize = 16;

/// How one probe of a member ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Direct,
    Through,
    Stream,
    Missed,
}

/// How a member has answered this node's probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// How long a datagram and its ack take, smoothed as RFC 6298 §2 does; nothing before the first ack. Where datagrams are
    /// lost, that includes the wait for the second copy.
    pub rtt: Option<Duration>,
    /// How much that varies: the smoothed distance from it.
    pub rtt_variation: Duration,
    /// How many of the last probes it is known how they ended, [`PROBES_MAX`] at most.
    pub probes: u8,
    /// Of them, how many were answered directly,
    pub direct: u8,
    /// how many only through others,
    pub through: u8,
    /// how many only on a stream,
    pub stream: u8,
    /// and how many not at all.
    pub missed: u8,
}

impl Health {
    /// Returns the share of the last probes that were answered directly, in percent; nothing before the first.
    pub fn percent(&self) -> Option<u8> {
        let share = u32::from(self.direct) * 100 / u32::from(self.probes.max(1));
        (self.probes > 0).then_some(u8::try_from(share).unwrap_or(100))
    }
}

/// A probe that is under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    of: Identity,
    number: u8,
    sent: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    rtt: Option<(Duration, Duration)>,
    outcomes: [Option<Outcome>; PROBES_MAX],
    next: usize,
    asked_on_stream: bool,
}

impl Row {
    /// Smooths a measured round trip (RFC 6298 §2.2 and §2.3).
    fn measure(&mut self, trip: Duration) {
        self.rtt = Some(match self.rtt {
            None => (trip, trip / 2),
            Some((smoothed, variation)) => (
                (smoothed * 7 + trip) / 8,
                (variation * 3 + smoothed.abs_diff(trip)) / 4,
            ),
        });
    }

    fn note(&mut self, outcome: Outcome) {
        self.outcomes[self.next] = Some(outcome);
        self.next = (self.next + 1) % PROBES_MAX;
    }

    fn health(&self) -> Health {
        let count = |wanted| {
            let those = self.outcomes.iter().flatten();
            those.filter(|outcome| **outcome == wanted).count() as u8
        };
        let (rtt, rtt_variation) = match self.rtt {
            Some((smoothed, variation)) => (Some(smoothed), variation),
            None => (None, Duration::ZERO),
        };
        Health {
            rtt,
            rtt_variation,
            probes: self.outcomes.iter().flatten().count() as u8,
            direct: count(Outcome::Direct),
            through: count(Outcome::Through),
            stream: count(Outcome::Stream),
            missed: count(Outcome::Missed),
        }
    }
}

/// How all members answer.
///
/// **Invariant:** there are rows of members only, and a probe under way of each at most: it is bounded as they are.
#[derive(Debug, Default)]
pub(super) struct Answers {
    rows: BTreeMap<NodeId, Row>,
    pending: BTreeMap<NodeId, Pending>,
}

impl Answers {
    /// Takes note of a probe that goes out. Those that went out more than half a period before were missed.
    pub(super) fn begin(&mut self, now: Instant, to: (Identity, u8), period: Duration) {
        let (of, number) = to;
        let over = |probe: &Pending| {
            probe.of.node == of.node || now.saturating_duration_since(probe.sent) >= period / 2
        };
        for probe in self.pending.extract_if(.., |_, probe| over(probe)) {
            let row = self.rows.entry(probe.0).or_default();
            // What was late ourselves tells nothing of the member.
            if now.saturating_duration_since(probe.1.sent) < period * 2 {
                row.note(Outcome::Missed);
            }
        }
        let row = self.rows.entry(of.node).or_default();
        row.asked_on_stream = false;
        let sent = now;
        self.pending.insert(of.node, Pending { of, number, sent });
    }

    /// Takes note of a packet that came in: it may be the ack of a probe. One that comes after its period says nothing of the
    /// way, since it waited for one of the two nodes.
    pub(super) fn hear(&mut self, now: Instant, header: &Header<Identity>, period: Duration) {
        let (of, number, outcome) = if let Message::Ack(number) = header.message {
            (header.src, number, Outcome::Direct)
        } else if let Message::ForwardedAck {
            origin,
            probe_number,
        } = header.message
        {
            (origin, probe_number, Outcome::Through)
        } else {
            return;
        };
        let Some(trip) = self.take(now, of, Some(number)) else {
            return;
        };
        let row = self.rows.entry(of.node).or_default();
        row.note(outcome);
        if outcome == Outcome::Direct && trip < period {
            row.measure(trip);
        }
    }

    /// A member is asked on a stream.
    pub(super) fn ask_on_stream(&mut self, node: NodeId) {
        self.rows.entry(node).or_default().asked_on_stream = true;
    }

    /// A member has answered on a stream.
    pub(super) fn hear_on_stream(&mut self, now: Instant, of: Identity) {
        if self.take(now, of, None).is_some() {
            self.rows.entry(of.node).or_default().note(Outcome::Stream);
        }
    }

    /// Returns how long ago the probe under way went out that is answered now.
    fn take(&mut self, now: Instant, of: Identity, number: Option<u8>) -> Option<Duration> {
        let probe = self.pending.get(&of.node)?;
        let answers = probe.of == of && number.is_none_or(|number| number == probe.number);
        let trip = now.saturating_duration_since(probe.sent);
        if answers {
            self.pending.remove(&of.node);
        }
        answers.then_some(trip)
    }

    /// Returns whether a member was asked on a stream in its last probe.
    pub(super) fn was_asked_on_stream(&self, node: NodeId) -> bool {
        self.rows.get(&node).is_some_and(|row| row.asked_on_stream)
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.rows.remove(&node);
        self.pending.remove(&node);
    }
}

impl Membership {
    /// Returns how a member has answered our probes, since we know it.
    pub fn health(&self, node: NodeId) -> Health {
        self.answers
            .rows
            .get(&node)
            .map_or_else(Health::default, Row::health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Boot;

    const PERIOD: Duration = Duration::from_millis(400);

    #[test]
    fn a_round_trip_is_smoothed_and_its_variation_told() {
        let mut answers = Answers::default();
        for (number, trip) in [(1, 8), (2, 8), (3, 16)] {
            probe(&mut answers, number);
            answers.hear(after(number, trip), &ack(number), PERIOD);
        }

        let health = answers.rows[&NodeId(7)].health();

        assert_eq!(health.rtt, Some(Duration::from_millis(9)));
        // 4, then 3, then (3 * 3 + 8) / 4 ms.
        assert_eq!(health.rtt_variation, Duration::from_micros(4_250));
        assert_eq!((health.probes, health.percent()), (3, Some(100)));
    }

    #[test]
    fn each_way_in_which_a_probe_ends_is_counted_once() {
        let mut answers = Answers::default();
        probe(&mut answers, 1);
        answers.hear(after(1, 8), &ack(1), PERIOD);
        answers.hear(after(1, 12), &ack(1), PERIOD);
        probe(&mut answers, 2);
        answers.hear(after(2, 8), &ack(1), PERIOD);
        answers.hear(after(2, 200), &forwarded(2), PERIOD);
        probe(&mut answers, 3);
        answers.ask_on_stream(NodeId(7));
        answers.hear_on_stream(after(3, 200), member());
        assert!(answers.was_asked_on_stream(NodeId(7)));
        probe(&mut answers, 4);
        assert!(!answers.was_asked_on_stream(NodeId(7)));
        probe(&mut answers, 5);

        let health = answers.rows[&NodeId(7)].health();

        let Health {
            rtt,
            probes,
            direct,
            through,
            stream,
            missed,
            ..
        } = health;
        assert_eq!(rtt, Some(Duration::from_millis(8)));
        assert_eq!((direct, through, stream, missed), (1, 1, 1, 1));
        assert_eq!((probes, health.percent()), (4, Some(25)));
    }

    #[test]
    fn a_probe_of_one_member_ends_those_of_others_and_only_the_last_ones_are_counted() {
        let mut answers = Answers::default();
        let other = Identity {
            node: NodeId(8),
            ..member()
        };
        for number in 0..100 {
            probe(&mut answers, 2 * number);
            answers.begin(after(2 * number + 1, 0), (other, 2 * number + 1), PERIOD);
        }

        let health = answers.rows[&NodeId(7)].health();

        assert_eq!((health.missed, health.percent()), (16, Some(0)));
        assert_eq!(answers.pending.len(), 1);
        answers.forget(NodeId(7));
        answers.forget(NodeId(8));
        assert!(answers.rows.is_empty() && answers.pending.is_empty());
    }

    #[test]
    fn what_came_late_because_somebody_slept_is_no_round_trip() {
        let mut answers = Answers::default();
        probe(&mut answers, 1);
        answers.hear(after(1, 5_000), &ack(1), PERIOD);
        probe(&mut answers, 20);
        // Nothing was done for seconds: what became of the probe is not known.
        probe(&mut answers, 60);

        let health = answers.rows[&NodeId(7)].health();

        assert_eq!((health.rtt, health.probes), (None, 1));
    }

    fn member() -> Identity {
        Identity {
            node: NodeId(7),
            addr: ([10, 0, 0, 7], 9338).into(),
            boot: Boot(1),
            rejoin: 0,
        }
    }

    fn after(number: u8, millis: u64) -> Instant {
        Instant::from_start(PERIOD * u32::from(number) + Duration::from_millis(millis))
    }

    fn probe(answers: &mut Answers, number: u8) {
        answers.begin(after(number, 0), (member(), number), PERIOD);
    }

    fn ack(number: u8) -> Header<Identity> {
        header(Message::Ack(number))
    }

    fn forwarded(probe_number: u8) -> Header<Identity> {
        header(Message::ForwardedAck {
            origin: member(),
            probe_number,
        })
    }

    fn header(message: Message<Identity>) -> Header<Identity> {
        Header {
            src: member(),
            src_incarnation: 0,
            dst: member(),
            message,
        }
    }
}
