//! How brokers are spoken to: the keys of `security.protocol`, `ssl.` and `sasl.`, and what must never be printed.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

/// A token or a password in a file is never longer.
const SECRET_BYTES_MAX: u64 = 64 << 10;

const PASSWORD_FILE: &str = "edgelog.sasl.password.file";
const TOKEN_FILE: &str = "edgelog.sasl.oauthbearer.token.file";

/// What must not be seen in a log, an error or a Debug output. Clones share the text, so that it stands in memory once;
/// it is overwritten when the last of them is dropped.
#[derive(Clone)]
pub(super) struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Secret {
        Secret(Arc::new(Zeroizing::new(text.into())))
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
                    return Some(Err(match value {
                        "AWS_MSK_IAM" => {
                            "AWS_MSK_IAM is not built in; an MSK cluster can offer SCRAM-SHA-512 or mutual TLS, too"
                        }
                        "GSSAPI" => "GSSAPI (Kerberos) is not built in; there are PLAIN, SCRAM and OAUTHBEARER",
                        _ => "it is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
                    }));
                };
                self.sasl.mechanism = Some(mechanism);
            }
            "sasl.username" => value.clone_into(&mut self.sasl.username),
            "sasl.password" => self.sasl.password = Some(Secret::new(value)),
            PASSWORD_FILE => self.sasl.password_file = path(),
            TOKEN_FILE => self.sasl.token_file = path(),
            "ssl.key.password" => {
                return Some(Err("encrypted keys are not read; `openssl pkey -in KEY -out NEWKEY` decrypts one, and \
                                 the file's mode protects it"));
            }
            _ if key == "sasl.oauthbearer.method" || key.starts_with("sasl.oauthbearer.token.") => {
                return Some(Err("tokens are not fetched from an OIDC provider; another program writes them to \
                                 edgelog.sasl.oauthbearer.token.file, or hands them over by a callback"));
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
                (PASSWORD_FILE, sasl.password_file.is_some()),
                (TOKEN_FILE, sasl.token_file.is_some()),
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
                (None, None) => Err((TOKEN_FILE, "OAUTHBEARER needs it, or a callback")),
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

impl Security {
    /// What is less safe than it could be: the key, and what can be done about it.
    pub(crate) fn warnings(&self) -> Vec<(&'static str, String)> {
        let (tls, sasl) = (&self.tls, &self.sasl);
        let mut warnings = Vec::new();
        if self.protocol.has_tls() {
            if !tls.checks_certificate {
                let what = "false takes any certificate, so that any host on the way can read and change what is sent; \
                            set ssl.ca.location to the certificate of the brokers' CA, and true here";
                warnings.push(("enable.ssl.certificate.verification", what.to_owned()));
            } else if !tls.checks_name {
                let what = "none takes a certificate that a trusted CA has signed for any other host; set https, and \
                            names in bootstrap.servers that stand in the brokers' certificates";
                warnings.push(("ssl.endpoint.identification.algorithm", what.to_owned()));
            }
        } else if self.protocol.has_sasl() {
            let what = match sasl.mechanism {
                Some(Mechanism::Plain) => {
                    "SASL_PLAINTEXT with PLAIN sends the password unencrypted; set SASL_SSL, or a \
                                           SCRAM mechanism"
                }
                Some(Mechanism::OAuthBearer) => "SASL_PLAINTEXT sends the token unencrypted; set SASL_SSL",
                Some(Mechanism::ScramSha256 | Mechanism::ScramSha512) | None => "",
            };
            if !what.is_empty() {
                warnings.push(("security.protocol", what.to_owned()));
            }
        }
        let key = tls.key_location.as_ref().filter(|_| self.protocol.has_tls());
        let files = [
            ("ssl.key.location", key),
            (PASSWORD_FILE, sasl.password_file.as_ref()),
            (TOKEN_FILE, sasl.token_file.as_ref()),
        ];
        for (key, file) in files {
            warnings.extend(file.and_then(|path| readable_by_others(path)).map(|what| (key, what)));
        }
        warnings
    }
}

/// What to do about a file that others than its owner may read, write or execute; `None` where that is not so, or where
/// the file cannot be looked at: who reads it next says why.
fn readable_by_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let path = path.display();
    (mode & 0o077 != 0).then(|| format!("others may use {path} (mode {mode:04o}); chmod 600 {path}"))
}

impl Sasl {
    /// Who we are: files are read again and callbacks called each time, for passwords and tokens that change.
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
    let file = fs::File::open(path).map_err(|error| failed(&error))?;
    // Text that outgrows its room is copied, and what it leaves behind is not overwritten.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize + 1));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn security(keys: &[(&str, &str)]) -> Security {
        let mut security = Security::default();
        for (key, value) in keys {
            security.set(key, value).expect("a key of security").unwrap();
        }
        security
    }

    fn warned(keys: &[(&str, &str)]) -> Vec<&'static str> {
        security(keys).warnings().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_less_safe_than_it_could_be_is_warned_of() {
        const UNVERIFIED: (&str, &str) = ("enable.ssl.certificate.verification", "false");
        const UNIDENTIFIED: (&str, &str) = ("ssl.endpoint.identification.algorithm", "none");
        const TLS: (&str, &str) = ("security.protocol", "SASL_SSL");
        const NO_TLS: (&str, &str) = ("security.protocol", "SASL_PLAINTEXT");
        let by = |mechanism| ("sasl.mechanism", mechanism);
        assert_eq!(warned(&[]), [""; 0]);
        assert_eq!(warned(&[TLS, by("PLAIN")]), [""; 0]);
        assert_eq!(warned(&[TLS, UNIDENTIFIED]), [UNIDENTIFIED.0]);
        assert_eq!(warned(&[TLS, UNVERIFIED]), [UNVERIFIED.0]);
        assert_eq!(warned(&[TLS, UNVERIFIED, UNIDENTIFIED]), [UNVERIFIED.0], "the greater one says it");
        assert_eq!(warned(&[UNVERIFIED, UNIDENTIFIED]), [""; 0], "there is no TLS to weaken");
        for (mechanism, warns) in
            [("PLAIN", true), ("OAUTHBEARER", true), ("SCRAM-SHA-256", false), ("SCRAM-SHA-512", false)]
        {
            let expected: &[&str] = if warns { &["security.protocol"] } else { &[] };
            assert_eq!(warned(&[NO_TLS, by(mechanism)]), expected, "{mechanism}");
        }
    }

    #[test]
    fn a_secret_s_file_that_others_may_read_is_warned_of() {
        let path = std::env::temp_dir().join(format!("edgelog-secret-{}", std::process::id()));
        fs::write(&path, "geheim").unwrap();
        let name = path.to_str().unwrap();
        for key in ["ssl.key.location", PASSWORD_FILE, TOKEN_FILE] {
            for (mode, warns) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o700, false)] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                let warnings = security(&[("security.protocol", "SASL_SSL"), (key, name)]).warnings();
                assert_eq!(warnings.len(), usize::from(warns), "{key} {mode:o}: {warnings:?}");
                for (warned, what) in warnings {
                    assert_eq!(warned, key);
                    assert!(what.contains(&format!("(mode {mode:04o}); chmod 600 {name}")), "{what}");
                }
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(security(&[(PASSWORD_FILE, name)]).warnings().is_empty(), "who reads it next says why");
    }
}
