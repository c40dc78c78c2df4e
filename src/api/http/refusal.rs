//! Why the controller refused → what the control API answers.

use super::error::{Code, Failure};
use crate::{
    controller::ControllerError,
    core::{allocator::AllocatorError, ipam::PoolRefusal, model::NodeId},
    driver::{DriverError, IpamError, RegistryError},
};

impl From<ControllerError> for Failure {
    fn from(refused: ControllerError) -> Self {
        let code = code(&refused);
        let owner = owner(&refused);
        if code == Code::Failed {
            tracing::error!(error = %refused, "a request failed");
        }
        Self {
            owner,
            ..Self::new(code, refused.to_string())
        }
    }
}

fn owner(refused: &ControllerError) -> Option<NodeId> {
    if let ControllerError::NotOwner { owner } | ControllerError::EntryExists { owner } = refused {
        return Some(owner.node);
    }
    None
}

fn code(refused: &ControllerError) -> Code {
    match refused {
        ControllerError::NoSuchNetwork(_) => Code::NoSuchNetwork,
        ControllerError::NetworkExists(_) => Code::NetworkExists,
        ControllerError::NetworkInUse { .. } => Code::NetworkInUse,
        ControllerError::NetworkNotReady { .. } | ControllerError::NotAttached(_) => Code::NotReady,
        ControllerError::NoSuchEndpoint { .. } => Code::NoSuchEndpoint,
        ControllerError::EndpointExists { .. } => Code::EndpointExists,
        ControllerError::AddressInUse { .. } => Code::InUse,
        ControllerError::NoSubnet { .. }
        | ControllerError::NoAddresses(_)
        | ControllerError::NotHeld { .. } => Code::Invalid,
        ControllerError::NotOwner { .. } => Code::NotOwner,
        ControllerError::EntryExists { .. } => Code::EntryExists,
        ControllerError::NoSuchMember(_) => Code::NoSuchMember,
        ControllerError::Oneself(_) | ControllerError::OnlyVoter(_) => Code::Invalid,
        ControllerError::NoSuchEntry => Code::NoSuchEntry,
        ControllerError::ReservedTable(_) | ControllerError::Labels(_) => Code::Invalid,
        ControllerError::Limit(limit) => Failure::from(*limit).code,
        ControllerError::Backpressure | ControllerError::Overtaken => Code::Busy,
        ControllerError::NoLeader
        | ControllerError::NoAddressAlone { .. }
        | ControllerError::LeasesUnknown(_) => Code::NoLeader,
        ControllerError::NoAuthority { .. } => Code::NoAuthority,
        ControllerError::Timeout(_) => Code::TimedOut,
        ControllerError::Refused(refused) => allocator_code(refused),
        ControllerError::Driver(refused) => driver_code(refused),
        ControllerError::Ipam(IpamError::Driver(refused)) => driver_code(refused),
        ControllerError::Ipam(IpamError::NoAddress { .. } | IpamError::Overlap { .. }) => {
            Code::Exhausted
        }
        ControllerError::Registry(refused) => registry_code(refused),
        ControllerError::Plugins(_) | ControllerError::NotAllocated { .. } => Code::DriverRefused,
        ControllerError::Store(_) | ControllerError::Broken(_) => Code::Failed,
        ControllerError::Stopped => Code::Stopped,
    }
}

