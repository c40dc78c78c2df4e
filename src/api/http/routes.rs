//! The routes, and what each asks of the controller.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::KeepAlive},
    routing::{get, post, put},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    cluster, drivers as show,
    error::{Code, Failure},
    extract::{Ask, At, Body},
    ipam::{self, Pool},
    metrics, stream,
    transitions::{self, MemberWatchQuery},
    types::{
        Applied, Blob, CreateEndpoint, CreateNetwork, Driver, Endpoint, EndpointDetail, Entry,
        JoinQuery, KeyQuery, Leave, Left, LeftEndpoint, ListedNetwork, Network, NetworkDetail,
        Plugin, PutEntry, RotateToken, Status, Table, Token, WaitQuery, WatchQuery,
    },
    views::{self, Names},
};
use crate::{
    controller::{Controller, EndpointView, IpamRequest, NetworkRequest, SubnetRequest},
    core::model::{Key, LimitError, Name, TableEntry, TableName, Value},
    driver::SandboxPlace,
    runtime::streams::Tls,
};

/// How many watches may run at once.
const WATCHERS_MAX: usize = 256;
/// How long a request waits for others unless it says otherwise, and at most.
const WAIT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));

/// The longest name of an interface (Linux's `IFNAMSIZ`, less the zero at its end).
const INTERFACE_MAX: usize = 15;

/// What the handlers ask.
#[derive(Clone)]
pub(super) struct Api {
    controller: Controller,
    tls: Tls,
    watchers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Returns the control API of a node. Watches end with `stop`.
pub fn routes(controller: Controller, tls: Tls, stop: CancellationToken) -> Router {
    let api = Api {
        controller,
        tls,
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        stop,
    };
    let network = Router::new()
        .route("/", get(network_inspect).delete(network_remove))
        .route("/applied", post(applied))
        .route("/endpoints", get(network_endpoints).post(endpoint_create))
        .route(
            "/endpoints/{endpoint}",
            get(endpoint_inspect).delete(endpoint_remove),
        )
        .route("/endpoints/{endpoint}/join", post(endpoint_join))
        .route("/endpoints/{endpoint}/leave", post(endpoint_leave))
        .route("/tables", get(tables))
        .route("/tables/{table}", get(entries))
        .route(
            "/tables/{table}/entries",
            put(entry_put).get(entry_get).delete(entry_remove),
        );
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/networks", get(networks).post(network_create))
        .nest("/networks/{network}", network)
        .route("/endpoints", get(endpoints))
        .route("/drivers", get(drivers))
        .route("/drivers/{driver}", get(driver_inspect))
        .route("/plugins", get(plugins))
        .route("/plugins/{plugin}", get(plugin_inspect))
        .route("/ipam", get(addresses))
        .route("/watch", get(watch))
        .route("/watch/members", get(watch_members))
        .route("/token", get(token).post(token_rotate))
        .route("/leave", post(leave))
        .route("/metrics", get(measure))
        .route("/healthz", get(healthz));
    let trust = super::trust::routes().with_state(api.controller.clone());
    let cluster = cluster::routes()
        .merge(super::authority::routes())
        .with_state(api.controller.clone());
    let members = super::members::routes().with_state(api.controller.clone());
    let dataplane = super::dataplane::routes().with_state(api.controller.clone());
    let pools = super::pools::routes().with_state(api.controller.clone());
    let parts = trust.merge(members).merge(cluster).merge(dataplane);
    let parts = parts.merge(pools);
    Router::new()
        .nest("/v1", v1.with_state(api))
        .nest("/v1", parts)
}

type Answer<T> = Result<Json<T>, Failure>;

impl Api {
    async fn names(&self) -> Result<Names, Failure> {
        let members = self.controller.members().await?;
        Ok(Names::of(&members, &self.controller.network_list().await?))
    }

    async fn show_endpoint(&self, view: EndpointView) -> Answer<Endpoint> {
        Ok(Json(views::endpoint(view, &self.names().await?)))
    }

    async fn show_pools(&self) -> Result<Vec<Pool>, Failure> {
        let names = self.controller.node_names().await?;
        Ok(ipam::pools(self.controller.ipam().await?, &names))
    }

