//! How brokers are spoken to: the keys of `security.protocol`, `ssl.` and `sasl.`, and what must never be printed.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// A token or a password in a file is never longer.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What must not be seen in a log, an error or a Debug output.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself: for what goes to a broker.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Protocol {
    const ALL: [Protocol; 4] = [Protocol::Plaintext, Protocol::Ssl, Protocol::SaslPlaintext, Protocol::SaslSsl];

    /// Its name in Kafka's configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Plaintext => "PLAINTEXT",
            Protocol::Ssl => "SSL",
            Protocol::SaslPlaintext => "SASL_PLAINTEXT",
            Protocol::SaslSsl => "SASL_SSL",
        }
    }

    /// By its name, in capitals or not.
    pub(crate) fn named(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn has_tls(self) -> bool {
        matches!(self, Protocol::Ssl | Protocol::SaslSsl)
    }

    pub(crate) fn has_sasl(self) -> bool {
        matches!(self, Protocol::SaslPlaintext | Protocol::SaslSsl)
    }
}

/// `sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OAuthBearer,
}

impl Mechanism {
    pub(super) const ALL: [Mechanism; 4] =
        [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512, Mechanism::OAuthBearer];

    /// Its registered name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// Asks the program for a token, before each authentication.
pub(crate) type TokenSource = dyn Fn() -> std::result::Result<String, String> + Send + Sync;

/// The program's own way to a token.
#[derive(Clone)]
pub(crate) struct TokenCallback(pub(crate) Arc<TokenSource>);

impl fmt::Debug for TokenCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(callback)")
    }
}

/// What the configuration says of TLS.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(super) ca_location: Option<PathBuf>,
    pub(super) certificate_location: Option<PathBuf>,
    pub(super) key_location: Option<PathBuf>,
    /// Whether a certificate has to be for the host that was connected to.
    pub(super) checks_name: bool,
    /// Whether a certificate is looked at, at all.
    pub(super) checks_certificate: bool,
}

/// What the configuration says of SASL.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sasl {
    pub(super) mechanism: Option<Mechanism>,
    username: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    pub(crate) token_callback: Option<TokenCallback>,
}

/// Who we are, at this moment.
#[derive(Debug)]
pub(super) enum Credentials {
    Password { username: String, password: Secret },
    Token(Secret),
}

#[derive(Debug, Clone)]
pub(crate) struct Security {
    pub(crate) protocol: Protocol,
    pub(crate) tls: Tls,
    pub(crate) sasl: Sasl,
}

impl Default for Security {
    fn default() -> Security {
        let tls = Tls {
            ca_location: None,
            certificate_location: None,
            key_location: None,
            checks_name: true,
            checks_certificate: true,
        };
        Security { protocol: Protocol::Plaintext, tls, sasl: Sasl::default() }
    }
}