fn allocator_code(refused: &AllocatorError) -> Code {
    match refused {
        AllocatorError::NetworkExists { .. } => Code::NetworkExists,
        AllocatorError::NoSuchNetwork(_) => Code::NoSuchNetwork,
        AllocatorError::Overlap { .. }
        | AllocatorError::VniInUse(_)
        | AllocatorError::AddressLeased { .. }
        | AllocatorError::AddressReserved(_)
        | AllocatorError::AddressResting { .. } => Code::InUse,
        AllocatorError::BadPool(refused) => pool_code(refused),
        AllocatorError::BadSubnet(_)
        | AllocatorError::BadGateway { .. }
        | AllocatorError::BadVni { .. }
        | AllocatorError::BadAddress { .. }
        | AllocatorError::NoSubnet(_)
        | AllocatorError::TooManySubnets { .. } => Code::Invalid,
        AllocatorError::TooLarge { .. } => Code::TooLarge,
        AllocatorError::NoFreeSubnet { .. }
        | AllocatorError::NoFreeVni
        | AllocatorError::NoFreeAddress(_) => Code::Exhausted,
        AllocatorError::NotMember(_) => Code::NoSuchMember,
        AllocatorError::NameTaken { .. }
        | AllocatorError::IdTaken { .. }
        | AllocatorError::NotItsKey(_) => Code::NameTaken,
        AllocatorError::NotFounded
        | AllocatorError::AlreadyFounded
        | AllocatorError::NoSuchBlock { .. }
        | AllocatorError::NoSuchKey(_)
        | AllocatorError::AuthoritiesChanged
        | AllocatorError::StaleLease { .. }
        | AllocatorError::NetworkChanged(_)
        | AllocatorError::Removed(_) => Code::Failed,
    }
}

fn driver_code(refused: &DriverError) -> Code {
    match refused {
        DriverError::Option { .. }
        | DriverError::Subnet { .. }
        | DriverError::Address { .. }
        | DriverError::NoInterface(_)
        | DriverError::Sandbox(_) => Code::Invalid,
        DriverError::Taken(_) => Code::InUse,
        DriverError::Unreachable { .. } => Code::Busy,
        DriverError::Restarted { .. } => Code::NotReady,
        DriverError::Refused { .. } | DriverError::Protocol { .. } => Code::DriverRefused,
        DriverError::NoNetwork(_)
        | DriverError::NetworkExists(_)
        | DriverError::NoEndpoint(_)
        | DriverError::EndpointExists(_)
        | DriverError::Dataplane(_) => Code::Failed,
    }
}

fn registry_code(refused: &RegistryError) -> Code {
    match refused {
        RegistryError::Name(_) => Code::Invalid,
        RegistryError::NotFound(_) => Code::NoSuchDriver,
        RegistryError::Slow { .. } => Code::TimedOut,
        RegistryError::Vetoed { .. } | RegistryError::Plugin { .. } => Code::DriverRefused,
        RegistryError::BuiltIn(_) => Code::Failed,
    }
}

fn pool_code(refused: &PoolRefusal) -> Code {
    match refused {
        PoolRefusal::Overlap { .. } | PoolRefusal::AddressInUse(_) => Code::InUse,
        PoolRefusal::NoMorePools(_) | PoolRefusal::NoMoreAddresses(_) => Code::Exhausted,
        PoolRefusal::NoSuchSpace(_)
        | PoolRefusal::BadId(_)
        | PoolRefusal::NoSuchPool(_)
        | PoolRefusal::ZeroLength(_)
        | PoolRefusal::HostBits { .. }
        | PoolRefusal::Mapped(_)
        | PoolRefusal::RangeAlone(_)
        | PoolRefusal::RangeOutside { .. }
        | PoolRefusal::BadLength(_)
        | PoolRefusal::AddressOutside { .. }
        | PoolRefusal::BadPieces { .. }
        | PoolRefusal::TooManyPools { .. } => Code::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{model::NetworkId, netdb::WriteError};

    #[test]
    fn each_refused_write_has_its_code_and_only_an_owners_names_one() {
        let owner = NodeId(3);
        let cases = [
            (WriteError::AlreadyExists { owner }, Code::EntryExists),
            (WriteError::NotOwner { owner }, Code::NotOwner),
            (WriteError::NotFound, Code::NoSuchEntry),
            (WriteError::NotAttached(NetworkId(1)), Code::NotReady),
            (WriteError::Backpressure, Code::Busy),
        ];

        for (refused, code) in cases {
            let names_one = matches!(
                refused,
                WriteError::AlreadyExists { .. } | WriteError::NotOwner { .. }
            );
            let failure = Failure::from(ControllerError::from(refused));
            assert_eq!(failure.code, code);
            assert_eq!(failure.owner, names_one.then_some(owner), "{failure}");
        }
    }
}
