//! An engine as far as its lists go: networks, containers, and a stream of events that stays open.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

/// It ends when this goes.
pub(super) struct Engine {
    state: Arc<Mutex<State>>,
    socket: PathBuf,
}

#[derive(Default)]
struct State {
    has_ended: bool,
    networks: Vec<Value>,
    /// Network, endpoint, name, alias.
    containers: Vec<(String, String, String, String)>,
}

impl Engine {
    pub(super) fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.lock().unwrap().has_ended {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self {
            state,
            socket: socket.to_owned(),
        }
    }

    pub(super) fn add_network(&self, name: &str, driver: &str) {
        let made = json!({"Name": name, "Driver": driver, "Options": null});
        self.state.lock().unwrap().add(made);
    }

    /// Starts a container: it is listed with its endpoint.
    pub(super) fn run(&self, network: &str, endpoint: &str, (name, alias): (&str, &str)) {
        let started = [network, endpoint, name, alias].map(str::to_owned);
        self.state.lock().unwrap().containers.push(started.into());
    }

    pub(super) fn stop(&self, endpoint: &str) {
        let mut state = self.state.lock().unwrap();
        state.containers.retain(|(_, of, ..)| of != endpoint);
    }

    /// Returns the names of the networks of a driver.
    pub(super) fn networks(&self, driver: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let of_driver = state.networks.iter();
        let of_driver = of_driver.filter(|network| network["Driver"] == driver);
        of_driver
            .map(|network| network["Name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(super) fn id_of(&self, name: &str) -> String {
        let state = self.state.lock().unwrap();
        let mut networks = state.networks.iter();
        let found = networks.find(|network| network["Name"] == name).unwrap();
        found["Id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.state.lock().unwrap().has_ended = true;
        // It wakes who waits for the next connection.
        let _ = UnixStream::connect(&self.socket);
    }
}

impl State {
    fn add(&mut self, mut network: Value) {
        let id = format!("{:064x}", self.networks.len() + 1);
        network["Id"] = id.into();
        self.networks.push(network);
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Value {
        match (method, path) {
            ("GET", "/networks") => json!(self.networks),
            ("GET", "/version") => json!({"Version": "99.1.0", "ApiVersion": "9.99"}),
            ("GET", "/info") => json!({"Swarm": {"LocalNodeState": "active", "Cluster": null}}),
            ("POST", "/networks/create") => {
                self.add(serde_json::from_slice(body).unwrap());
                json!({"Warning": ""})
            }
            ("DELETE", _) => {
                let id = path.trim_start_matches("/networks/");
                self.networks.retain(|network| network["Id"] != id);
                Value::Null
            }
            _ if path.starts_with("/containers/") => {
                let of = |(_, endpoint, ..): &&(String, String, String, String)| {
                    path.contains(endpoint.as_str())
                };
                // It may be asked for a moment after it has gone.
                let Some((network, .., alias)) = self.containers.iter().find(of) else {
                    return Value::Null;
                };
                let attachment = json!({"NetworkID": network, "Aliases": [alias]});
                json!({"NetworkSettings": {"Networks": {"any": attachment}}})
            }
            _ => self.inspect(path.trim_start_matches("/networks/")),
        }
    }

    fn inspect(&self, id: &str) -> Value {
        let mut networks = self.networks.iter();
        let mut found = networks
            .find(|network| network["Id"] == id)
            .unwrap()
            .clone();
        found["Containers"] = json!({});
        for (network, endpoint, name, _) in &self.containers {
            if network == id {
                // The container's id is the endpoint's, with something before it.
                let container = format!("c{endpoint}");
                let listed = json!({"Name": name, "EndpointID": endpoint, "IPv4Address": ""});
                found["Containers"][container] = listed;
            }
        }
        found
    }
}

/// Answers one request; a connection may also be closed without one.
fn serve(stream: UnixStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let [method, path, ..] = &words[..] else {
        return;
    };
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let lower = line.trim().to_ascii_lowercase();
        match lower.strip_prefix("content-length: ") {
            Some(value) => length = value.parse().unwrap(),
            None if lower.is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if path.starts_with("/events") {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        (&stream).write_all(head.as_bytes()).unwrap();
        // Until who follows has gone.
        let _ = reader.read(&mut [0]);
        return;
    }
    let answer = state.lock().unwrap().answer(method, path, &body);
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}",
        answer.len()
    );
    let whole = format!("{head}\r\n\r\n{answer}");
    // Who asked may have gone.
    let _ = (&stream).write_all(whole.as_bytes());
}
