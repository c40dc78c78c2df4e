//! What only a voter can say: it is signed with the key of the cluster's authority, which is in the voters' state alone.
//!
//! **Invariant:** a member that is no voter cannot make one up, whatever it claims to be and whoever it is asked for. One that was
//! true once may be shown again: who takes it looks at its version.

use bincode::{Decode, Encode};
use rcgen::{KeyPair, SigningKey};

use super::{Ca, TrustError, ca::has_signed};
use crate::core::{
    model::ClusterId,
    wire::{codec, keyring::AgreedRing},
};

/// Something that voters vouch for.
pub trait Statement: Encode {
    /// What it is, so that what was signed as one thing is not taken for another.
    const WHAT: &'static str;
}

impl Statement for AgreedRing {
    const WHAT: &'static str = "ring of datagram keys";
}

/// A statement and the authority's signature.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Vouched<T> {
    said: T,
    signature: Vec<u8>,
}

impl<T: Statement> Vouched<T> {
    /// Signs a statement.
    pub fn sign(ca: &Ca, cluster: ClusterId, said: T) -> Result<Self, TrustError> {
        let bad_ca = |error: rcgen::Error| TrustError::BadCa(error.to_string());
        let key = KeyPair::try_from(&*ca.key_der).map_err(bad_ca)?;
        let signature = key.sign(&signed(cluster, &said)).map_err(bad_ca)?;
        Ok(Self { said, signature })
    }

    /// Returns the statement without asking who made it: to find out which authority must have.
    pub fn claimed(&self) -> &T {
        &self.said
    }

    /// Returns the statement, if one of these authorities has signed it for this cluster.
    pub fn check(self, cluster: ClusterId, authorities: &[&[u8]]) -> Result<T, TrustError> {
        let signed = signed(cluster, &self.said);
        let signed_by = |authority: &&[u8]| has_signed(authority, &signed, &self.signature);
        match authorities.iter().any(signed_by) {
            true => Ok(self.said),
            false => Err(TrustError::Unvouched(T::WHAT)),
        }
    }
}

fn signed<T: Statement>(cluster: ClusterId, said: &T) -> Vec<u8> {
    let mut bytes = codec::encode(&("weft", T::WHAT, cluster));
    codec::encode_into(said, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::keyring::{ClusterKey, KeyId, Keyring};

    const CLUSTER: ClusterId = ClusterId(1);

    struct Other(AgreedRing);

    impl Encode for Other {
        fn encode<E: bincode::enc::Encoder>(
            &self,
            encoder: &mut E,
        ) -> Result<(), bincode::error::EncodeError> {
            self.0.encode(encoder)
        }
    }

    impl Statement for Other {
        const WHAT: &'static str = "something else";
    }

    fn ring(version: u64) -> AgreedRing {
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(7);
        AgreedRing {
            version,
            keys: Keyring::new(KeyId(1), ClusterKey::random(&mut rng)),
        }
    }

    #[test]
    fn what_the_authority_signed_is_taken_and_survives_its_bytes() {
        let ca = Ca::create(CLUSTER).unwrap();
        let (next, _) = ca.successor(CLUSTER).unwrap();
        let vouched = Vouched::sign(&next, CLUSTER, ring(3)).unwrap();

        let back: Vouched<AgreedRing> = codec::decode(&codec::encode(&vouched)).unwrap();

        assert_eq!(back.claimed(), &ring(3));
        let trusted = [&*ca.cert_der, &*next.cert_der];
        assert_eq!(back.check(CLUSTER, &trusted).unwrap(), ring(3));
    }

    #[test]
    fn what_another_signed_or_anybody_changed_or_was_said_elsewhere_is_not() {
        let ca = Ca::create(CLUSTER).unwrap();
        let stranger = Ca::create(CLUSTER).unwrap();
        let sound = Vouched::sign(&ca, CLUSTER, ring(3)).unwrap();
        let newer = Vouched {
            said: ring(4),
            signature: sound.signature.clone(),
        };
        let unsigned = Vouched {
            said: ring(3),
            signature: Vec::new(),
        };
        let elsewhere = Vouched::sign(&ca, ClusterId(2), ring(3)).unwrap();
        let forged = Vouched::sign(&stranger, CLUSTER, ring(3)).unwrap();
        let otherwise = Vouched::sign(&ca, CLUSTER, Other(ring(3))).unwrap();
        let otherwise = Vouched {
            said: ring(3),
            signature: otherwise.signature,
        };

        for bad in [newer, unsigned, elsewhere, forged, otherwise] {
            let refused = bad.check(CLUSTER, &[&ca.cert_der]);
            assert!(
                matches!(refused, Err(TrustError::Unvouched(_))),
                "{refused:?}"
            );
        }
        assert!(sound.clone().check(CLUSTER, &[]).is_err());
        assert!(sound.check(CLUSTER, &[&ca.cert_der]).is_ok());
    }
}
