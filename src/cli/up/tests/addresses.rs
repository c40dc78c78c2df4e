//! Addresses as a person asks for them: ranges, what is set aside, IPv6, and how much is left.

use super::{Node, eventually, name, named, refused};
use crate::{
    api::http::{
        pools::{DefaultPool, SetPools},
        types::{Code, CreateEndpoint, CreateNetwork, CreateSubnet},
    },
    core::model::Prefix,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_network_says_of_its_addresses_is_kept_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let wish = CreateNetwork {
        subnets: vec![CreateSubnet {
            prefix: Some(prefix("10.7.0.0/24")),
            gateway: Some("10.7.0.254".parse().unwrap()),
            range: Some(prefix("10.7.0.128/26")),
            reserved: vec!["10.7.0.130".parse().unwrap()],
        }],
        ipv6: true,
        ..CreateNetwork::overlay(name("app"))
    };
    let network = node.client.network_create(&wish).await.unwrap();
    for endpoint in ["a", "b", "c"] {
        create(&node, endpoint, None).await.unwrap();
    }
    create(&node, "static", Some("10.7.0.9")).await.unwrap();

    let pools = node.client.ipam().await.unwrap();

    assert_eq!(network.subnets.len(), 2);
    assert_eq!(network.subnets[1].prefix.0.prefix_len(), 64);
    let [v4, v6] = &pools[..] else {
        panic!("a pool a subnet: {pools:?}")
    };
    assert_eq!((v4.capacity, v4.in_use, v4.percent), (253, 4, 2));
    assert_eq!(v6.in_use, 4, "an endpoint has an address of each family");
    assert!(v6.leased > 0);
    let blocks: Vec<(String, Option<String>)> = v4
        .blocks
        .iter()
        .map(|block| {
            let node = block.node_name.as_ref().map(ToString::to_string);
            (block.prefix.to_string(), node)
        })
        .collect();
    let ours = Some("n1".to_owned());
    assert!(blocks.contains(&("10.7.0.9/32".to_owned(), ours.clone())));
    assert!(blocks.contains(&("10.7.0.130/32".to_owned(), None)));
    let leased = v4.blocks.iter().filter(|block| block.node.is_some());
    let range = prefix("10.7.0.128/26");
    assert!(
        leased
            .clone()
            .any(|block| range.0.contains(&block.prefix.0))
    );
    assert_eq!(leased.map(|block| block.in_use).sum::<u64>(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_code() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory, named("n1")).await.unwrap();
    node.until_led().await;
    let subnet = |text: &str| CreateSubnet {
        prefix: Some(prefix(text)),
        ..CreateSubnet::default()
    };
    let network = |text: &str, subnet: CreateSubnet| CreateNetwork {
        subnets: vec![subnet],
        ..CreateNetwork::overlay(name(text))
    };
    let outside = CreateSubnet {
        range: Some(prefix("10.9.0.0/24")),
        ..subnet("10.8.0.0/16")
    };
    let aside = CreateSubnet {
        reserved: vec!["10.7.0.9".parse().unwrap()],
        ..subnet("10.7.0.0/24")
    };
    let cases = [
        (subnet("10.7.0.1/24"), Code::Invalid),
        (subnet("::ffff:10.0.0.0/120"), Code::Invalid),
        (outside, Code::Invalid),
    ];

    for (subnet, code) in cases {
        let answer = node.client.network_create(&network("bad", subnet)).await;
        assert_eq!(refused(answer), code);
    }
    let app = network("app", aside);
    node.client.network_create(&app).await.unwrap();
    let wide = network("b", subnet("10.7.0.0/16"));
    let overlap = node.client.network_create(&wide).await;
    assert_eq!(refused(overlap), Code::InUse);
    let taken = create(&node, "a", Some("10.7.0.9")).await;
    assert_eq!(refused(taken), Code::InUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn default_pools_are_set_through_any_node_and_listed_on_all() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Node::start(&directories[0], named("n1")).await.unwrap();
    first.until_led().await;
    let invitation = first.invite("n2").await;
    let second = Node::start(&directories[1], invitation).await.unwrap();
    let pool = |text: &str| text.parse::<DefaultPool>().unwrap();
    let wish = SetPools {
        pools: vec![
            pool("base=10.10.0.0/16,size=26"),
            pool("base=fd00:1::/48,size=64"),
        ],
    };
    let before = second.client.default_pools().await.unwrap();

    second.client.set_default_pools(&wish).await.unwrap();
    let null = CreateNetwork {
        driver: name("null"),
        subnets: vec![CreateSubnet {
            prefix: Some(prefix("0.0.0.0/24")),
            ..CreateSubnet::default()
        }],
        ..CreateNetwork::overlay(name("local"))
    };
    let app = CreateNetwork::overlay(name("app"));
    let global = first.client.network_create(&app).await.unwrap();
    let local = first.client.network_create(&null).await.unwrap();
    let twice = SetPools {
        pools: vec![
            pool("base=10.10.0.0/16,size=26"),
            pool("base=10.10.9.0/24,size=26"),
        ],
    };
    let refused_twice = first.client.set_default_pools(&twice).await;

    assert_eq!(before.len(), 7 + 1 + 1 + 1);
    assert!(before.iter().all(|pool| !pool.configured));
    assert_eq!(global.subnets[0].prefix, prefix("10.10.0.0/26"));
    // This host may route the first ones.
    let of_local = prefix("172.16.0.0/12");
    assert!(of_local.0.contains(&local.subnets[0].prefix.0), "{local:?}");
    assert_eq!(refused(refused_twice), Code::InUse);
    for node in [&first, &second] {
        eventually(async || {
            let pools = node.client.default_pools().await.unwrap();
            let mut ours = pools.iter().filter(|pool| pool.configured);
            let of_v4 = ours
                .next()
                .map(|pool| (pool.base, pool.subnets, pool.in_use));
            of_v4 == Some((prefix("10.10.0.0/16"), 1_024, 1)) && ours.count() == 1
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_was_confirmed_shows_what_was_agreed_before_it() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = Node::start(&directories[0], named("n1")).await.unwrap();
    first.until_led().await;
    let invitation = first.invite("n2").await;
    let second = Node::start(&directories[1], invitation).await.unwrap();
    let limit = std::time::Duration::from_secs(20);

    for n in 0..10 {
        let app = CreateNetwork::overlay(name(&format!("app{n}")));
        first.client.network_create(&app).await.unwrap();
        let fresh = second.client.confirm(limit).await.unwrap();
        let listed = second.client.networks().await.unwrap();

        assert!(fresh.is_confirmed(), "{fresh:?}");
        assert!(fresh.leader.is_some(), "{fresh:?}");
        assert_eq!(listed.len(), n + 1);
    }
}

async fn create(
    node: &Node,
    endpoint: &str,
    address: Option<&str>,
) -> Result<(), crate::api::client::ClientError> {
    let wish = CreateEndpoint {
        name: name(endpoint),
        address: address.map(|address| address.parse().unwrap()),
        second_address: None,
    };
    node.client.endpoint_create("app", &wish).await.map(drop)
}

fn prefix(text: &str) -> Prefix {
    Prefix(text.parse().unwrap())
}
