//! An engine as far as its lists go: networks, containers, and a stream of events that stays open.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

/// It ends when this goes.
pub(super) struct Engine {
    state: Arc<Mutex<State>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct State {
    networks: Vec<Value>,
    /// Network, endpoint, name, alias.
    containers: Vec<(String, String, String, String)>,
}

impl Engine {
    pub(super) fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let mut server = JoinSet::new();
        let shared = state.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self {
            state,
            _server: server,
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

impl State {
    fn add(&mut self, mut network: Value) {
        let id = format!("{:064x}", self.networks.len() + 1);
        network["Id"] = id.into();
        self.networks.push(network);
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Value {
        match (method, path) {
            ("GET", "/networks") => json!(self.networks),
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
                let (network, .., alias) = self.containers.iter().find(of).unwrap();
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

async fn serve(stream: UnixStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        match line
            .trim()
            .to_ascii_lowercase()
            .strip_prefix("content-length: ")
        {
            Some(value) => length = value.parse().unwrap(),
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    if words[1].starts_with("/events") {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        std::future::pending::<()>().await;
    }
    let answer = state.lock().unwrap().answer(&words[0], &words[1], &body);
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}",
        answer.len()
    );
    let whole = format!("{head}\r\n\r\n{answer}");
    stream.write_all(whole.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}
