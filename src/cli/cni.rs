//! The program called as a CNI plugin: the command is in the environment, the configuration on standard input, the answer on
//! standard output.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::{api::cni, config::Host};

/// Answers a container runtime, if one has called the program; then there is nothing else to do.
pub(super) fn answer_if_called() -> Option<ExitCode> {
    let variable = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
    let done = answer(variable, io::stdin().lock(), io::stdout().lock())?;
    Some(ExitCode::from(done))
}

/// Returns what to exit with; the specification wants an error object and a code that is not zero together.
fn answer(
    variable: impl Fn(&str) -> Option<String>,
    input: impl Read,
    mut output: impl Write,
) -> Option<u8> {
    if !cni::is_called(&variable) {
        return None;
    }
    let socket = variable("WEFT_SOCKET").map(PathBuf::from);
    let socket = socket.unwrap_or_else(|| Host::here().socket());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Some(1);
    };
    let reply = runtime.block_on(cni::answer(variable, input, socket));
    let is_told = match reply.json.as_str() {
        "" => Ok(()),
        json => writeln!(output, "{json}").and_then(|()| output.flush()),
    };
    Some(u8::from(reply.is_error || is_told.is_err()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn call(command: Option<&str>, input: &str) -> (Option<u8>, String) {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => command.map(str::to_owned),
            _ => (name == "WEFT_SOCKET").then(|| "/nowhere/sock".to_owned()),
        };
        let mut output = Vec::new();
        let code = answer(variable, input.as_bytes(), &mut output);
        (code, String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_runtime_gets_one_object_and_an_exit_code_that_fits_it() {
        let configuration = r#"{"cniVersion":"1.1.0","name":"app","type":"weft"}"#;

        let (version, versions) = call(Some("VERSION"), configuration);
        let (status, refusal) = call(Some("STATUS"), configuration);

        assert_eq!((version, status), (Some(0), Some(1)));
        let versions: Value = serde_json::from_str(&versions).unwrap();
        let refusal: Value = serde_json::from_str(&refusal).unwrap();
        assert_eq!(versions["supportedVersions"][1], "1.1.0");
        assert_eq!(refusal["code"], 50);
    }

    #[test]
    fn a_person_gets_the_command_line() {
        assert_eq!(call(None, ""), (None, String::new()));
    }
}
