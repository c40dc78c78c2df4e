//! The options of a network that are the driver's.

use std::collections::BTreeMap;

use crate::{core::overlay::Settings, driver::DriverError};

/// The first port that is nobody's by convention.
const PORT_MIN: u16 = 1024;

/// Reads the options that are the driver's; the allocator's (`vxlanid_list`) pass by.
///
/// Encryption of the data path fails closed: it is refused, not left out.
pub(super) fn parse(
    options: &BTreeMap<String, String>,
    mut settings: Settings,
) -> Result<Settings, DriverError> {
    for (option, value) in options {
        let wrong = |expected| DriverError::Option {
            option: option.clone(),
            value: value.clone(),
            expected,
        };
        match option.as_str() {
            "mtu" | "com.docker.network.driver.mtu" => {
                let mtu = value.parse().ok();
                let fits = |mtu: &u32| (Settings::MTU_MIN..=Settings::MTU_MAX).contains(mtu);
                settings.mtu = mtu
                    .filter(fits)
                    .ok_or_else(|| wrong("an MTU from 1280 to 65485 is expected"))?;
            }
            "vxlan_port" => {
                let port = value.parse().ok();
                settings.port = port
                    .filter(|port| *port >= PORT_MIN)
                    .ok_or_else(|| wrong("a UDP port from 1024 to 65535 is expected"))?;
            }
            "encrypted" if value != "false" => {
                return Err(wrong("encryption of the data path is not available"));
            }
            _ => {}
        }
    }
    Ok(settings)
}
