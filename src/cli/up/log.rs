//! The daemon's log, on standard error.

use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    cli::error::CliError,
    config::{Config, LogFormat},
};

/// Crates whose news is not for the operator: openraft calls every voter that is away an error. `--log openraft=info` brings
/// them back.
const QUIET: &str = "openraft=off,foca=warn";

/// Starts the log.
pub(super) fn start(config: &Config) -> Result<(), CliError> {
    let directives = format!("{QUIET},{}", config.log);
    let filter = EnvFilter::try_new(directives)
        .map_err(|refused| CliError::Usage(format!("--log {}: {refused}", config.log)))?;
    let to_stderr = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Json => to_stderr.json().flatten_event(true).try_init(),
        LogFormat::Text => to_stderr
            .with_ansi(
                std::io::IsTerminal::is_terminal(&std::io::stderr())
                    && std::env::var_os("NO_COLOR").is_none(),
            )
            .with_target(false)
            .try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}").into())
}
