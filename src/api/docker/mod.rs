//! The Docker engine's door: the plugin socket, with Weft as network driver and as IPAM driver.
//!
//! The handshake and what Weft is able to do are answered. Every other call of the two protocols is refused with an
//! error that says so: a network that seems to exist but carries nothing would be worse than none. A method that is in
//! neither protocol is a 404, which is how the engine tells it from a failure.
//!
//! **Invariant:** an error is sent under both keys. The engine reads `Err` from a network driver and `Error` from an IPAM
//! driver, and takes the other one for success.

mod ipam;
mod network;

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::http::{self, Door};

/// The media type of the engine's plugin protocol.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Serves the plugin socket until `stop`; then calls that are under way have a moment to end. The socket is gone afterwards.
pub async fn serve(door: Door, stop: CancellationToken) {
    http::serve_as_is(door, router(), stop).await;
}

/// Returns the calls of the plugin socket. The engine sends no content type, and no body where there is nothing to say.
pub fn router() -> Router {
    let handshake =
        Router::new().route("/Plugin.Activate", post(async || Answer(Activation::OURS)));
    let refused = network::NOT_YET
        .iter()
        .map(|method| ("NetworkDriver", *method));
    let refused = refused.chain(ipam::NOT_YET.iter().map(|method| ("IpamDriver", *method)));
    refused.fold(
        handshake.merge(network::router()).merge(ipam::router()),
        |router, (driver, method)| {
            router.route(
                &format!("/{driver}.{method}"),
                post(async move || not_yet(driver, method)),
            )
        },
    )
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Activation {
    implements: &'static [&'static str],
}

impl Activation {
    const OURS: Self = Self {
        implements: &["NetworkDriver", "IpamDriver"],
    };
}

/// A successful answer.
struct Answer<T>(T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], axum::Json(self.0)).into_response()
    }
}

/// A failed call, under both keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    err: String,
    error: String,
}

fn not_yet(driver: &str, method: &str) -> Response {
    let message = format!(
        "weft does not support {driver}.{method} yet; use `weft network` and `weft endpoint`"
    );
    tracing::warn!(
        driver,
        method,
        "the Docker engine asked for what is not supported yet"
    );
    let failure = Failure {
        err: message.clone(),
        error: message,
    };
    (StatusCode::NOT_IMPLEMENTED, Answer(failure)).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        api::http::Purpose,
        plugin::{Address, CallError, Capability, Client, Config, Directories, Getter, Mode},
    };

    /// The socket in a directory of its own, found as the engine finds it.
    struct Served {
        directory: tempfile::TempDir,
        _server: JoinSet<()>,
    }

    impl Served {
        async fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("weft.sock");
            let door = Door::open_for(Purpose::DOCKER, &path).await.unwrap();
            let mut server = JoinSet::new();
            server.spawn(serve(door, CancellationToken::new()));
            Self {
                directory,
                _server: server,
            }
        }

        fn client(&self) -> Client {
            let socket = Address::Unix(self.directory.path().join("weft.sock"));
            Client::new(socket, std::time::Duration::from_secs(10))
        }

        async fn call(&self, method: &str, request: Value) -> Result<Value, CallError> {
            self.client().call(method, &request).await
        }
    }

    #[tokio::test]
    async fn the_handshake_goes_as_an_engine_does_it() {
        let door = Served::start().await;
        let getter = Getter::new(Config {
            directories: Directories {
                sockets: door.directory.path().to_owned(),
                specs: Vec::new(),
            },
            ..Config::default()
        });

        for capability in [Capability::NETWORK_DRIVER, Capability::IPAM_DRIVER] {
            let found = getter.get("weft", capability, Mode::Lookup).await;

            assert!(found.is_ok(), "{found:?}");
        }
    }

    #[tokio::test]
    async fn what_weft_is_able_to_do_is_answered() {
        let door = Served::start().await;

        for (method, expected) in [
            (
                "NetworkDriver.GetCapabilities",
                json!({"Scope": "local", "ConnectivityScope": "global"}),
            ),
            (
                "IpamDriver.GetCapabilities",
                json!({"RequiresMACAddress": false, "RequiresRequestReplay": false}),
            ),
            (
                "IpamDriver.GetDefaultAddressSpaces",
                json!({"LocalDefaultAddressSpace": "weft-local", "GlobalDefaultAddressSpace": "weft"}),
            ),
        ] {
            assert_eq!(
                door.call(method, Value::Null).await.unwrap(),
                expected,
                "{method}"
            );
        }
    }

    #[tokio::test]
    async fn a_call_that_is_not_supported_yet_fails_under_both_keys() {
        let failure = Failure {
            err: "x".into(),
            error: "x".into(),
        };
        assert_eq!(
            serde_json::to_value(failure).unwrap(),
            json!({"Err": "x", "Error": "x"})
        );
        let door = Served::start().await;

        for method in [
            "NetworkDriver.CreateNetwork",
            "NetworkDriver.Join",
            "IpamDriver.RequestPool",
        ] {
            let error = door
                .call(method, json!({"NetworkID": "1"}))
                .await
                .unwrap_err()
                .to_string();

            assert!(
                error.contains(&format!("weft does not support {method} yet")),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_method_of_neither_protocol_is_not_found() {
        let door = Served::start().await;

        let error = door
            .call("NetworkDriver.GwAllocCheck", json!({}))
            .await
            .unwrap_err();

        assert!(matches!(error, CallError::NotImplemented { .. }), "{error}");
    }
}
