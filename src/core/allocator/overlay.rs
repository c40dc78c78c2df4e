//! What an overlay network needs beyond its subnets: one VNI a subnet, of either family.
//!
//! [`network_allocate`] and [`network_free`] are the only ways to them, and the leader's log the only one who calls: the part
//! of the driver that runs on every node is given the VNIs with the subnets and never asks. Other options pass through.

use std::collections::BTreeMap;

use super::{
    AllocatorError, VXLANID_LIST,
    vni::{Vnis, parse_list},
};
use crate::core::model::{Subnet, Vni};

/// Takes one VNI for each of `subnets` subnets: those of the option's list in its order, then the next free ones.
///
/// All or none: a refusal leaves nothing taken.
pub(super) fn network_allocate(
    vnis: &mut Vnis,
    options: &BTreeMap<String, String>,
    subnets: usize,
) -> Result<Vec<Vni>, AllocatorError> {
    let wanted = parse_list(options)?;
    let last = vnis.last;
    let mut taken = Vec::with_capacity(subnets);
    for i in 0..subnets {
        let next = match wanted.get(i) {
            Some(vni) => vnis.take(*vni).map(|()| *vni),
            None => vnis.choose(),
        };
        match next {
            Ok(vni) => taken.push(vni),
            Err(refused) => {
                network_free(vnis, &taken);
                vnis.last = last;
                return Err(refused);
            }
        }
    }
    Ok(taken)
}

/// Gives the VNIs of a network back.
pub(super) fn network_free(vnis: &mut Vnis, taken: &[Vni]) {
    for vni in taken {
        vnis.release(*vni);
    }
}

/// Returns the option that asks for the VNIs which the subnets have: with it, a network made anew gets the same.
pub fn vxlanid_option(subnets: &[Subnet]) -> Option<(String, String)> {
    let vnis: Option<Vec<String>> = subnets
        .iter()
        .map(|subnet| Some(subnet.vni?.to_string()))
        .collect();
    let list = vnis.filter(|vnis| !vnis.is_empty())?.join(",");
    Some((VXLANID_LIST.to_owned(), list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(VXLANID_LIST.to_owned(), text.to_owned())])
    }

    fn raw(vnis: Result<Vec<Vni>, AllocatorError>) -> Vec<u32> {
        vnis.unwrap().into_iter().map(Vni::get).collect()
    }

    #[test]
    fn a_list_comes_first_and_what_it_lacks_is_chosen_o1_o2() {
        let mut vnis = Vnis::default();

        assert_eq!(
            raw(network_allocate(&mut vnis, &BTreeMap::new(), 2)),
            [4096, 4097]
        );
        assert_eq!(raw(network_allocate(&mut vnis, &list("7,8,9"), 2)), [7, 8]);
        assert_eq!(raw(network_allocate(&mut vnis, &list("9"), 2)), [9, 4098]);
    }

    #[test]
    fn a_refusal_leaves_nothing_taken_o2() {
        let mut vnis = Vnis::default();
        network_allocate(&mut vnis, &list("4100"), 1).unwrap();
        let before = vnis.clone();

        let refused = network_allocate(&mut vnis, &list("5,4100"), 2);

        let in_use = Vni::new(4100).unwrap();
        assert_eq!(refused, Err(AllocatorError::VniInUse(in_use)));
        assert_eq!(vnis, before);
        let twice = network_allocate(&mut vnis, &list("5,5"), 2);
        assert!(twice.is_err());
        assert_eq!(vnis, before);
    }

    #[test]
    fn what_is_freed_can_be_had_again_o1() {
        let mut vnis = Vnis::default();
        let taken = network_allocate(&mut vnis, &list("7,8"), 2).unwrap();

        network_free(&mut vnis, &taken);

        assert_eq!(network_allocate(&mut vnis, &list("7,8"), 2), Ok(taken));
    }
}
