//! A plugin in threads of this process: it answers what it is told to, well or badly, and writes down what it hears.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{
    core::model::Name,
    driver::{DriverError, IpamError, Remote, RemoteIpam},
    plugin::{Address, Client},
};

type Heard = Arc<Mutex<Vec<(String, serde_json::Value)>>>;

/// What a plugin does when it is called.
#[derive(Clone, Debug)]
pub(super) enum Reaction {
    /// Answers this with status 200.
    Json(String),
    /// Answers these, one a call.
    InTurn(Vec<&'static str>),
    /// Answers this with a status.
    Status(u16, &'static str),
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
    /// Says nothing until it is left alone.
    Hang,
    /// Is gone: its socket too.
    Crash,
}

/// A plugin; its threads wait for calls until the tests end.
pub(super) struct Plugin {
    directory: Arc<tempfile::TempDir>,
    pub(super) heard: Heard,
    reactions: Arc<Mutex<BTreeMap<String, Reaction>>>,
}

impl Plugin {
    /// Answers these methods so, and all others with an empty object.
    pub(super) fn start(answers: &[(&str, &str)]) -> Self {
        Self::serve_in(Arc::new(tempfile::tempdir().unwrap()), answers)
    }

    /// Comes back as another process would: with a socket of its own, in the same place.
    pub(super) fn restart(self, answers: &[(&str, &str)]) -> Self {
        std::fs::remove_file(self.directory.path().join("p.sock")).unwrap();
        Self::serve_in(self.directory, answers)
    }

    fn serve_in(directory: Arc<tempfile::TempDir>, answers: &[(&str, &str)]) -> Self {
        let path = directory.path().join("p.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let json = |(method, answer): &(&str, &str)| {
            ((*method).to_owned(), Reaction::Json((*answer).to_owned()))
        };
        let plugin = Self {
            directory,
            heard: Heard::default(),
            reactions: Arc::new(Mutex::new(answers.iter().map(json).collect())),
        };
        let (heard, reactions) = (plugin.heard.clone(), plugin.reactions.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, reactions) = (heard.clone(), reactions.clone());
                let Ok(stream) = stream else { return };
                if serve(stream, &reactions, &heard) {
                    // The socket goes with the listener, as with a process.
                    let _ = std::fs::remove_file(&path);
                    return;
                }
            }
        });
        plugin
    }

    /// Where it listens.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("p.sock")
    }

    /// Reacts to a method so from now on.
    pub(super) fn react(&self, method: &str, reaction: Reaction) {
        let mut reactions = self.reactions.lock().unwrap();
        reactions.insert(method.to_owned(), reaction);
    }

    pub(super) async fn driver(&self) -> Result<Remote, DriverError> {
        self.connect(Duration::from_secs(5), false).await
    }

    /// A driver with another deadline, and maybe with tables.
    pub(super) async fn connect(
        &self,
        deadline: Duration,
        has_tables: bool,
    ) -> Result<Remote, DriverError> {
        let address = Address::Unix(self.path());
        let client = Client::new(address, deadline);
        Remote::connect(&Name::new("wire").unwrap(), client, has_tables).await
    }

    pub(super) async fn ipam(&self) -> Result<RemoteIpam, IpamError> {
        let address = Address::Unix(self.path());
        let client = Client::new(address, Duration::from_secs(5));
        RemoteIpam::connect(&Name::new("pools").unwrap(), client).await
    }

    pub(super) fn methods(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|(method, _)| method.clone()).collect()
    }

    /// What it was last asked by this method.
    pub(super) fn last(&self, method: &str) -> serde_json::Value {
        let heard = self.heard.lock().unwrap();
        let mut newest = heard.iter().rev();
        newest.find(|(of, _)| of == method).unwrap().1.clone()
    }
}

/// Answers one request; returns whether the plugin is gone.
fn serve(stream: UnixStream, reactions: &Mutex<BTreeMap<String, Reaction>>, heard: &Heard) -> bool {
    let mut stream = BufReader::new(stream);
    let (mut method, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap() == 0 {
            return false;
        }
        let line = line.trim_end();
        let path = line.strip_prefix("POST /").or(line.strip_prefix("GET /"));
        if let Some(path) = path {
            let called = path.split(' ').next().unwrap();
            method = called.split('.').next_back().unwrap().to_owned();
        } else if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let request = serde_json::from_slice(&body).unwrap_or_default();
    let reaction = match reactions.lock().unwrap().get_mut(&method) {
        Some(Reaction::InTurn(answers)) => Some(Reaction::Json(answers.remove(0).to_owned())),
        other => other.cloned(),
    };
    heard.lock().unwrap().push((method, request));
    let (status, answer) = match reaction {
        None => (200, "{}".to_owned()),
        Some(Reaction::Json(answer)) => (200, answer),
        Some(Reaction::InTurn(_)) => unreachable!("one was taken out above"),
        Some(Reaction::Status(status, text)) => (status, text.to_owned()),
        Some(Reaction::Crash) => return true,
        Some(Reaction::Raw(bytes)) => {
            // Who is called may have gone before the last of it.
            let _ = stream.get_mut().write_all(&bytes);
            return false;
        }
        Some(Reaction::Hang) => {
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            return false;
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let _ = stream.get_mut().write_all((head + &answer).as_bytes());
    false
}
