//! Remote IPAM drivers: M7 to M10, D12, the overlap rule, and answers that are not allowed.

use std::net::IpAddr;

use super::{Plugin, Reaction};
use crate::{
    core::model::{Mac, Prefix},
    driver::{
        AddressRequest, IpamCapability, IpamDriver, IpamError, Pool, PoolRequest, Spaces, pick_pool,
    },
};

const SPACES: (&str, &str) = (
    "GetDefaultAddressSpaces",
    r#"{"LocalDefaultAddressSpace":"near","GlobalDefaultAddressSpace":"far"}"#,
);

/// M7.
#[tokio::test]
async fn a_plugin_that_does_not_say_what_it_needs_needs_nothing() {
    let plugin = Plugin::start(&[SPACES]);
    plugin.react(
        "GetCapabilities",
        Reaction::Status(404, "404 page not found"),
    );
    let modest = plugin.ipam().await.unwrap();
    let said = r#"{"RequiresMACAddress":true,"RequiresRequestReplay":true}"#;
    plugin.react("GetCapabilities", Reaction::Json(said.to_owned()));
    let demanding = plugin.ipam().await.unwrap();

    assert_eq!(modest.capability(), IpamCapability::default());
    let expected = Spaces {
        local: "near".to_owned(),
        global: "far".to_owned(),
    };
    assert_eq!(modest.spaces(), expected);
    let all = IpamCapability {
        requires_mac: true,
        requires_replay: true,
    };
    assert_eq!(demanding.capability(), all);
}

/// M8, M9, and an address that is none or outside its pool, which is given back.
#[tokio::test]
async fn an_address_that_is_none_or_not_of_its_pool_is_refused() {
    let cases = [
        (
            "{}",
            "IPAM driver pools returned no address of pool p1",
            false,
        ),
        (
            r#"{"Error":"pool is full"}"#,
            "IpamDriver.RequestAddress: pool is full",
            false,
        ),
        (
            r#"{"Address":"10.7.0.300/24"}"#,
            "IpamDriver.RequestAddress: \"10.7.0.300/24\"",
            true,
        ),
        (
            r#"{"Address":"10.8.0.1/24"}"#,
            "10.8.0.1 is not in its pool 10.7.0.0/24",
            true,
        ),
        (
            r#"{"Address":"fd00::1/64"}"#,
            "fd00::1 is not in its pool 10.7.0.0/24",
            true,
        ),
    ];
    let cases = cases.into_iter().chain([(
        r#"{"Address":"10.7.0.3"}"#,
        "IpamDriver.RequestAddress: \"10.7.0.3\"",
        true,
    )]);
    for (answer, wrong, is_returned) in cases {
        let plugin = Plugin::start(&[SPACES, ("RequestAddress", answer)]);
        let driver = plugin.ipam().await.unwrap();

        let refused = driver
            .request_address(&pool(), AddressRequest::default())
            .await;

        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(wrong), "{refused}");
        let was_returned = plugin
            .methods()
            .iter()
            .any(|heard| heard == "ReleaseAddress");
        assert_eq!(was_returned, is_returned, "{answer}");
        if is_returned {
            let returned = plugin.last("ReleaseAddress")["Address"].clone();
            assert!(answer.contains(returned.as_str().unwrap()), "{returned}");
        }
    }
}

