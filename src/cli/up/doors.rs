//! Where this node is asked: the control API, and what else it was told to serve.

use crate::{
    api::http::{
        Door, Purpose,
        types::{Code, Failure},
    },
    cli::error::CliError,
    config::{Config, Docker},
    engine,
    runtime::{BindError, Sockets},
};

/// The plugin socket, open, and the engine that it is for.
pub(super) struct Plugin {
    pub(super) door: Door,
    pub(super) engine: engine::Config,
}

/// What is open, and not served yet.
pub(super) struct Doors {
    /// The control API.
    pub(super) control: Door,
    /// The Docker engine's plugin socket.
    pub(super) docker: Option<Plugin>,
    /// Where names are asked for.
    pub(super) dns: Option<Sockets>,
}

impl Doors {
    /// Opens all, or none: what was opened before one that fails is closed again.
    pub(super) async fn open(config: &Config) -> Result<Self, CliError> {
        let control = Door::open(&config.socket).await?;
        let docker = match &config.docker {
            Some(docker) => plugin(docker).await?,
            None => None,
        };
        let dns = match config.dns {
            Some(listen) => Some(Sockets::bind(listen).await.map_err(dns_refused)?),
            None => None,
        };
        Ok(Self {
            control,
            docker,
            dns,
        })
    }
}

/// Opens the plugin socket. One that nobody asked for is left to whoever has it.
async fn plugin(docker: &Docker) -> Result<Option<Plugin>, CliError> {
    let engine = engine::Config {
        socket: docker.engine.clone(),
        driver: docker.driver(),
    };
    match Door::open_for(Purpose::DOCKER, &docker.plugin).await {
        Ok(door) => Ok(Some(Plugin { door, engine })),
        Err(refused) if !docker.is_chosen => {
            tracing::warn!(%refused, "the Docker engine is not served; --docker off says that it need not be");
            Ok(None)
        }
        Err(refused) => Err(refused.into()),
    }
}

fn dns_refused(refused: BindError) -> CliError {
    match refused {
        BindError::InUse { addr, protocol } => {
            let message = format!(
                "{addr} ({protocol}) is in use: end the program that holds it, or choose another with --dns"
            );
            Failure::new(Code::InUse, message).into()
        }
        BindError::Refused { .. } => refused.into(),
    }
}
