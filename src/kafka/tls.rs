//! TLS to a broker: whom we trust, who we are, and what a failure means to a person.
//!
//! Certificates are files that others renew. They are looked at before each connection, and what they say is kept for
//! as long as they stay the same (with it, a session can be resumed, which spares a slow line the certificates). After
//! a failure all of it is read again, the system's certificates too.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use zeroize::Zeroizing;

use super::security::Tls;
use super::stop::StopHandle;

/// A file of certificates is never longer: the system's all together are a quarter of it.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// What is encrypted and not yet on the line. A write that waits for the line waits for no more than this.
const WRITE_BYTES_MAX: usize = 16 << 10;

/// What was read of the files, and what was made of it.
type Kept = (Files, Arc<ClientConfig>);

/// What all connections share.
pub(crate) struct TlsClient {
    settings: Tls,
    kept: Mutex<Option<Kept>>,
}

/// The bytes of the files that are named. The key is among them: not for printing.
#[derive(PartialEq, Eq)]
struct Files {
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TlsClient {
    pub(crate) fn new(settings: Tls) -> TlsClient {
        TlsClient { settings, kept: Mutex::new(None) }
    }

    /// Reads everything that is named.
    ///
    /// # Errors
    /// The key whose file cannot be read or used, and why.
    pub(crate) fn load(&self) -> Result<(), (&'static str, String)> {
        self.config().map(drop)
    }

    /// Reads everything again the next time.
    pub(super) fn forget(&self) {
        *self.kept.lock() = None;
    }

    /// Carries out the handshake on a connected socket, whose reads and writes give up after a moment, by `deadline`.
    pub(super) fn connect(
        &self,
        mut socket: TcpStream,
        host: &str,
        deadline: Instant,
        stop: &StopHandle,
    ) -> io::Result<TlsStream> {
        let config = self.config().map_err(|(key, why)| invalid(format!("{key}: {why}")))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(format!("{host}: {error}")))?;
        let mut session = ClientConnection::new(config, name).map_err(invalid)?;
        session.set_buffer_limit(Some(WRITE_BYTES_MAX));
        while session.is_handshaking() {
            match session.complete_io(&mut socket) {
                Ok(_) => {}
                Err(error) if is_pause(&error) => {
                    if stop.check_grace().is_err() || Instant::now() >= deadline {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(TlsStream { session, socket })
    }

    fn config(&self) -> Result<Arc<ClientConfig>, (&'static str, String)> {
        let files = Files {
            ca: read("ssl.ca.location", self.settings.ca_location.as_deref())?,
            certificate: read("ssl.certificate.location", self.settings.certificate_location.as_deref())?,
            key: read("ssl.key.location", self.settings.key_location.as_deref())?.map(Zeroizing::new),
        };
        let mut kept = self.kept.lock();
        if let Some((_, config)) = kept.as_ref().filter(|(of, _)| *of == files) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(&files)?);
        *kept = Some((files, Arc::clone(&config)));
        Ok(config)
    }

    fn build(&self, files: &Files) -> Result<ClientConfig, (&'static str, String)> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = self.verifier(&provider, files.ca.as_deref())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what TLS 1.2 and 1.3 need")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (Some(certificate), Some(key)) = (&files.certificate, &files.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("ssl.certificate.location", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            let encrypted = key.windows(10).any(|word| word == b"ENCRYPTED ");
            let why = if encrypted {
                "the key is encrypted; `openssl pkey -in KEY -out NEWKEY` decrypts it".to_owned()
            } else {
                format!("there is no private key in it, as PEM: {error}")
            };
            ("ssl.key.location", why)
        })?;
        builder.with_client_auth_cert(chain, key).map_err(|error| match error {
            rustls::Error::InvalidCertificate(what) => ("ssl.certificate.location", unusable(&what)),
            other => ("ssl.key.location", other.to_string()),
        })
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
        ca: Option<&[u8]>,
    ) -> Result<Arc<dyn ServerCertVerifier>, (&'static str, String)> {
        const KEY: &str = "ssl.ca.location";
        let algorithms = provider.signature_verification_algorithms;
        if !self.settings.checks_certificate {
            return Ok(Arc::new(Lenient { chain: None, algorithms }));
        }
        let mut roots = RootCertStore::empty();
        if let Some(pem) = ca {
            for certificate in certificates(KEY, pem)? {
                roots.add(certificate).map_err(|error| (KEY, error.to_string()))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err((KEY, "it has to be set: this system has no certificates of its own".to_owned()));
            }
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let chain = chain.map_err(|error| (KEY, error.to_string()))?;
        Ok(if self.settings.checks_name { chain } else { Arc::new(Lenient { chain: Some(chain), algorithms }) })
    }
}

/// Less than all checks, where less was asked for.
#[derive(Debug)]
struct Lenient {
    /// Who signed it is still looked at, and until when it holds.
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The name is looked at last: who fails there has passed everything else.
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// An encrypted connection whose handshake is done.
#[derive(Debug)]
pub(super) struct TlsStream {
    session: ClientConnection,
    socket: TcpStream,
}

impl TlsStream {
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether what was taken is not on the line yet.
    pub(super) fn is_behind(&self) -> bool {
        self.session.wants_write()
    }

    /// Takes some of `bytes`, or puts some of what it took on the line, and returns how many it took.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = if self.is_behind() { 0 } else { io::Write::write(&mut self.session.writer(), bytes)? };
        match self.session.write_tls(&mut self.socket) {
            Ok(0) if self.is_behind() => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(taken),
            // It was taken, and waits for the line.
            Err(error) if is_pause(&error) && taken > 0 => Ok(taken),
            Err(error) => Err(error),
        }
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if self.is_behind() {
                // A change of keys that the broker asked for.
                self.session.write_tls(&mut self.socket)?;
            }
            self.session.read_tls(&mut self.socket)?;
            if let Err(error) = self.session.process_new_packets() {
                // It may hear why; whether it hears of it makes no difference.
                let _ = self.session.write_tls(&mut self.socket);
                return Err(invalid(error));
            }
        }
    }
}

/// Whether a call only gave up waiting.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn read(key: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, (&'static str, String)> {
    let Some(path) = path else { return Ok(None) };
    let failed = |error: &dyn fmt::Display| (key, format!("{}: {error}", path.display()));
    let file = fs::File::open(path).map_err(|error| failed(&error))?;
    // All of it at once: a key that outgrows its room leaves copies behind.
    let len = file.metadata().map_err(|error| failed(&error))?.len().min(PEM_BYTES_MAX);
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(failed(&format!("more than {PEM_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

fn certificates(key: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, (&'static str, String)> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err((key, "there is no certificate in it, as PEM".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err((key, error.to_string())),
    }
}

/// A certificate that is none for us, no matter who signed it.
fn unusable(what: &CertificateError) -> String {
    let CertificateError::Other(inner) = what else { return format!("the certificate cannot be used: {what}") };
    // The verifier's own words, whose type is not ours to name.
    let words = format!("{:?}", inner.0);
    match words.as_str() {
        "UnsupportedCertVersion" => {
            "the certificate is of X.509 version 1; version 3 is needed, which is what signing with extensions makes"
                .to_owned()
        }
        "CaUsedAsEndEntity" => "the certificate is a CA's own; one that the CA has signed is needed".to_owned(),
        _ => format!("the certificate cannot be used: {words}"),
    }
}

/// What a failure of TLS means, and what can be done about it; `None` where it is none of TLS.
pub(super) fn explain(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    let Some(error) = inner.downcast_ref::<rustls::Error>() else {
        // A file of ours that cannot be used.
        return (error.kind() == io::ErrorKind::InvalidData).then(|| inner.to_string());
    };
    Some(match error {
        rustls::Error::InvalidCertificate(what) => match what {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired by this device's clock: it has to be renewed, or the clock is fast"
                    .to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet by this device's clock, which may be slow".to_owned()
            }
            CertificateError::UnknownIssuer => "its certificate is signed by no CA that is trusted here: \
                 ssl.ca.location has to name the certificate of its CA"
                .to_owned(),
            CertificateError::NotValidForName => "its certificate is for another host".to_owned(),
            CertificateError::NotValidForNameContext { expected, presented } => format!(
                "its certificate is not for {}, but for {}: bootstrap.servers and the cluster's advertised.listeners \
                 have to use names that stand in it as subjectAltName",
                expected.to_str(),
                if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
            ),
            other => unusable(other),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => format!(
                "it does not accept this device's certificate ({alert:?}): see ssl.certificate.location and \
                 ssl.key.location"
            ),
            other => format!("it refused the handshake ({other:?})"),
        },
        rustls::Error::InvalidMessage(_) => {
            "what it answers is no TLS: security.protocol may be another one on this port".to_owned()
        }
        other => other.to_string(),
    })
}