#[tokio::test]
async fn a_request_says_what_the_address_is_for_and_whose_if_that_is_needed() {
    let plugin = Plugin::start(&[
        SPACES,
        ("GetCapabilities", r#"{"RequiresMACAddress":true}"#),
        ("RequestAddress", r#"{"Address":"10.7.0.1/24"}"#),
    ]);
    let driver = plugin.ipam().await.unwrap();
    let request = AddressRequest {
        address: None,
        is_gateway: true,
        mac: Some(Mac([2, 0, 0, 0, 0, 9])),
    };

    let given = driver.request_address(&pool(), request).await.unwrap();

    assert_eq!(given, "10.7.0.1".parse::<IpAddr>().unwrap());
    let options = plugin.last("RequestAddress")["Options"].clone();
    assert_eq!(options["RequestAddressType"], "com.docker.network.gateway");
    assert_eq!(
        options["com.docker.network.endpoint.macaddress"],
        "02:00:00:00:00:09"
    );
    let other = AddressRequest {
        address: Some("10.7.0.9".parse().unwrap()),
        ..AddressRequest::default()
    };
    let refused = driver.request_address(&pool(), other).await.unwrap_err();
    let expected = "it returned 10.7.0.1 when asked for 10.7.0.9";
    assert!(refused.to_string().contains(expected), "{refused}");
}

/// M10, D12.
#[tokio::test]
async fn a_pool_has_an_id_addresses_and_maybe_a_gateway_among_them() {
    let good = r#"{"PoolID":"p1","Pool":"10.7.0.0/24","Data":{"com.docker.network.gateway":"10.7.0.254/24"}}"#;
    let plugin = Plugin::start(&[SPACES, ("RequestPool", good)]);
    let driver = plugin.ipam().await.unwrap();

    let given = driver.request_pool(&PoolRequest::default()).await.unwrap();

    assert_eq!(given, pool());
    assert!(driver.holds("p1"));
    let bad = [
        (r#"{"Pool":"10.7.0.0/24"}"#, "it returned no PoolID", false),
        (r#"{"PoolID":"p1"}"#, "pool \"\"", true),
        (
            r#"{"PoolID":"p1","Pool":"10.7.0.0/33"}"#,
            "pool \"10.7.0.0/33\"",
            true,
        ),
        (
            r#"{"PoolID":"p1","Pool":"fd00::/64"}"#,
            "is of the other family",
            true,
        ),
        (
            r#"{"PoolID":"p1","Pool":"10.7.0.0/24","Data":{"com.docker.network.gateway":"10.8.0.1/24"}}"#,
            "gateway 10.8.0.1 is not in its pool",
            true,
        ),
        (
            r#"{"PoolID":"p1","Pool":"10.7.0.0/24","Data":{"com.docker.network.gateway":"fd00::1/64"}}"#,
            "gateway fd00::1 is not in its pool",
            true,
        ),
    ];
    for (answer, wrong, is_returned) in bad {
        let plugin = Plugin::start(&[SPACES, ("RequestPool", answer)]);
        let driver = plugin.ipam().await.unwrap();

        let refused = driver
            .request_pool(&PoolRequest::default())
            .await
            .unwrap_err();

        assert!(refused.to_string().contains(wrong), "{refused}");
        let was_returned = plugin.methods().last().unwrap() == "ReleasePool";
        assert_eq!(was_returned, is_returned, "{answer}");
    }
}

#[tokio::test]
async fn a_pool_that_was_named_is_that_one_or_refused() {
    let plugin = Plugin::start(&[
        SPACES,
        ("RequestPool", r#"{"PoolID":"p1","Pool":"10.9.0.0/24"}"#),
    ]);
    let driver = plugin.ipam().await.unwrap();

    let refused = driver
        .request_pool(&named("10.7.0.0/24"))
        .await
        .unwrap_err();

    let expected = "it returned 10.9.0.0/24 when asked for 10.7.0.0/24";
    assert!(refused.to_string().contains(expected), "{refused}");
    assert_eq!(plugin.methods().last().unwrap(), "ReleasePool");
}

/// What overlaps is held while another is asked for, and then given back; a named pool and one of all addresses are not judged.
#[tokio::test]
async fn a_pool_that_overlaps_is_asked_for_again_while_it_is_held() {
    let offers = vec![
        r#"{"PoolID":"a","Pool":"10.0.0.0/24"}"#,
        r#"{"PoolID":"b","Pool":"10.0.0.0/8"}"#,
        r#"{"PoolID":"c","Pool":"10.7.0.0/24"}"#,
    ];
    let plugin = Plugin::start(&[SPACES]);
    plugin.react("RequestPool", Reaction::InTurn(offers));
    let driver = plugin.ipam().await.unwrap();
    let taken = [prefix("10.0.0.0/16")];

    let picked = pick_pool(&driver, &PoolRequest::default(), &taken)
        .await
        .unwrap();

    assert_eq!(picked.id, "c");
    let heard = plugin.methods();
    let expected = [
        "RequestPool",
        "RequestPool",
        "RequestPool",
        "ReleasePool",
        "ReleasePool",
    ];
    assert_eq!(heard[2..], expected);
    assert!(driver.holds("c") && !driver.holds("a") && !driver.holds("b"));

    plugin.react(
        "RequestPool",
        Reaction::Json(r#"{"PoolID":"n","Pool":"10.0.0.0/24"}"#.to_owned()),
    );
    assert!(
        pick_pool(&driver, &named("10.0.0.0/24"), &taken)
            .await
            .is_ok()
    );
    let all = pick_pool(&driver, &PoolRequest::default(), &taken)
        .await
        .unwrap_err();
    assert!(matches!(all, IpamError::Overlap { tried: 32 }), "{all}");
    plugin.react(
        "RequestPool",
        Reaction::Json(r#"{"PoolID":"z","Pool":"0.0.0.0/0"}"#.to_owned()),
    );
    assert!(
        pick_pool(&driver, &PoolRequest::default(), &taken)
            .await
            .is_ok()
    );
}

fn pool() -> Pool {
    Pool {
        id: "p1".to_owned(),
        prefix: prefix("10.7.0.0/24"),
        gateway: Some("10.7.0.254".parse().unwrap()),
    }
}

fn named(pool: &str) -> PoolRequest {
    PoolRequest {
        pool: Some(prefix(pool)),
        ..PoolRequest::default()
    }
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().unwrap())
}
