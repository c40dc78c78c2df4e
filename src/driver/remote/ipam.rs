//! Remote IPAM drivers: plugins that speak libnetwork's IPAM protocol. Their errors are in `Error`, not in `Err`.
//!
//! **Invariant:** as with [`Remote`](super::Remote), an object is one life of a plugin.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    link::Link,
    message::{Nothing, or_default},
};
use crate::{
    core::model::{Name, Prefix},
    driver::{AddressRequest, IpamCapability, IpamDriver, IpamError, Pool, PoolRequest, Spaces},
    plugin::{CallError, Client},
};

/// In `Data` of a pool: its gateway. In the options of a request for an address: that it is for the gateway.
const GATEWAY: &str = "com.docker.network.gateway";
/// In the options of a request for an address: what it is for.
const ADDRESS_TYPE: &str = "RequestAddressType";
/// In the options of a request for an address: who gets it.
const MAC: &str = "com.docker.network.endpoint.macaddress";

/// An IPAM driver in another process.
pub struct RemoteIpam {
    link: Link,
    capability: IpamCapability,
    spaces: Spaces,
    held: Mutex<BTreeSet<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    #[serde(rename = "RequiresMACAddress")]
    requires_mac: bool,
    #[serde(rename = "RequiresRequestReplay")]
    requires_replay: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SpacesReply {
    local_default_address_space: String,
    global_default_address_space: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RequestPool<'a> {
    address_space: &'a str,
    pool: String,
    sub_pool: String,
    options: &'a BTreeMap<String, String>,
    v6: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PoolReply {
    #[serde(rename = "PoolID")]
    pool_id: String,
    pool: String,
    #[serde(deserialize_with = "or_default")]
    data: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct PoolCall<'a> {
    #[serde(rename = "PoolID")]
    pool: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RequestAddress<'a> {
    #[serde(rename = "PoolID")]
    pool: &'a str,
    address: String,
    options: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReleaseAddress<'a> {
    #[serde(rename = "PoolID")]
    pool: &'a str,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AddressReply {
    address: String,
}

impl RemoteIpam {
    /// Asks a plugin what it needs and how its address spaces are called.
    pub async fn connect(name: &Name, client: Client) -> Result<Self, IpamError> {
        let link = Link::new(name, "IpamDriver", client).await;
        let said: Capabilities = match link.ask("GetCapabilities", &()).await? {
            // It needs nothing (M7).
            Err(CallError::NotImplemented { .. }) => Capabilities::default(),
            said => said.map_err(|error| link.failure(&error))?,
        };
        let spaces: SpacesReply = link.call("GetDefaultAddressSpaces", &()).await?;
        Ok(Self {
            link,
            capability: IpamCapability {
                requires_mac: said.requires_mac,
                requires_replay: said.requires_replay,
            },
            spaces: Spaces {
                local: spaces.local_default_address_space,
                global: spaces.global_default_address_space,
            },
            held: Mutex::default(),
        })
    }

    fn broke(&self, method: &str, wrong: &str) -> IpamError {
        self.link.broke(method, wrong).into()
    }

    async fn take_pool(&self, request: &PoolRequest) -> Result<Pool, IpamError> {
        let text = |prefix: Option<Prefix>| prefix.map_or_else(String::new, |it| it.to_string());
        let asked = RequestPool {
            address_space: &request.space,
            pool: text(request.pool),
            sub_pool: text(request.range),
            options: &request.options,
            v6: request.v6,
        };
        let reply: PoolReply = self.link.call("RequestPool", &asked).await?;
        if reply.pool_id.is_empty() {
            return Err(self.broke("RequestPool", "it returned no PoolID"));
        }
        match read_pool(&reply, request) {
            Ok(pool) => {
                self.held().insert(pool.id.clone());
                Ok(pool)
            }
            Err(wrong) => {
                self.give_back(
                    "ReleasePool",
                    &PoolCall {
                        pool: &reply.pool_id,
                    },
                )
                .await;
                Err(self.broke("RequestPool", &wrong))
            }
        }
    }

    async fn take_address(
        &self,
        pool: &Pool,
        request: AddressRequest,
    ) -> Result<IpAddr, IpamError> {
        let mut options = BTreeMap::new();
        if request.is_gateway {
            options.insert(ADDRESS_TYPE, GATEWAY.to_owned());
        }
        if let Some(mac) = request.mac.filter(|_| self.capability.requires_mac) {
            options.insert(MAC, mac.to_string());
        }
        let asked = RequestAddress {
            pool: &pool.id,
            address: request
                .address
                .map_or_else(String::new, |address| address.to_string()),
            options,
        };
        let reply: AddressReply = self.link.call("RequestAddress", &asked).await?;
        if reply.address.is_empty() {
            return Err(IpamError::NoAddress {
                driver: self.link.name().to_owned(),
                pool: pool.id.clone(),
            });
        }
        let (wrong, address) = match reply.address.parse::<IpNet>().map(|given| given.addr()) {
            Err(error) => {
                // In its own words, without the length: it may know what it meant.
                let meant = reply.address.split('/').next().unwrap_or_default();
                (format!("{:?}: {error}", reply.address), meant.to_owned())
            }
            Ok(given) => match (request.address, pool.prefix.0.contains(&given)) {
                (Some(wanted), _) if wanted != given => {
                    let wrong = format!("it returned {given} when asked for {wanted}");
                    (wrong, given.to_string())
                }
                (_, false) => {
                    let wrong = format!("{given} is not in its pool {}", pool.prefix);
                    (wrong, given.to_string())
                }
                (_, true) => return Ok(given),
            },
        };
        let pool = &pool.id;
        self.give_back("ReleaseAddress", &ReleaseAddress { pool, address })
            .await;
        Err(self.broke("RequestAddress", &wrong))
    }

    async fn give_back(&self, method: &str, what: &impl Serialize) {
        if let Err(error) = self.link.call::<Nothing>(method, what).await {
            tracing::warn!(driver = self.link.name(), %error, "what an IPAM driver should not have given was not given back");
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// D12: a pool has addresses, and its gateway is one of them.
fn read_pool(reply: &PoolReply, request: &PoolRequest) -> Result<Pool, String> {
    let prefix: IpNet = reply
        .pool
        .parse()
        .map_err(|error| format!("pool {:?}: {error}", reply.pool))?;
    let prefix = Prefix(prefix.trunc());
    if let Some(wanted) = request.pool.filter(|wanted| wanted.0.trunc() != prefix.0) {
        return Err(format!("it returned {prefix} when asked for {wanted}"));
    }
    if prefix.0.addr().is_ipv6() != request.v6 {
        return Err(format!("{prefix} is of the other family"));
    }
    let gateway = match reply.data.get(GATEWAY).filter(|text| !text.is_empty()) {
        Some(text) => {
            let gateway: Result<IpNet, _> = text.parse();
            let gateway = gateway.map_err(|error| format!("gateway {text:?}: {error}"))?;
            Some(gateway.addr())
        }
        None => None,
    };
    if let Some(outside) = gateway.filter(|gateway| !prefix.0.contains(gateway)) {
        return Err(format!("gateway {outside} is not in its pool {prefix}"));
    }
    Ok(Pool {
        id: reply.pool_id.clone(),
        prefix,
        gateway,
    })
}

impl IpamDriver for RemoteIpam {
    fn capability(&self) -> IpamCapability {
        self.capability
    }

    fn address(&self) -> Option<String> {
        Some(self.link.address())
    }

    fn spaces(&self) -> Spaces {
        self.spaces.clone()
    }

    fn request_pool<'a>(
        &'a self,
        request: &'a PoolRequest,
    ) -> BoxFuture<'a, Result<Pool, IpamError>> {
        Box::pin(self.take_pool(request))
    }

    fn release_pool<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<(), IpamError>> {
        Box::pin(async move {
            let _: Nothing = self.link.call("ReleasePool", &PoolCall { pool }).await?;
            self.held().remove(pool);
            Ok(())
        })
    }

    fn request_address<'a>(
        &'a self,
        pool: &'a Pool,
        request: AddressRequest,
    ) -> BoxFuture<'a, Result<IpAddr, IpamError>> {
        Box::pin(self.take_address(pool, request))
    }

    fn release_address<'a>(
        &'a self,
        pool: &'a str,
        address: IpAddr,
    ) -> BoxFuture<'a, Result<(), IpamError>> {
        Box::pin(async move {
            let address = address.to_string();
            let released = ReleaseAddress { pool, address };
            let _: Nothing = self.link.call("ReleaseAddress", &released).await?;
            Ok(())
        })
    }

    fn holds(&self, pool: &str) -> bool {
        self.held().contains(pool)
    }

    fn life(&self) -> CancellationToken {
        self.link.life()
    }

    fn look(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Whoever looks asks next, and hears then.
            let _ = self.link.check_life().await;
        })
    }
}
