//! What a majority is.

use std::collections::BTreeSet;

/// Returns whether most of some voters are so: of a change of voters, each half must be asked.
pub fn most<T>(voters: &BTreeSet<T>, are_so: impl Fn(&T) -> bool) -> bool {
    voters.iter().filter(|voter| are_so(voter)).count() > voters.len() / 2
}

/// Returns whether most voters of each half are so.
pub fn most_of_all<'a, T: 'a>(
    halves: impl IntoIterator<Item = &'a BTreeSet<T>>,
    are_so: impl Fn(&T) -> bool,
) -> bool {
    halves.into_iter().all(|voters| most(voters, &are_so))
}
