//! VNIs: one a subnet, no two subnets with the same.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{AllocatorError, VXLANID_LIST, VXLANID_LIST_DOCKER};
use crate::core::model::Vni;

/// The first VNI that is chosen without being asked for; the ones below are for those who choose by hand (libnetwork 1.8).
pub const VNI_FIRST: u32 = 4096;

/// The VNIs in use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Vnis {
    used: BTreeSet<u32>,
    /// The last one that was chosen; the search goes on after it, so that a freed one is used last.
    pub(super) last: u32,
}

impl Vnis {
    /// Chooses the next free one after the last that was chosen, wrapping.
    pub(super) fn choose(&mut self) -> Result<Vni, AllocatorError> {
        let start = if (VNI_FIRST..Vni::MAX.get()).contains(&self.last) {
            self.last + 1
        } else {
            VNI_FIRST
        };
        let raw = self.first_free(start, Vni::MAX.get());
        let raw = raw.or_else(|| self.first_free(VNI_FIRST, start - 1));
        let vni = raw.and_then(Vni::new).ok_or(AllocatorError::NoFreeVni)?;
        self.used.insert(vni.get());
        self.last = vni.get();
        Ok(vni)
    }

    /// Takes exactly `vni`.
    pub(super) fn take(&mut self, vni: Vni) -> Result<(), AllocatorError> {
        if self.used.insert(vni.get()) {
            Ok(())
        } else {
            Err(AllocatorError::VniInUse(vni))
        }
    }

    /// Gives `vni` back.
    pub(super) fn release(&mut self, vni: Vni) {
        self.used.remove(&vni.get());
    }

    fn first_free(&self, first: u32, last: u32) -> Option<u32> {
        if first > last {
            return None;
        }
        let mut candidate = first;
        for used in self.used.range(first..=last) {
            if *used > candidate {
                break;
            }
            candidate = used + 1;
        }
        (candidate <= last).then_some(candidate)
    }
}

/// Returns the VNIs that the options ask for, in order; none if they do not ask.
pub(super) fn parse_list(options: &BTreeMap<String, String>) -> Result<Vec<Vni>, AllocatorError> {
    let list = options
        .get(VXLANID_LIST)
        .or_else(|| options.get(VXLANID_LIST_DOCKER));
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let parse = |entry: &str| {
        let vni = entry.trim().parse().ok().and_then(Vni::new);
        vni.ok_or_else(|| AllocatorError::BadVni {
            entry: entry.chars().take(32).collect(),
        })
    };
    list.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(VXLANID_LIST.to_owned(), list.to_owned())])
    }

    #[test]
    fn a_list_is_read_in_order_and_the_entry_that_is_no_vni_is_named_o3() {
        let bad = |entry: &str| AllocatorError::BadVni {
            entry: entry.to_owned(),
        };
        let vni = |raw| Vni::new(raw).unwrap();

        assert_eq!(
            parse_list(&options("1,2,3")),
            Ok(vec![vni(1), vni(2), vni(3)])
        );
        assert_eq!(parse_list(&options("1,2,")), Err(bad("")));
        assert_eq!(parse_list(&options("1,abc,3")), Err(bad("abc")));
        assert_eq!(parse_list(&options("0")), Err(bad("0")));
        assert_eq!(parse_list(&options("16777216")), Err(bad("16777216")));
        assert_eq!(parse_list(&BTreeMap::new()), Ok(Vec::new()));
    }

    #[test]
    fn choosing_goes_on_after_the_last_and_wraps_to_what_is_free() {
        let mut vnis = Vnis {
            last: Vni::MAX.get() - 1,
            ..Vnis::default()
        };
        vnis.take(Vni::new(VNI_FIRST).unwrap()).unwrap();

        assert_eq!(vnis.choose(), Ok(Vni::MAX));
        assert_eq!(vnis.choose().map(Vni::get), Ok(VNI_FIRST + 1));
        vnis.release(Vni::MAX);
        assert_eq!(vnis.choose().map(Vni::get), Ok(VNI_FIRST + 2));
    }

    #[test]
    fn a_vni_outside_the_chosen_range_may_be_taken_by_hand_once() {
        let mut vnis = Vnis::default();
        let seven = Vni::new(7).unwrap();

        assert_eq!(vnis.take(seven), Ok(()));
        assert_eq!(vnis.take(seven), Err(AllocatorError::VniInUse(seven)));
    }
}
