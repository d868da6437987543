//! Sends a store's logs to a cluster whose OAUTHBEARER tokens a command prints: one that asks an identity provider.
//! It is asked at each connection, and before a session ends.
//!
//!     cargo run --features bridge --example token_by_callback DIR 'COMMAND' KEY=VALUE...

use std::process::Command;

use edgelog::bridge::{Bridge, BridgeConfig};

/// What the command prints; where it fails, a reason without any secret. The bridge reports it, and asks the command
/// again later.
fn token(command: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-c", command]).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the command for it ended with {}", output.status));
    }
    let text = String::from_utf8(output.stdout).map_err(|_| "the command for it prints no text".to_owned())?;
    Ok(text.trim_end().to_owned())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(command)) = (arguments.next(), arguments.next()) else {
        return Err("usage: token_by_callback DIR 'COMMAND' KEY=VALUE...".into());
    };
    let mut config = BridgeConfig::default();
    config.set_lines(&arguments.collect::<Vec<_>>().join("\n"))?;
    config.set_oauthbearer_token_callback(move || token(&command));
    let mut bridge = Bridge::attach(&dir, config)?.observe(|event| println!("{event:?}"));
    let mut positions = bridge.run_until_caught_up()?;
    positions.retain(|log| !log.is_delivered());
    if positions.is_empty() { Ok(()) } else { Err(format!("of these logs not all is sent: {positions:?}").into()) }
}
