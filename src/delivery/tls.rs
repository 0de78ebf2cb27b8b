//! TLS towards peers: one client configuration for each class of policy, so that sessions resume.
//!
//! - opportunistic and required: any certificate, since without DNSSEC or MTA-STS its name proves nothing, but the handshake's
//!   signature is checked: a passive listener learns nothing,
//! - verified: a certificate of a known authority for the host's name.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

/// Sessions that can be resumed, for each class. About 1 KB each.
const SESSIONS_MAX: usize = 4_096;

/// The client configurations.
#[derive(Clone)]
pub struct TlsConfigs {
    /// Any certificate.
    pub any: Arc<ClientConfig>,
    /// A certificate of a known authority; or why that can't be checked here.
    pub verified: Result<Arc<ClientConfig>, Arc<str>>,
}

impl TlsConfigs {
    /// Both, with the system's certificate authorities.
    pub fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let any = config(&provider, Arc::new(AnyCertificate(provider.clone())))?;
        let verified = rustls_platform_verifier::Verifier::new(provider.clone())
            .and_then(|verifier| config(&provider, Arc::new(verifier)))
            .map_err(|e| Arc::from(format!("no certificate authorities: {e}")));
        Ok(Self { any, verified })
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(Arc::new(config))
}

/// Accepts any certificate whose key signed the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Protocol and cipher suite of a session, for events: `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
pub fn describe(connection: &rustls::ClientConnection) -> Arc<str> {
    let protocol = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    match connection.negotiated_cipher_suite() {
        Some(suite) => format!("{protocol} {:?}", suite.suite()).into(),
        None => protocol.into(),
    }
}
