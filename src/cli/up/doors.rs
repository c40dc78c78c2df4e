//! Where this node is asked: the control API, and what else it was told to serve.

use crate::{
    api::http::{
        Door, Purpose,
        types::{Code, Failure},
    },
    cli::error::CliError,
    config::Config,
    runtime::{BindError, Sockets},
};

/// What is open, and not served yet.
pub(super) struct Doors {
    /// The control API.
    pub(super) control: Door,
    /// The Docker engine's plugin socket.
    pub(super) docker: Option<Door>,
    /// Where names are asked for.
    pub(super) dns: Option<Sockets>,
}

impl Doors {
    /// Opens all, or none: what was opened before one that fails is closed again.
    pub(super) async fn open(config: &Config) -> Result<Self, CliError> {
        let control = Door::open(&config.socket).await?;
        let docker = match &config.docker_plugin {
            Some(path) => Some(Door::open_for(Purpose::DOCKER, path).await?),
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
