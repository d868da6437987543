//! Defends where `bridge` takes its keys from, and what it says of them. No broker is reached: a key that is missing or
//! wrong ends each of these runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::support::Place;

const PASSWORD: &str = "geheim";

#[test]
fn a_password_that_others_can_see_is_warned_of_once_and_not_shown() {
    let place = Place::new();
    let file = place.path("bridge.properties");
    let name = file.to_str().unwrap();
    let keys = "bootstrap.servers=b:1\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username=u\n";
    // No device is named, which is found when all keys are known.
    let warned = |text: String, mode: u32, more: &[&str]| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let done = place.run(&[&["bridge", "status", "--config", name], more].concat()).exits(1);
        assert!(done.stderr.contains("edgelog.device.id"), "{}", done.stderr);
        assert!(!done.stderr.contains(PASSWORD), "{}", done.stderr);
        assert_eq!(done.stderr.matches("warning: security.protocol: SASL_PLAINTEXT").count(), 1, "{}", done.stderr);
        done.stderr.matches("warning: sasl.password: ").count()
    };
    let with_password = format!("{keys}sasl.password = {PASSWORD}\n");
    assert_eq!(warned(with_password.clone(), 0o600, &[]), 0);
    assert_eq!(warned(with_password, 0o640, &[]), 1, "others may read the file");
    assert_eq!(warned(keys.to_owned(), 0o644, &[]), 0, "there is no password in it");
    let set = format!("sasl.password={PASSWORD}");
    assert_eq!(warned(keys.to_owned(), 0o644, &["--set", &set]), 1, "others see the command line");
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    let file = place.path("bridge.properties");
    fs::write(&file, "bootstrap.servers=SSL://b:1\nsecurity.protocol=PLAINTEXT\nedgelog.device.id=d\n").unwrap();
    let said = |variable: Option<(&str, &str)>, more: &[&str]| {
        let arguments = [&["bridge", "status", "--config", file.to_str().unwrap()], more].concat();
        let mut command = place.command(&arguments);
        command.envs(variable);
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        String::from_utf8(done.stderr).unwrap()
    };
    let of_file = said(None, &[]);
    assert!(of_file.contains("SSL://b:1 contradicts security.protocol=PLAINTEXT"), "{of_file}");
    let variable = Some(("EDGELOG_BRIDGE_BOOTSTRAP_SERVERS", "SASL_SSL://b:1"));
    let of_environment = said(variable, &[]);
    assert!(of_environment.contains("SASL_SSL://b:1 contradicts"), "{of_environment}");
    let of_command_line = said(variable, &["--bootstrap", "SASL_PLAINTEXT://b:1"]);
    assert!(of_command_line.contains("SASL_PLAINTEXT://b:1 contradicts"), "{of_command_line}");
    let mistyped = said(Some(("EDGELOG_BRIDGE_BOOTSTRAP_SERVER", "b:1")), &[]);
    assert!(mistyped.contains("EDGELOG_BRIDGE_BOOTSTRAP_SERVER: there is no such key"), "{mistyped}");
}
