//! The certificate of the listeners.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::config;

/// Why a certificate could not be loaded: names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file can't be read, or holds none.
    #[error("{file}: cannot read the certificate: {why}", file = .0.display(), why = .1)]
    Certificate(PathBuf, String),
    /// The key's file can't be read, or holds none.
    #[error("{file}: cannot read the private key: {why}", file = .0.display(), why = .1)]
    Key(PathBuf, String),
    /// Certificate and key don't fit, or the library does not know their kind.
    #[error("{file}: cannot use the certificate: {why}", file = .0.display(), why = .1)]
    Unusable(PathBuf, String),
}

/// Loads certificate and key. TLS 1.2 and 1.3 (RFC 8996, RFC 8997), with session tickets.
pub fn load(tls: &config::Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let certificate = |why: String| TlsError::Certificate(tls.certificate_file.clone(), why);
    let unusable = |why: rustls::Error| TlsError::Unusable(tls.certificate_file.clone(), why.to_string());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.certificate_file)
        .and_then(Iterator::collect)
        .map_err(|e| certificate(e.to_string()))?;
    if chain.is_empty() {
        return Err(certificate("the file has no PEM block of a certificate".into()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|e| TlsError::Key(tls.key_file.clone(), e.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(unusable)?;
    Ok(Arc::new(config))
}

/// Protocol and cipher suite of a connection, as `Received` and the log name them.
pub(super) fn describe(connection: &ServerConnection) -> Arc<str> {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or("unknown");
    format!("{version} {suite}").into()
}
