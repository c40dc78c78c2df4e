//! A space: prefixes that must not overlap, and the first fit for one more.

use std::{collections::BTreeMap, net::IpAddr};

use bincode::{Decode, Encode};
use ipnet::IpNet;

use super::add;
use crate::core::model::Prefix;

/// Prefixes to choose from: `base`, from its address on, cut into prefixes of length `length`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Pool {
    /// What is cut. Its address may lie inside: that is where the search begins.
    pub base: Prefix,
    /// How long the pieces' prefixes are.
    pub length: u8,
}

/// A prefix was refused: another one of the space overlaps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{existing} is taken already")]
pub struct Overlap {
    /// The other one.
    pub existing: Prefix,
}

/// Why no prefix was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// The caller asked for pieces that no pool can be cut into.
    #[error("no pool can be cut into prefixes of length {0}")]
    BadLength(u8),
    /// Everything is taken.
    #[error("no prefix of length {0} is free")]
    Exhausted(u8),
}

/// Prefixes of both families, none overlapping another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// First address → prefix length. IPv4 sorts before IPv6, so one map holds both.
    taken: BTreeMap<IpAddr, u8>,
    /// First → last address of what is taken without a gap: follows from `taken`.
    runs: BTreeMap<IpAddr, IpAddr>,
}

impl Space {
    /// Takes exactly `prefix`.
    pub fn take(&mut self, prefix: Prefix) -> Result<(), Overlap> {
        if let Some(existing) = self.overlap(prefix) {
            return Err(Overlap { existing });
        }
        self.insert(prefix.0.trunc());
        Ok(())
    }

    /// Takes the first free prefix of the pools, or of length `length` in them if one is given, that is clear of `reserved`.
    pub fn take_from(
        &mut self,
        pools: &[Pool],
        length: Option<u8>,
        reserved: &Self,
    ) -> Result<Prefix, PoolError> {
        let wanted = |pool: &Pool| length.unwrap_or(pool.length);
        let fits = |pool: &&Pool| {
            let length = wanted(pool);
            (pool.base.0.prefix_len()..=pool.base.0.max_prefix_len()).contains(&length)
        };
        let mut asked = None;
        for pool in pools.iter().filter(fits) {
            asked = Some(wanted(pool));
            let start = pool.base.0.addr();
            if let Some(found) = self.first_fit(pool.base, start, wanted(pool), reserved) {
                self.insert(found.0);
                return Ok(found);
            }
        }
        Err(match asked {
            Some(asked) => PoolError::Exhausted(asked),
            None => PoolError::BadLength(length.unwrap_or_default()),
        })
    }

    /// Takes `prefix` together with what is taken of it already.
    pub fn cover(&mut self, prefix: Prefix) {
        while let Err(Overlap { existing }) = self.take(prefix) {
            if existing.0.contains(&prefix.0.trunc()) {
                return;
            }
            self.release(existing);
        }
    }

    /// Gives `prefix` back; returns whether it was taken.
    pub fn release(&mut self, prefix: Prefix) -> bool {
        let net = prefix.0.trunc();
        let is_taken = self.taken.get(&net.addr()) == Some(&net.prefix_len());
        if is_taken {
            self.remove(net);
        }
        is_taken
    }

    /// Returns the first taken prefix that overlaps `prefix`.
    pub fn overlap(&self, prefix: Prefix) -> Option<Prefix> {
        let net = prefix.0.trunc();
        let before = self.taken.range(..=net.network()).next_back();
        let first_inside = || self.taken.range(net.network()..=net.broadcast()).next();
        before
            .map(to_prefix)
            .filter(|other| other.0.contains(&net.network()))
            .or_else(|| first_inside().map(to_prefix))
    }

    /// Returns the first free prefix of `length` inside `within`, at `start` or after it, clear of `self` and `reserved`.
    ///
    /// It jumps from run to run of what is taken, so it costs as much as there are gaps, not as there are prefixes to try.
    pub fn first_fit(
        &self,
        within: Prefix,
        start: IpAddr,
        length: u8,
        reserved: &Self,
    ) -> Option<Prefix> {
        let within = within.0.trunc();
        let mut candidate = aligned(start.max(within.network()), length)?;
        while within.contains(&candidate) {
            let obstacle = self.run(candidate).or_else(|| reserved.run(candidate));
            let Some(last) = obstacle else {
                return Some(Prefix(candidate));
            };
            candidate = aligned(add(last.max(candidate.broadcast()), 1)?, length)?;
        }
        None
    }

    fn insert(&mut self, net: IpNet) {
        self.taken.insert(net.addr(), net.prefix_len());
        let (mut first, mut last) = (net.network(), net.broadcast());
        if let Some((before, end)) = self.runs.range(..first).next_back()
            && add(*end, 1) == Some(first)
        {
            first = *before;
        }
        if let Some(end) = add(last, 1).and_then(|after| self.runs.remove(&after)) {
            last = end;
        }
        self.runs.insert(first, last);
    }

