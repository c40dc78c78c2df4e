//! Events on their way to a driver: numbered, in order, and the last ones kept for a driver that must go back a little.

use std::collections::VecDeque;

use crate::{
    core::model::NetworkId,
    driver::{EventBatch, Position, TableEvent},
};

/// How many events a driver gets at once at most.
const BATCH_MAX: usize = 256;
/// How many bytes of keys and values a driver gets at once, if more than one event has them.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How many events are kept that a driver has taken, and how many bytes of them.
const KEPT_MAX: (usize, usize) = (1024, 1024 * 1024);

/// The driver does not know what came before, and it is not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// A stream of events.
///
/// **Invariant:** `events` holds those after revision `gone`, of which the driver has taken those through `taken`.
#[derive(Debug)]
pub(super) struct Outbox {
    stream: u64,
    events: VecDeque<TableEvent>,
    gone: u64,
    taken: u64,
    /// The bytes of the events that are kept although they were taken.
    kept: usize,
    /// Whether the driver knows of the stream: that nothing is there is to be told too, or it would keep what it heard before.
    is_begun: bool,
}

impl Outbox {
    /// Begins a stream.
    pub(super) fn new(stream: u64) -> Self {
        Self {
            stream,
            events: VecDeque::new(),
            gone: 0,
            taken: 0,
            kept: 0,
            is_begun: false,
        }
    }

    /// Adds events that happened after those before.
    pub(super) fn push(&mut self, events: impl IntoIterator<Item = TableEvent>) {
        self.events.extend(events);
    }

    /// Goes on with a driver that says where it was.
    pub(super) fn resume(&mut self, at: Option<Position>) -> Result<(), Lost> {
        let at = at.filter(|at| at.stream == self.stream).ok_or(Lost)?;
        self.handle_taken(at.revision)
    }

    /// Returns what the driver is to take next: events, or at the beginning that there are none.
    pub(super) fn next<'a>(&'a mut self, network: NetworkId) -> Option<EventBatch<'a>> {
        let first = self.place(self.taken);
        let waiting = self.events.make_contiguous().get(first..)?;
        let mut bytes = 0;
        let fits = waiting.iter().take(BATCH_MAX).take_while(|event| {
            let is_first = bytes == 0;
            bytes += size(event);
            is_first || bytes <= BATCH_BYTES_MAX
        });
        let count = fits.count();
        let after = Position {
            stream: self.stream,
            revision: self.taken,
        };
        (count > 0 || !self.is_begun).then_some(EventBatch {
            network,
            after,
            events: &waiting[..count],
        })
    }

    /// Notes how far the driver has come: on, or back to what is still kept.
    pub(super) fn handle_taken(&mut self, through: u64) -> Result<(), Lost> {
        if through < self.gone || self.place(through) > self.events.len() {
            return Err(Lost);
        }
        self.is_begun = true;
        self.taken = through;
        let taken = self.place(through);
        self.kept = self.events.iter().take(taken).map(size).sum();
        while self.place(self.taken) > KEPT_MAX.0 || self.kept > KEPT_MAX.1 {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.kept -= size(&oldest);
            self.gone += 1;
        }
        Ok(())
    }

    /// Returns the last event that the driver has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Returns where in `events` the one after a revision is.
    fn place(&self, revision: u64) -> usize {
        usize::try_from(revision.saturating_sub(self.gone)).unwrap_or(usize::MAX)
    }
}

/// An event has at least the bytes of its key, which is never empty.
fn size(event: &TableEvent) -> usize {
    let of = |value: &Option<crate::core::model::Value>| {
        value.as_ref().map_or(0, |value| value.as_bytes().len())
    };
    event.key.as_bytes().len() + of(&event.value) + of(&event.previous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::{Key, NodeId, TableName, Value};

    #[test]
    fn what_was_taken_in_part_is_given_again_from_there() {
        let mut outbox = Outbox::new(9);
        outbox.push((1..=5).map(|n| event(n, 1)));

        assert_eq!(numbers(&mut outbox), (0, vec![1, 2, 3, 4, 5]));
        outbox.handle_taken(2).unwrap();

        assert_eq!(numbers(&mut outbox), (2, vec![3, 4, 5]));
        outbox.handle_taken(5).unwrap();
        assert_eq!(outbox.next(NETWORK), None);
    }

    #[test]
    fn that_nothing_is_there_is_told_once() {
        let mut outbox = Outbox::new(9);

        let first = outbox.next(NETWORK).unwrap();
        assert_eq!((first.events.len(), first.last()), (0, 0));
        outbox.handle_taken(0).unwrap();

        assert_eq!(outbox.next(NETWORK), None);
    }

    #[test]
    fn a_driver_that_kept_its_place_goes_on_there_and_another_stream_is_lost() {
        let mut outbox = Outbox::new(9);
        outbox.push((1..=5).map(|n| event(n, 1)));
        outbox.handle_taken(5).unwrap();

        let at = |stream, revision| Some(Position { stream, revision });
        assert_eq!(outbox.resume(at(9, 3)), Ok(()));
        assert_eq!(numbers(&mut outbox), (3, vec![4, 5]));
        for stranger in [None, at(8, 3), at(9, 6)] {
            assert_eq!(outbox.resume(stranger), Err(Lost));
        }
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut outbox = Outbox::new(9);
        outbox.push((0..3000).map(|n| event(n, 1)));
        outbox.handle_taken(3000).unwrap();

        assert_eq!(outbox.events.len(), KEPT_MAX.0);
        assert_eq!(outbox.handle_taken(3000 - 1024), Ok(()));
        assert_eq!(outbox.handle_taken(1000), Err(Lost));
    }

    #[test]
    fn a_batch_is_bounded_in_events_and_in_bytes_and_one_event_always_fits() {
        let mut outbox = Outbox::new(9);
        outbox.push((0..300).map(|n| event(n, 1)));
        assert_eq!(outbox.next(NETWORK).unwrap().events.len(), BATCH_MAX);

        let mut outbox = Outbox::new(9);
        outbox.push((0..40).map(|n| event(n, 60_000)));
        let batch = outbox.next(NETWORK).unwrap();
        let bytes: usize = batch.events.iter().map(size).sum();
        assert!(bytes <= BATCH_BYTES_MAX && batch.events.len() > 10);
    }

    const NETWORK: NetworkId = NetworkId(1);

    fn numbers(outbox: &mut Outbox) -> (u64, Vec<u32>) {
        let batch = outbox.next(NETWORK).unwrap();
        let number = |event: &TableEvent| {
            let bytes = event.key.as_bytes().try_into().unwrap();
            u32::from_be_bytes(bytes)
        };
        let numbers = batch.events.iter().map(number);
        (batch.after.revision, numbers.collect())
    }

    fn event(number: u32, bytes: usize) -> TableEvent {
        TableEvent {
            network: NETWORK,
            table: TableName::new("t").unwrap(),
            key: Key::new(number.to_be_bytes().to_vec()).unwrap(),
            previous: None,
            value: Some(Value::new(vec![0; bytes]).unwrap()),
            owner: NodeId(2),
        }
    }
}