impl Security {
    /// Sets a key of security. `None` where it is none.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Option<std::result::Result<(), String>> {
        Some(self.set_known(key, value)?.map_err(str::to_owned))
    }

    fn set_known(&mut self, key: &str, value: &str) -> Option<std::result::Result<(), &'static str>> {
        let path = || Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
        match key {
            "security.protocol" => {
                let Some(protocol) = Protocol::named(value) else {
                    return Some(Err("it is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"));
                };
                self.protocol = protocol;
            }
            "ssl.ca.location" => self.tls.ca_location = path(),
            "ssl.certificate.location" => self.tls.certificate_location = path(),
            "ssl.key.location" => self.tls.key_location = path(),
            "ssl.endpoint.identification.algorithm" => {
                self.tls.checks_name = match value {
                    "https" => true,
                    // Kafka's own clients take the empty value for it.
                    "none" | "" => false,
                    _ => return Some(Err("it is https or none")),
                }
            }
            "enable.ssl.certificate.verification" => match value.parse() {
                Ok(checks) => self.tls.checks_certificate = checks,
                Err(_) => return Some(Err("it is true or false")),
            },
            "sasl.mechanism" | "sasl.mechanisms" => {
                let found = Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == value);
                let Some(mechanism) = found else {
                    return Some(Err("it is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"));
                };
                self.sasl.mechanism = Some(mechanism);
            }
            "sasl.username" => value.clone_into(&mut self.sasl.username),
            "sasl.password" => self.sasl.password = Some(Secret::new(value)),
            "edgelog.sasl.password.file" => self.sasl.password_file = path(),
            "edgelog.sasl.oauthbearer.token.file" => self.sasl.token_file = path(),
            "ssl.key.password" => {
                return Some(Err("encrypted keys are not read; `openssl pkey -in KEY -out NEWKEY` decrypts one, and \
                                 the file's mode protects it"));
            }
            "sasl.jaas.config" => return Some(Err("it is Java's; sasl.username and sasl.password say the same")),
            _ if key.starts_with("ssl.keystore.") || key.starts_with("ssl.truststore.") => {
                return Some(Err(
                    "it is Java's; PEM files are read: ssl.ca.location, ssl.certificate.location, ssl.key.location",
                ));
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    /// Whether what is needed is set: the key that is not, and why.
    pub(crate) fn check(&self) -> std::result::Result<(), (&'static str, &'static str)> {
        match (&self.tls.certificate_location, &self.tls.key_location) {
            (Some(_), None) => return Err(("ssl.key.location", "ssl.certificate.location is of no use without it")),
            (None, Some(_)) => return Err(("ssl.certificate.location", "ssl.key.location is of no use without it")),
            _ => {}
        }
        if !self.protocol.has_sasl() {
            let sasl = &self.sasl;
            let set = [
                ("sasl.mechanism", sasl.mechanism.is_some()),
                ("sasl.username", !sasl.username.is_empty()),
                ("sasl.password", sasl.password.is_some()),
                ("edgelog.sasl.password.file", sasl.password_file.is_some()),
                ("edgelog.sasl.oauthbearer.token.file", sasl.token_file.is_some()),
            ];
            return match set.iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => Err((key, "security.protocol has no SASL: SASL_SSL (or SASL_PLAINTEXT) has")),
                None => Ok(()),
            };
        }
        let sasl = &self.sasl;
        let Some(mechanism) = sasl.mechanism else {
            return Err(("sasl.mechanism", "security.protocol needs it; there is no default"));
        };
        if mechanism == Mechanism::OAuthBearer {
            return match (&sasl.token_file, &sasl.token_callback) {
                (None, None) => Err(("edgelog.sasl.oauthbearer.token.file", "OAUTHBEARER needs it, or a callback")),
                _ => Ok(()),
            };
        }
        if sasl.username.is_empty() {
            return Err(("sasl.username", "the mechanism needs it"));
        }
        match (&sasl.password, &sasl.password_file) {
            (None, None) => Err(("sasl.password", "the mechanism needs it, or edgelog.sasl.password.file")),
            (Some(_), Some(_)) => Err(("sasl.password", "edgelog.sasl.password.file is set, too: one of both")),
            _ => Ok(()),
        }
    }
}

impl Sasl {
    /// Who we are: files are read anew and callbacks called each time, for passwords and tokens that change.
    pub(super) fn credentials(&self) -> std::result::Result<Credentials, String> {
        if self.mechanism == Some(Mechanism::OAuthBearer) {
            let token = match (&self.token_callback, &self.token_file) {
                (Some(callback), _) => Secret::new((callback.0)().map_err(|why| format!("no token: {why}"))?),
                (None, Some(file)) => read_secret(file)?,
                (None, None) => return Err("there is neither a token's file nor a callback".to_owned()),
            };
            return Ok(Credentials::Token(token));
        }
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => read_secret(file)?,
            (None, None) => return Err("there is no password".to_owned()),
        };
        Ok(Credentials::Password { username: self.username.clone(), password })
    }
}

/// The text of a file without the line break at its end.
fn read_secret(path: &PathBuf) -> std::result::Result<Secret, String> {
    let failed = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| failed(&error))?;
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(failed(&format!("more than {SECRET_BYTES_MAX} bytes")));
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(failed(&"the file is empty"));
    }
    Ok(Secret::new(text))
}