    fn remove(&mut self, net: IpNet) {
        self.taken.remove(&net.addr());
        let (first, last) = (net.network(), net.broadcast());
        let Some((start, end)) = self.runs.range(..=first).next_back().map(|(a, b)| (*a, *b))
        else {
            return;
        };
        self.runs.remove(&start);
        if let Some((before, length)) = self.taken.range(start..first).next_back() {
            self.runs
                .insert(start, to_prefix((before, length)).0.broadcast());
        }
        if let Some(after) = add(last, 1).filter(|after| *after <= end) {
            self.runs.insert(after, end);
        }
    }

    /// Returns the last address of the last run that overlaps `net`.
    fn run(&self, net: IpNet) -> Option<IpAddr> {
        let (_, last) = self.runs.range(..=net.broadcast()).next_back()?;
        (*last >= net.network()).then_some(*last)
    }

    /// Returns what is taken, in order.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> {
        self.taken.iter().map(to_prefix)
    }
}

/// Returns the first prefix of `length` that begins at `address` or after it.
fn aligned(address: IpAddr, length: u8) -> Option<IpNet> {
    let net = IpNet::new(address, length).ok()?.trunc();
    if net.addr() == address {
        return Some(net);
    }
    IpNet::new(add(net.broadcast(), 1)?, length).ok()
}

