//! TLS through rustls: certificates and keys from PEM files, the system's trust store.

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

fn pem<E: std::error::Error + Send + Sync + 'static>(option: &str, path: &Path) -> impl FnOnce(E) -> Error {
    let message = format!("{option}: {} can't be read as PEM", path.display());
    move |error| Error::option(message).with_source(error)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certs = CertificateDer::pem_file_iter(path)
        .map_err(pem(option, path))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem(option, path))?;
    if certs.is_empty() {
        return Err(Error::option(format!(
            "{option}: {} holds no certificate",
            path.display()
        )));
    }
    Ok(certs)
}

fn key(option: &str, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(pem(option, path))
}

/// The server's configuration from a certificate chain and its key.
pub(crate) fn server_config(cert: &Path, key_path: &Path) -> Result<Arc<ServerConfig>, Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::option("tls: no protocol version is possible").with_source(error))?
        .with_no_client_auth()
        .with_single_cert(certificates("tls", cert)?, key("tls", key_path)?)
        .map_err(|error| {
            Error::option(format!(
                "tls: the key in {} does not fit the certificate in {}",
                key_path.display(),
                cert.display()
            ))
            .with_source(error)
        })?;
    Ok(Arc::new(config))
}

/// What a client trusts and shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTls {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
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
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for cert in certificates("ca", path)? {
                    roots.add(cert).map_err(|error| {
                        Error::option(format!("ca: a certificate in {} can't be used", path.display())).with_source(error)
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
            Some((cert, key_path)) => builder
                .with_client_auth_cert(certificates("client_cert", cert)?, key("client_cert", key_path)?)
                .map_err(|error| {
                    Error::option(format!(
                        "client_cert: the key in {} does not fit the certificate in {}",
                        key_path.display(),
                        cert.display()
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
