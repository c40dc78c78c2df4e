//! `/v1/ipam/pools`: where subnets come from that nobody names.

use std::str::FromStr;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde::{Deserialize, Serialize};

use super::{error::Failure, extract::Body};
use crate::{
    controller::{Controller, DefaultPoolView},
    core::{
        ipam::{DefaultPools, Pool, SpaceName},
        model::Prefix,
    },
};

/// A default pool that somebody wants: on the command line `base=10.10.0.0/16,size=24`, and maybe `space=local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultPool {
    /// What is cut into subnets.
    pub base: Prefix,
    /// How long the subnets' prefixes are.
    pub size: u8,
    /// Whose networks it is for.
    #[serde(default)]
    pub space: SpaceName,
}

/// `PUT /v1/ipam/pools`: all default pools that are configured from then on. A space and a family of which none is given has
/// those that are built in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPools {
    /// The pools, in the order in which they are used.
    pub pools: Vec<DefaultPool>,
}

/// `GET /v1/ipam/pools`: one default pool in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInUse {
    /// What is cut into subnets.
    pub base: Prefix,
    /// How long the subnets' prefixes are.
    pub size: u8,
    /// Whose networks it is for.
    pub space: SpaceName,
    /// Whether somebody configured it; else it is built in.
    pub configured: bool,
    /// How many subnets it can be cut into; beyond 2⁶⁴ the greatest number is told.
    pub subnets: u64,
    /// How many subnets of networks lie in it.
    pub in_use: u64,
}

impl FromStr for DefaultPool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut base, mut size, mut space) = (None, None, SpaceName::default());
        for part in text.split(',') {
            let Some((field, value)) = part.split_once('=') else {
                return Err(format!(
                    "{part:?} has no `=`: base=10.10.0.0/16,size=24 is a pool"
                ));
            };
            match field {
                "base" => base = Some(Prefix(value.parse().map_err(|_bad| bad(field, value))?)),
                "size" => size = Some(value.parse().map_err(|_bad| bad(field, value))?),
                "space" => {
                    space = SpaceName::from_str(value).map_err(|refused| refused.to_string())?;
                }
                other => return Err(format!("{other:?} is none of base, size and space")),
            }
        }
        let missing = |field| format!("{field} is missing: base=10.10.0.0/16,size=24 is a pool");
        Ok(Self {
            base: base.ok_or_else(|| missing("base"))?,
            size: size.ok_or_else(|| missing("size"))?,
            space,
        })
    }
}

fn bad(field: &str, value: &str) -> String {
    match field {
        "base" => format!("base={value}: a prefix such as 10.10.0.0/16 is expected"),
        _ => {
            format!("{field}={value}: the length of the subnets' prefixes is expected, such as 24")
        }
    }
}

/// Returns the pools as the cluster agrees on them.
pub fn agreed(pools: &[DefaultPool]) -> DefaultPools {
    let mut agreed = DefaultPools::default();
    for pool in pools {
        let (base, length) = (pool.base, pool.size);
        agreed.add(pool.space, Pool { base, length });
    }
    agreed
}

pub(super) fn routes() -> Router<Controller> {
    Router::new().route("/ipam/pools", get(pools).put(set))
}

async fn pools(State(controller): State<Controller>) -> Result<Json<Vec<PoolInUse>>, Failure> {
    let views = controller.default_pools().await?;
    Ok(Json(views.into_iter().map(show).collect()))
}

async fn set(
    State(controller): State<Controller>,
    Body(wish): Body<SetPools>,
) -> Result<StatusCode, Failure> {
    controller.set_default_pools(agreed(&wish.pools)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn show(view: DefaultPoolView) -> PoolInUse {
    let Pool { base, length } = view.pool;
    let bits = length.saturating_sub(base.0.prefix_len());
    PoolInUse {
        base,
        size: length,
        space: view.space,
        configured: view.configured,
        subnets: 1_u64.checked_shl(bits.into()).unwrap_or(u64::MAX),
        in_use: view.in_use,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_read_as_it_is_written_and_refused_for_what_is_wrong_with_it() {
        let pool = |text: &str| text.parse::<DefaultPool>();
        let wanted = DefaultPool {
            base: Prefix("10.10.0.0/16".parse().unwrap()),
            size: 24,
            space: SpaceName::Local,
        };

        assert_eq!(pool("base=10.10.0.0/16,size=24,space=local"), Ok(wanted));
        let global = pool("size=64,base=fd00:1::/48").unwrap();
        assert_eq!((global.space, global.size), (SpaceName::Global, 64));
        for (text, why) in [
            ("10.10.0.0/16", "has no `=`"),
            ("base=10.10.0.0/16", "size is missing"),
            ("size=24", "base is missing"),
            ("base=10.10.0.0,size=24", "base=10.10.0.0: a prefix"),
            ("base=10.10.0.0/16,size=x", "size=x: the length"),
            (
                "base=10.10.0.0/16,size=24,of=1",
                "none of base, size and space",
            ),
            (
                "base=10.10.0.0/16,size=24,space=x",
                "`local` and `global` are",
            ),
        ] {
            let refused = pool(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
