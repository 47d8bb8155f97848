//! TLS through rustls: certificates and keys from PEM files, the system's trust store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::error::Error;

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates or a key in PEM: a file, which is read when it is needed, or the text itself.
#[derive(Clone)]
pub enum Pem {
    /// A file's path.
    File(PathBuf),
    /// PEM itself.
    Text(Vec<u8>),
}

impl Pem {
    /// PEM itself, from a secret store or an environment variable.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(text.into())
    }
}

impl<P: AsRef<Path>> From<P> for Pem {
    fn from(path: P) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a key.
        write!(f, "Pem({self})")
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text(_) => f.write_str("the text that was given"),
        }
    }
}

fn unreadable<E: std::error::Error + Send + Sync + 'static>(option: &str, pem: &Pem) -> impl FnOnce(E) -> Error {
    let message = format!("{option}: {pem} can't be read as PEM");
    move |error| Error::option(message).with_source(error)
}

fn certificates(option: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs: Vec<_> = match pem {
        Pem::File(path) => CertificateDer::pem_file_iter(path)
            .map_err(unreadable(option, pem))?
            .collect::<Result<_, _>>(),
        Pem::Text(text) => CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>(),
    }
    .map_err(unreadable(option, pem))?;
    if certs.is_empty() {
        return Err(Error::option(format!("{option}: {pem} holds no certificate")));
    }
    Ok(certs)
}

fn key(option: &str, pem: &Pem) -> Result<PrivateKeyDer<'static>, Error> {
    match pem {
        Pem::File(path) => PrivateKeyDer::from_pem_file(path),
        Pem::Text(text) => PrivateKeyDer::from_pem_slice(text),
    }
    .map_err(unreadable(option, pem))
}

/// The server's configuration from a certificate chain and its key.
pub(crate) fn server_config(cert: &Pem, key_pem: &Pem) -> Result<Arc<ServerConfig>, Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::option("tls: no protocol version is possible").with_source(error))?
        .with_no_client_auth()
        .with_single_cert(certificates("tls", cert)?, key("tls", key_pem)?)
        .map_err(|error| {
            Error::option(format!(
                "tls: the key in {key_pem} does not fit the certificate in {cert}"
            ))
            .with_source(error)
        })?;
    Ok(Arc::new(config))
}

/// What a client trusts and shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTls {
    pub(crate) ca: Option<Pem>,
    pub(crate) identity: Option<(Pem, Pem)>,
    pub(crate) config: Option<Arc<ClientConfig>>,
}

impl ClientTls {
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = &self.config {
            return Ok(config.clone());
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::option("tls: no protocol version is possible").with_source(error))?;
        let builder = match &self.ca {
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for cert in certificates("ca", pem)? {
                    roots.add(cert).map_err(|error| {
                        Error::option(format!("ca: a certificate in {pem} can't be used")).with_source(error)
                    })?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_platform_verifier().map_err(|error| {
                Error::option(
                    "the system's trust store can't be used; set the environment variable SSL_CERT_FILE or the option ca",
                )
                .with_source(error)
            })?,
        };
        let config = match &self.identity {
            Some((cert, key_pem)) => builder
                .with_client_auth_cert(certificates("client_cert", cert)?, key("client_cert", key_pem)?)
                .map_err(|error| {
                    Error::option(format!(
                        "client_cert: the key in {key_pem} does not fit the certificate in {cert}"
                    ))
                    .with_source(error)
                })?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

/// The name to verify the server's certificate against.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned())
        .map_err(|error| Error::option(format!("{host:?} can't be the name of a TLS server")).with_source(error))
}
