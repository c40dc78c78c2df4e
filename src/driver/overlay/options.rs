//! The options of a network that are the driver's.

use std::collections::BTreeMap;

use crate::{core::overlay::Settings, driver::DriverError};

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
                settings.port = Settings::read_port(value)
                    .ok_or_else(|| wrong("a UDP port from 1024 to 49151 is expected, or 0"))?;
            }
            "encrypted" if value != "false" => {
                return Err(wrong("encryption of the data path is not available"));
            }
            _ => {}
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_vxlan_is_iana_s_unless_one_of_the_users_is_named_o6() {
        let port = |text: &str| {
            let options = BTreeMap::from([("vxlan_port".to_owned(), text.to_owned())]);
            parse(&options, Settings::default()).map(|settings| settings.port)
        };

        let usual = parse(&BTreeMap::new(), Settings::default());

        assert_eq!(usual.map(|settings| settings.port).ok(), Some(4_789));
        for (text, wanted) in [("0", 4_789), ("1024", 1_024), ("49151", 49_151)] {
            assert_eq!(port(text).ok(), Some(wanted), "{text}");
        }
        for text in ["1023", "49152", "65536", "-1", ""] {
            assert!(
                matches!(port(text), Err(DriverError::Option { .. })),
                "{text}"
            );
        }
    }
}