fn to_prefix((address, length): (&IpAddr, &u8)) -> Prefix {
    Prefix(IpNet::new(*address, *length).expect("only prefixes are kept"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix(text.parse().unwrap())
    }

    fn space(prefixes: &[&str]) -> Space {
        let mut space = Space::default();
        for text in prefixes {
            space.take(prefix(text)).unwrap();
        }
        space
    }

    fn pools(pools: &[(&str, u8)]) -> Vec<Pool> {
        let pool = |(base, length): &(&str, u8)| Pool {
            base: prefix(base),
            length: *length,
        };
        pools.iter().map(pool).collect()
    }

    const TWO_POOLS: &[(&str, u8)] = &[("10.0.0.0/8", 24), ("192.168.0.0/16", 24)];

    #[test]
    fn the_first_prefix_that_is_clear_of_what_is_taken_and_reserved_is_chosen() {
        let small = &[("10.10.0.0/22", 24), ("192.168.0.0/16", 24)];
        let pair = &[("172.16.0.0/15", 16)];
        let inside = &[("172.17.0.0/12", 16)];
        let full = [
            "10.10.0.0/24",
            "10.10.1.0/24",
            "10.10.2.0/24",
            "10.10.3.0/24",
        ];
        // The numbers are those of libnetwork's table of pool choices.
        /// Its number, the pools with their lengths, what is taken, what is reserved, what is chosen.
        type Case<'a> = (
            u8,
            &'a [(&'a str, u8)],
            &'a [&'a str],
            &'a [&'a str],
            &'a str,
        );
        let cases: &[Case<'_>] = &[
            (
                1,
                &[("192.168.0.0/16", 24)],
                &["192.168.255.0/24"],
                &[],
                "192.168.0.0/24",
            ),
            (
                2,
                TWO_POOLS,
                &["10.0.0.0/8"],
                &["10.0.0.0/7"],
                "192.168.0.0/24",
            ),
            (
                3,
                TWO_POOLS,
                &["10.0.0.0/8", "192.168.128.0/24"],
                &[],
                "192.168.0.0/24",
            ),
            (7, small, &full, &["10.10.3.0/24"], "192.168.0.0/24"),
            (
                11,
                &[("192.168.0.0/16", 24)],
                &["192.168.0.0/24"],
                &["192.168.0.0/24"],
                "192.168.1.0/24",
            ),
            (
                12,
                TWO_POOLS,
                &["10.0.0.0/24"],
                &["192.168.0.0/24"],
                "10.0.1.0/24",
            ),
            (14, pair, &["172.16.0.0/16"], &[], "172.17.0.0/16"),
            (25, inside, &["172.17.0.0/24"], &[], "172.18.0.0/16"),
        ];
        for (number, choices, taken, reserved, wanted) in cases {
            let mut taken = space(taken);

            let found = taken.take_from(&pools(choices), None, &space(reserved));

            assert_eq!(found, Ok(prefix(wanted)), "case {number}");
        }
    }

    #[test]
    fn a_length_may_be_asked_for_and_one_that_no_pool_has_is_refused() {
        let inside = pools(&[("172.17.0.0/12", 16)]);
        let mut taken = Space::default();

        let short = taken.take_from(&inside, Some(24), &Space::default());
        let impossible = taken.take_from(&inside, Some(150), &Space::default());

        assert_eq!(short, Ok(prefix("172.17.0.0/24")));
        assert_eq!(impossible, Err(PoolError::BadLength(150)));
    }

    #[test]
    fn pools_that_are_used_up_are_an_error() {
        let mut taken = space(&["172.16.0.0/16", "172.17.0.0/16"]);

        let found = taken.take_from(
            &pools(&[("172.16.0.0/15", 16)]),
            None,
            &space(&["192.168.0.0/24"]),
        );

        assert_eq!(found, Err(PoolError::Exhausted(16)));
    }

    #[test]
    fn a_named_prefix_is_refused_exactly_if_another_overlaps_it() {
        let accepted = [
            ("10.0.0.0/8", "11.0.0.0/8"),
            ("74.0.0.0/7", "9.111.99.72/30"),
            ("110.192.0.0/10", "16.0.0.0/10"),
            ("10.0.0.0/8", "f000::/4"),
        ];
        let refused = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8", "8.0.0.0/6"),
            ("16.182.0.0/15", "16.182.0.0/16"),
            ("16.182.0.0/16", "16.182.0.0/15"),
            ("16.0.0.0/4", "17.11.66.0/23"),
            ("64.0.0.0/6", "64.0.0.0/3"),
            ("112.0.0.0/6", "112.0.0.0/4"),
            ("96.0.0.0/3", "0.0.0.0/1"),
            ("f656::/0", "f656:3484:c878:a05:e540:a6ed:4d70:3740/123"),
            ("8000::/1", "8fe8:e7c4:5779::/49"),
            ("f000::/4", "ffc7:6000::/19"),
            ("f656::/20", "f656::/16"),
            ("8000::/32", "8000::/31"),
        ];
        // 96.0.0.0/3 is 96–127 and 0.0.0.0/1 is 0–127.
        for (existing, asked) in accepted {
            assert_eq!(
                space(&[existing]).overlap(prefix(asked)),
                None,
                "{existing} {asked}"
            );
        }
        for (existing, asked) in refused {
            let existing = Prefix(prefix(existing).0.trunc());
            let mut space = Space::default();
            space.take(existing).unwrap();
            assert_eq!(
                space.take(prefix(asked)),
                Err(Overlap { existing }),
                "{asked}"
            );
        }
    }

    #[test]
    fn a_prefix_that_was_given_back_can_be_taken_again() {
        let mut taken = space(&["10.0.0.0/24"]);

        assert!(taken.release(prefix("10.0.0.0/24")));
        assert!(!taken.release(prefix("10.0.0.0/24")));
        assert_eq!(taken.take(prefix("10.0.0.0/25")), Ok(()));
    }

    #[test]
    fn the_last_prefix_of_a_family_is_found_and_then_nothing() {
        let mut taken = Space::default();
        let last = pools(&[("255.255.255.254/31", 32)]);

        assert_eq!(
            taken.take_from(&last, None, &Space::default()),
            Ok(prefix("255.255.255.254/32"))
        );
        assert_eq!(
            taken.take_from(&last, None, &Space::default()),
            Ok(prefix("255.255.255.255/32"))
        );
        assert_eq!(
            taken.take_from(&last, None, &Space::default()),
            Err(PoolError::Exhausted(32))
        );
    }

    #[test]
    fn many_pools_are_all_distinct() {
        let mut taken = Space::default();
        let ten = pools(&[("10.0.0.0/10", 24)]);

        let found: std::collections::BTreeSet<Prefix> = (0..2_048)
            .map(|_| taken.take_from(&ten, None, &Space::default()).unwrap())
            .collect();

        assert_eq!(found.len(), 2_048);
        assert_eq!(taken.runs.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_first_free_is_what_a_search_of_all_finds(
            steps in prop::collection::vec((any::<bool>(), 0u8..8, 24u8..=32), 0..60),
            length in 24u8..=32,
        ) {
            let mut space = Space::default();
            for (takes, place, length) in steps {
                let prefix = Prefix(prefix(&format!("10.0.0.{}/{length}", place * 32)).0.trunc());
                let _ = if takes { space.take(prefix).is_ok() } else { space.release(prefix) };
            }
            let (within, none) = (prefix("10.0.0.0/24"), Space::default());

            let found = space.first_fit(within, within.0.network(), length, &none);

            let mut all = within.0.subnets(length).unwrap().map(Prefix);
            prop_assert_eq!(found, all.find(|prefix| space.overlap(*prefix).is_none()));
            let mut again = Space::default();
            space.iter().for_each(|prefix| again.take(prefix).unwrap());
            prop_assert_eq!(again, space);
        }
    }

    #[test]
    fn covering_swallows_what_lies_inside_and_is_swallowed_by_what_lies_around() {
        let mut covered = space(&["10.0.0.0/28", "10.0.0.32/28"]);

        covered.cover(prefix("10.0.0.0/26"));
        covered.cover(prefix("10.0.0.16/28"));

        assert_eq!(covered.iter().collect::<Vec<_>>(), [prefix("10.0.0.0/26")]);
    }
}
