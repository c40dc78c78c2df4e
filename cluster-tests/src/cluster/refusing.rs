//! A plugin that refuses everything: to its engine the same as none, but that the engine does not wait for it.

use std::{fs, path::PathBuf};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::JoinSet,
};

/// What an engine is answered.
const REFUSED: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"Err\":\"away\"}";

/// It refuses for as long as this is kept.
#[derive(Debug)]
pub struct Refusing {
    _tasks: JoinSet<()>,
    socket: PathBuf,
}

impl Refusing {
    /// Begins to refuse what is asked at this socket.
    pub(super) fn at(socket: PathBuf) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut asks, _)) = listener.accept().await {
                // One call a connection: the engine opens another one for the next.
                let _ = asks.read(&mut [0; 4096]).await;
                let _ = asks.write_all(REFUSED.as_bytes()).await;
            }
        });
        let _tasks = tasks;
        Ok(Self { _tasks, socket })
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}
