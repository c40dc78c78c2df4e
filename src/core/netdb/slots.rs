//! Things that are named by a place, which is theirs as long as they are held and another's afterwards.
//!
//! What is held by the thousand grows by an eighth at a time, not by as much again: there is one for every other node.

use std::ops::{Index, IndexMut};

/// Where a thing is.
pub(super) type Place = u32;

/// Things by place.
///
/// **Invariant:** `free` names each place once at which nothing is held.
#[derive(Debug)]
pub(super) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<Place>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Puts a thing in, and says where.
    pub(super) fn put(&mut self, thing: T) -> Place {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(thing);
            return place;
        }
        let held = self.places.len();
        if held == self.places.capacity() {
            self.places.reserve_exact(held / 8 + 1);
        }
        self.places.push(Some(thing));
        Place::try_from(held).expect("2^32 things do not fit a memory")
    }

    /// Takes a thing out.
    pub(super) fn take(&mut self, place: Place) -> Option<T> {
        let taken = self.places[place as usize].take();
        if taken.is_some() {
            self.free.push(place);
        }
        taken
    }

    pub(super) fn get(&self, place: Place) -> Option<&T> {
        self.places[place as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        self.places[place as usize].as_mut()
    }
}

impl<T> Index<Place> for Slots<T> {
    type Output = T;

    /// Returns what is at a place that was handed out and not taken back.
    fn index(&self, place: Place) -> &T {
        self.get(place).expect("who has a place holds something")
    }
}

impl<T> IndexMut<Place> for Slots<T> {
    fn index_mut(&mut self, place: Place) -> &mut T {
        self.get_mut(place)
            .expect("who has a place holds something")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_things_until_it_is_taken_and_then_anothers() {
        let mut slots = Slots::default();
        let (a, b) = (slots.put("a"), slots.put("b"));

        let taken = [slots.take(a), slots.take(a)];
        let c = slots.put("c");

        assert_eq!(taken, [Some("a"), None]);
        assert_eq!((c, slots[b], slots[c]), (a, "b", "c"));
    }

    #[test]
    fn it_has_room_for_little_more_than_it_holds() {
        let mut slots = Slots::default();
        for thing in 0..5_001 {
            slots.put(thing);
        }

        assert!(slots.places.capacity() < 5_001 * 9 / 8 + 2);
    }
}