    async fn show_status(&self) -> Result<Status, Failure> {
        let view = self.controller.status().await?;
        let members = self.controller.members().await?;
        let mut status = views::status(view, &members, &self.tls.stats())?;
        let wait = self.controller.voters_wait();
        status.raft.waits = wait.map(|wait| cluster::waits(wait, &Names::of(&members, &[]).nodes));
        Ok(status)
    }
}

async fn status(State(api): State<Api>) -> Answer<Status> {
    Ok(Json(api.show_status().await?))
}

async fn networks(State(api): State<Api>) -> Answer<Vec<ListedNetwork>> {
    let listed = api.controller.network_states().await?;
    Ok(Json(
        listed.into_iter().map(views::listed_network).collect(),
    ))
}

async fn network_create(
    State(api): State<Api>,
    Body(wish): Body<CreateNetwork>,
) -> Result<(StatusCode, Json<Network>), Failure> {
    let subnet = |wish: super::types::CreateSubnet| SubnetRequest {
        prefix: wish.prefix,
        gateway: wish.gateway,
        range: wish.range,
        reserved: wish.reserved,
    };
    let request = NetworkRequest {
        name: wish.name,
        driver: wish.driver,
        options: wish.options,
        subnets: wish.subnets.into_iter().map(subnet).collect(),
        ipv6: wish.ipv6,
    };
    let ipam = wish.ipam.map(|ipam| IpamRequest {
        driver: ipam.driver,
        options: ipam.options,
    });
    let record = api.controller.network_create_with(request, ipam).await?;
    Ok((StatusCode::CREATED, Json(views::network(record))))
}

async fn network_inspect(
    State(api): State<Api>,
    At(network): At<String>,
    Ask(query): Ask<WaitQuery>,
) -> Answer<NetworkDetail> {
    let view = match limit(query)? {
        Some(limit) => api.controller.network_until_synced(&network, limit).await?,
        None => api.controller.network_inspect(&network).await?,
    };
    Ok(Json(views::network_detail(view, &api.names().await?)))
}

async fn applied(
    State(api): State<Api>,
    At(network): At<String>,
    Ask(query): Ask<WaitQuery>,
) -> Answer<Applied> {
    let limit = limit(query)?.unwrap_or(WAIT.0);
    let view = api.controller.applied(&network, limit).await?;
    Ok(Json(views::applied(view)))
}

/// Returns how long to wait, if that was asked for.
pub(super) fn limit(query: WaitQuery) -> Result<Option<Duration>, Failure> {
    match query.wait_ms.map(Duration::from_millis) {
        Some(limit) if limit > WAIT.1 => {
            let message = format!("wait_ms may be {} at most", WAIT.1.as_millis());
            Err(Failure::new(Code::Invalid, message))
        }
        limit => Ok(limit),
    }
}

async fn network_remove(
    State(api): State<Api>,
    At(network): At<String>,
) -> Result<StatusCode, Failure> {
    api.controller.network_remove(&network).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn endpoints(State(api): State<Api>) -> Answer<Vec<Endpoint>> {
    list_endpoints(&api, None).await
}

async fn network_endpoints(
    State(api): State<Api>,
    At(network): At<String>,
) -> Answer<Vec<Endpoint>> {
    list_endpoints(&api, Some(&network)).await
}

async fn list_endpoints(api: &Api, network: Option<&str>) -> Answer<Vec<Endpoint>> {
    let listed = api.controller.endpoint_list(network).await?;
    let names = api.names().await?;
    let shown = listed.into_iter().map(|view| views::endpoint(view, &names));
    Ok(Json(shown.collect()))
}

async fn endpoint_create(
    State(api): State<Api>,
    At(network): At<String>,
    Body(wish): Body<CreateEndpoint>,
) -> Result<(StatusCode, Json<Endpoint>), Failure> {
    let wanted = wish.address.into_iter().chain(wish.second_address);
    let created = api
        .controller
        .endpoint_create(&network, wish.name, wanted)
        .await?;
    Ok((StatusCode::CREATED, api.show_endpoint(created).await?))
}

async fn endpoint_join(
    State(api): State<Api>,
    At((network, endpoint)): At<(String, String)>,
    Ask(query): Ask<JoinQuery>,
) -> Answer<Endpoint> {
    let controller = &api.controller;
    let joined = match sandbox(query)? {
        Some(sandbox) => {
            controller
                .endpoint_enter(&network, &endpoint, sandbox)
                .await?
        }
        None => controller.endpoint_join(&network, &endpoint).await?,
    };
    api.show_endpoint(joined).await
}

/// Reads which sandbox is meant.
fn sandbox(query: JoinQuery) -> Result<Option<SandboxPlace>, Failure> {
    let invalid = |what: &str| Err(Failure::new(Code::Invalid, what));
    let JoinQuery { netns, interface } = query;
    let fits = |name: &String| {
        let is_plain = |c: char| c.is_ascii_graphic() && c != '/' && c != ':' && c != '%';
        (1..=INTERFACE_MAX).contains(&name.len()) && name.chars().all(is_plain)
    };
    match (netns, interface) {
        (_, Some(name)) if !fits(&name) => invalid("an interface's name has 1 to 15 characters"),
        (None, Some(_)) => invalid("an interface's name needs the sandbox that it is in"),
        (Some(path), _) if !path.starts_with('/') => invalid("the path of a sandbox begins with /"),
        (Some(path), name) => Ok(Some(SandboxPlace {
            path: path.into(),
            name,
        })),
        (None, None) => Ok(None),
    }
}

async fn endpoint_leave(
    State(api): State<Api>,
    At((network, endpoint)): At<(String, String)>,
    Ask(query): Ask<WaitQuery>,
) -> Answer<LeftEndpoint> {
    let controller = &api.controller;
    let (left, applied) = match limit(query)? {
        Some(limit) => {
            let left = controller.endpoint_leave_applied(&network, &endpoint, limit);
            let (left, applied) = left.await?;
            (left, Some(applied))
        }
        None => (controller.endpoint_leave(&network, &endpoint).await?, None),
    };
    let Json(endpoint) = api.show_endpoint(left).await?;
    Ok(Json(LeftEndpoint {
        endpoint,
        applied: applied.map(views::applied),
    }))
}

async fn endpoint_remove(
    State(api): State<Api>,
    At((network, endpoint)): At<(String, String)>,
) -> Result<StatusCode, Failure> {
    api.controller.endpoint_remove(&network, &endpoint).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn endpoint_inspect(
    State(api): State<Api>,
    At((network, endpoint)): At<(String, String)>,
) -> Answer<EndpointDetail> {
    let detail = api.controller.endpoint_inspect(&network, &endpoint).await?;
    Ok(Json(show::endpoint_detail(detail, &api.names().await?)))
}

async fn drivers(State(api): State<Api>) -> Answer<Vec<Driver>> {
    let drivers = api.controller.driver_list().await?;
    Ok(Json(drivers.into_iter().map(show::driver).collect()))
}

async fn driver_inspect(State(api): State<Api>, At(driver): At<Name>) -> Answer<Vec<Driver>> {
    let found = api.controller.driver_inspect(&driver).await?;
    Ok(Json(found.into_iter().map(show::driver).collect()))
}

async fn plugins(State(api): State<Api>) -> Answer<Vec<Plugin>> {
    let plugins = api.controller.plugin_list().await?;
    Ok(Json(plugins.into_iter().map(show::plugin).collect()))
}

async fn plugin_inspect(State(api): State<Api>, At(plugin): At<String>) -> Answer<Plugin> {
    let mut plugins = api.controller.plugin_list().await?.into_iter();
    let found = plugins.find(|found| found.name == plugin);
    let found = found.ok_or_else(|| {
        let message = format!("this host has no plugin {plugin}");
        Failure::new(Code::NoSuchPlugin, message)
    })?;
    Ok(Json(show::plugin(found)))
}

async fn tables(State(api): State<Api>, At(network): At<String>) -> Answer<Vec<Table>> {
    let tables = api.controller.table_list(&network).await?;
    Ok(Json(tables.into_iter().map(views::table).collect()))
}

async fn entries(
    State(api): State<Api>,
    At((network, table)): At<(String, TableName)>,
) -> Answer<Vec<Entry>> {
    let entries = api.controller.table_entries(&network, table).await?;
    Ok(Json(entries.into_iter().map(views::entry).collect()))
}

async fn entry_get(
    State(api): State<Api>,
    At((network, table)): At<(String, TableName)>,
    Ask(query): Ask<KeyQuery>,
) -> Answer<Entry> {
    let entry = api
        .controller
        .table_get(&network, table, key(&query)?)
        .await?;
    Ok(Json(views::entry(entry)))
}

async fn entry_put(
    State(api): State<Api>,
    At((network, table)): At<(String, TableName)>,
    Ask(query): Ask<KeyQuery>,
    Body(wish): Body<PutEntry>,
) -> Result<StatusCode, Failure> {
    let entry = TableEntry {
        table,
        key: key(&query)?,
        value: Value::new(wish.value.0)?,
    };
    let mode = views::put_mode(wish.mode);
    api.controller.table_put(&network, entry, mode).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn entry_remove(
    State(api): State<Api>,
    At((network, table)): At<(String, TableName)>,
    Ask(query): Ask<KeyQuery>,
) -> Result<StatusCode, Failure> {
    let key = key(&query)?;
    api.controller.table_remove(&network, table, key).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn key(query: &KeyQuery) -> Result<Key, Failure> {
    Ok(Key::new(bytes(&query.key, query.encoding)?.0)?)
}

fn bytes(text: &str, encoding: super::types::Encoding) -> Result<Blob, Failure> {
    Blob::parse(text, encoding)
        .map_err(|refused| Failure::new(Code::BadRequest, refused.to_string()))
}

impl From<LimitError> for Failure {
    fn from(refused: LimitError) -> Self {
        let code = match refused {
            LimitError::TooLarge { .. } => Code::TooLarge,
            LimitError::Empty { .. } | LimitError::Character { .. } => Code::Invalid,
        };
        Self::new(code, refused.to_string())
    }
}

/// The header with which a reader of server-sent events comes back (WHATWG HTML §9.2.3): newer than what its address says.
const LAST_EVENT_ID: &str = "last-event-id";

async fn watch(
    State(api): State<Api>,
    headers: HeaderMap,
    Ask(query): Ask<WatchQuery>,
) -> Result<Response, Failure> {
    let slot = slot(&api)?;
    let prefix = bytes(query.prefix.as_deref().unwrap_or_default(), query.encoding)?;
    let from = last_seen(&headers).or(query.from);
    let watcher = api
        .controller
        .watch(&query.network, query.table, prefix.0.to_vec(), from)
        .await?;
    let events = stream::events(watcher, from, (slot, api.stop));
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

async fn watch_members(
    State(api): State<Api>,
    headers: HeaderMap,
    Ask(query): Ask<MemberWatchQuery>,
) -> Result<Response, Failure> {
    let slot = slot(&api)?;
    let from = last_seen(&headers).or(query.from);
    let watch = api.controller.watch_members(from);
    let events = transitions::events(watch, from, (slot, api.stop));
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// Takes a place among the watches; it is given back when it goes.
fn slot(api: &Api) -> Result<OwnedSemaphorePermit, Failure> {
    let slot = Arc::clone(&api.watchers).try_acquire_owned();
    slot.map_err(|_none_left| {
        let message = format!("{WATCHERS_MAX} watches run already: end one first");
        Failure::new(Code::Busy, message)
    })
}

/// Returns the revision that the reader has seen last, as `EventSource` says it when it connects again.
fn last_seen(headers: &HeaderMap) -> Option<u64> {
    let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    seen.and_then(|id| id.parse().ok())
}

async fn token(State(api): State<Api>) -> Answer<Token> {
    show_token(&api, false).await
}

async fn token_rotate(State(api): State<Api>, Body(wish): Body<RotateToken>) -> Answer<Token> {
    show_token(&api, wish.rotate).await
}

async fn show_token(api: &Api, rotate: bool) -> Answer<Token> {
    let token = api.controller.token(rotate).await?.to_string();
    Ok(Json(Token { token }))
}

async fn leave(State(api): State<Api>, Body(wish): Body<Leave>) -> Answer<Left> {
    let status = api.show_status().await?;
    let others = (status.members.alive + status.members.suspect).saturating_sub(1);
    if !wish.force && others == 0 {
        let message = "no other member is alive, so the cluster would end: to do that, say --force";
        return Err(Failure::new(Code::LastMember, message));
    }
    if !wish.force && status.leader.is_none() {
        let message = "the cluster has no leader to agree that this node leaves: wait, or say --force and its name stays taken";
        return Err(Failure::new(Code::NoLeader, message));
    }
    api.controller.leave().await?;
    Ok(Json(Left {
        cluster: status.cluster,
        node: status.node,
        remaining: others,
    }))
}

async fn addresses(State(api): State<Api>) -> Answer<Vec<Pool>> {
    Ok(Json(api.show_pools().await?))
}

async fn measure(State(api): State<Api>) -> Result<Response, Failure> {
    let pools = api.show_pools().await?;
    let text = metrics::render(&api.show_status().await?, &pools);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, text).into_response())
}

async fn healthz(State(api): State<Api>) -> Result<StatusCode, Failure> {
    let status = api.show_status().await?;
    if !status.ready {
        return Err(Failure::new(Code::NotReady, "the node is still coming up"));
    }
    if status.leader.is_none() {
        return Err(Failure::new(Code::NoLeader, "the node knows of no leader"));
    }
    Ok(StatusCode::NO_CONTENT)
}
