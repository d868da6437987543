//! A bridge's password and token are seen by its broker and by nobody else: not in what it logs at the lowest level, in
//! what it prints of itself, in its events or in its errors.

use std::fmt::{Debug, Write as _};
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use edgelog::Store;
use edgelog::bridge::{Bridge, BridgeConfig, BridgeEvent, StopHandle};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const PASSWORD: &str = "xyzzy-the-password";
const TOKEN: &str = "xyzzy.the.token";
/// What any of them contains, and nothing else that is said.
const MARK: &str = "xyzzy";

/// Everything that anybody says.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

impl Heard {
    fn add(&self, what: &dyn Debug) {
        let _ = writeln!(self.0.lock().unwrap(), "{what:?}");
    }
}

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(&(field.name(), value));
    }
}

impl Subscriber for Heard {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn read_frame(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    socket.read_exact(&mut len).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    socket.read_exact(&mut frame).ok()?;
    Some(frame)
}

/// Versions, a mechanism that is taken, and a refusal that quotes what it was told. Returns the frames that it got.
fn refuse(mut socket: TcpStream, mechanism: &str) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while let Some(frame) = read_frame(&mut socket) {
        let (api, correlation) = (i16::from_be_bytes([frame[0], frame[1]]), frame[4..8].to_vec());
        let mut body = correlation;
        match api {
            // ApiVersions 3: no error; SaslHandshake 0 to 1, SaslAuthenticate 0 to 2; no throttling, no tags.
            18 => body.extend([0, 0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]),
            17 => {
                body.extend([0, 0, 0, 0, 0, 1, 0, mechanism.len() as u8]);
                body.extend(mechanism.as_bytes());
            }
            // SaslAuthenticate 2: 58, with words; no bytes, no lifetime.
            _ => {
                body.extend([0, 0, 58, 8]);
                body.extend(b"refused");
                body.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        got.push(frame);
        let _ = socket.write_all(&(body.len() as u32).to_be_bytes());
        let _ = socket.write_all(&body);
    }
    got
}

/// What a bridge says whose broker refuses it, and what the broker was told.
fn run_refused(mechanism: &'static str, set: impl FnOnce(&mut BridgeConfig)) -> (String, Vec<Vec<u8>>) {
    let dir = std::env::temp_dir().join(format!("edgelog-secrets-{}-{mechanism}", std::process::id()));
    drop(Store::open(&dir).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let broker = thread::spawn(move || refuse(listener.accept().unwrap().0, mechanism));

    let heard = Heard::default();
    let mut config = BridgeConfig::default();
    for (key, value) in [
        ("bootstrap.servers", address.to_string().as_str()),
        ("edgelog.device.id", "d"),
        ("edgelog.bridge.topics", "*"),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", mechanism),
    ] {
        config.set(key, value).unwrap();
    }
    set(&mut config);
    heard.add(&config);
    let (events, said) = (heard.clone(), heard.clone());
    tracing::subscriber::with_default(said, || {
        let mut bridge = Bridge::attach(&dir, config).unwrap();
        let stop: StopHandle = bridge.stop_handle();
        bridge = bridge.observe(move |event| {
            events.add(event);
            if matches!(event, BridgeEvent::Retrying { .. }) {
                stop.stop();
            }
        });
        heard.add(&bridge);
        heard.add(&bridge.run());
        heard.add(&bridge);
    });
    let got = broker.join().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let said = heard.0.lock().unwrap().clone();
    (said, got)
}

fn was_told(got: &[Vec<u8>], secret: &str) -> bool {
    got.iter().any(|frame| frame.windows(secret.len()).any(|window| window == secret.as_bytes()))
}

#[test]
fn a_password_is_seen_by_the_broker_alone() {
    let (said, got) = run_refused("PLAIN", |config| {
        config.set("sasl.username", "somebody").unwrap();
        config.set("sasl.password", PASSWORD).unwrap();
        // Refused keys and values, too.
        let wrong = config.set("sasl.passwort", PASSWORD).unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains(MARK));
        let wrong = config.set_lines(PASSWORD).unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains(MARK));
    });
    assert!(was_told(&got, PASSWORD), "the broker was not told, so nothing is shown");
    // The observer, the log and the Debug output were all heard.
    assert!(said.contains("somebody") && said.contains("authentication (PLAIN): refused"), "{said}");
    assert!(said.contains("the bridge tries again"), "{said}");
    assert!(!said.contains(MARK), "{said}");
}

#[test]
fn a_token_from_the_program_is_seen_by_the_broker_alone() {
    let (said, got) = run_refused("OAUTHBEARER", |config| {
        config.set_oauthbearer_token_callback(|| Ok(TOKEN.to_owned()));
    });
    assert!(was_told(&got, TOKEN), "the broker was not told, so nothing is shown");
    assert!(said.contains("authentication (OAUTHBEARER): refused"), "{said}");
    assert!(!said.contains(MARK), "{said}");
}
