//! TLS to a plugin that listens on TCP: its certificate is verified against the authority that its `.json` names.
//!
//! Only one that says so (`InsecureSkipVerify`) is believed without; none is ever called in clear text instead.

use std::{io, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What a `.json` says of TLS. The files are read for every connection, so new certificates need no restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TlsFiles {
    /// Whether the plugin's certificate is not verified.
    #[serde(rename = "InsecureSkipVerify")]
    pub skip_verify: bool,
    /// The certificates of the authorities that it is verified with.
    #[serde(rename = "CAFile")]
    pub ca: Option<PathBuf>,
    /// Our own certificate, if the plugin wants one.
    #[serde(rename = "CertFile")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(rename = "KeyFile")]
    pub key: Option<PathBuf>,
}

/// Shakes hands on a connection. The name in the certificate is the host that is called.
pub(super) async fn connect(
    stream: TcpStream,
    authority: &str,
    files: &TlsFiles,
) -> io::Result<TlsStream<TcpStream>> {
    let (host, _) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let config = config(files).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn config(files: &TlsFiles) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &files.ca {
        _ if files.skip_verify => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for cert in certificates(path).await? {
                roots.add(cert).map_err(io::Error::other)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert).await?;
    let key = PrivateKeyDer::from_pem_slice(&read(key).await?).map_err(io::Error::other)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(io::Error::other)
}

async fn certificates(path: &PathBuf) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path).await?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates =
        certificates.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    if certificates.is_empty() {
        return Err(io::Error::other(format!(
            "{}: no certificate in it",
            path.display()
        )));
    }
    Ok(certificates)
}

async fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let bytes = tokio::fs::read(path).await;
    bytes.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// Believes every certificate, as `InsecureSkipVerify` asks for. The key that belongs to it is still proved.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinSet,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::plugin::{CallError, Client, Directories, discovery};

    /// P6: without a CAFile nothing is verified only where that is asked for.
    #[tokio::test]
    async fn a_plugin_by_tls_is_verified_unless_its_file_says_not_to() {
        let (place, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (port, _server) = serve(place.path()).await;
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(stranger.path().join("ca.pem"), other.cert.pem()).unwrap();
        let ca = |directory: &Path| json!({"CAFile": directory.join("ca.pem")});

        let trusted = call(place.path(), port, &ca(place.path())).await;
        let strange = call(place.path(), port, &ca(stranger.path())).await;
        let skipped = call(place.path(), port, &json!({"InsecureSkipVerify": true})).await;
        let missing = call(place.path(), port, &json!({"CAFile": "/nowhere/ca.pem"})).await;

        assert_eq!(trusted.unwrap(), json!({"Scope": "local"}));
        assert_eq!(skipped.unwrap(), json!({"Scope": "local"}));
        for (refused, said) in [(strange, "certificate"), (missing, "/nowhere/ca.pem")] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, CallError::Untrusted { .. }), "{refused}");
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_file_that_wants_tls_and_names_no_authority_is_refused() {
        let place = tempfile::tempdir().unwrap();
        for (tls, addr, said) in [
            (json!({}), "tcp://localhost:1", "CAFile"),
            (
                json!({"InsecureSkipVerify": true}),
                "unix:///p.sock",
                "tcp://",
            ),
            (json!({"CAFile": 7}), "tcp://localhost:1", "invalid type"),
        ] {
            let spec = json!({"Name": "net", "Addr": addr, "TLSConfig": tls});
            fs::write(place.path().join("net.json"), spec.to_string()).unwrap();

            let refused = discovery::find(&directories(place.path()), "net").await;

            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }

    fn directories(place: &Path) -> Directories {
        Directories {
            sockets: place.join("run"),
            specs: vec![place.to_owned()],
        }
    }

    /// Calls the plugin as its `.json` says.
    async fn call(place: &Path, port: u16, tls: &Value) -> Result<Value, CallError> {
        let spec =
            json!({"Name": "net", "Addr": format!("tcp://localhost:{port}"), "TLSConfig": tls});
        fs::write(place.join("net.json"), spec.to_string()).unwrap();
        let address = discovery::find(&directories(place), "net").await.unwrap();
        let client = Client::new(address.unwrap(), Duration::from_secs(10));
        client.call("NetworkDriver.GetCapabilities", &()).await
    }

    /// Serves a plugin with a certificate of its own, which is written into the directory.
    async fn serve(place: &Path) -> (u16, JoinSet<()>) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(place.join("ca.pem"), own.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 17\r\n\r\n{\"Scope\":\"local\"}";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (port, server)
    }
}
