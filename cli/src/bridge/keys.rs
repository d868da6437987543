//! Where the bridge's commands take their keys from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use edgelog::bridge::BridgeConfig;
use zeroize::Zeroizing;

use crate::append::parse_pair;
use crate::failure::{Failure, warn};

const PASSWORD: &str = "sasl.password";

/// Where keys come from.
#[derive(clap::Args, Default, PartialEq, Eq)]
pub(super) struct KeyArgs {
    /// Read keys from a file of key=value lines. The environment wins over it (`EDGELOG_BRIDGE_` and the key in
    /// capitals, with _ for each dot), and the command line over both
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key; may be repeated. `edgelog bridge keys` lists them
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
    /// Brokers to begin with (bootstrap.servers)
    #[arg(long, value_name = "HOST:PORT,...")]
    bootstrap: Option<String>,
    /// Who this device is to the cluster (edgelog.device.id)
    #[arg(long, value_name = "ID")]
    device: Option<String>,
}

impl KeyArgs {
    /// What is set by these, not held against anything yet.
    pub(super) fn config(&self) -> Result<BridgeConfig, Failure> {
        let mut config = BridgeConfig::default();
        if let Some(path) = &self.config {
            let path_text = path.display();
            let text = fs::read_to_string(path).map_err(|error| Failure::new(format!("{path_text}: {error}")))?;
            let text = Zeroizing::new(text);
            config.set_lines(&text).map_err(|error| Failure::from(error).context(path_text))?;
            warn_of_file(path, &text);
        }
        config.set_environment(std::env::vars_os())?;
        for (key, value) in &self.set {
            config.set(key, value)?;
        }
        if self.set.iter().any(|(key, _)| key == PASSWORD) {
            warn(format_args!(
                "{PASSWORD}: every user of this machine sees the command line; EDGELOG_BRIDGE_SASL_PASSWORD holds it in the environment, and edgelog.sasl.password.file names a file"
            ));
        }
        set_options(&mut config, [("bootstrap.servers", &self.bootstrap), ("edgelog.device.id", &self.device)])?;
        for warning in config.warnings() {
            warn(format_args!("{warning}"));
        }
        Ok(config)
    }
}

/// A file of keys that others may read, with the password in it.
fn warn_of_file(path: &Path, text: &str) {
    let key_of = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode() & 0o777);
    if mode & 0o077 != 0 && text.lines().filter_map(key_of).any(|key| key == PASSWORD) {
        let path = path.display();
        warn(format_args!("{PASSWORD}: others may use {path} (mode {mode:04o}); chmod 600 {path}"));
    }
}

pub(super) fn set_options<const N: usize>(
    config: &mut BridgeConfig,
    options: [(&str, &Option<String>); N],
) -> Result<(), Failure> {
    for (key, value) in options {
        if let Some(value) = value {
            config.set(key, value)?;
        }
    }
    Ok(())
}
