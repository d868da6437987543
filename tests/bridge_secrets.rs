//! A bridge's password and token are seen by its broker alone. They are not in what it logs at the lowest level, in its
//! debug output, in its events or in its errors. In memory each stands once, and is overwritten when it is dropped.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// Everything that is logged or reported.
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

/// Versions, a mechanism that is taken, and a refusal. Hands on the frames that it got.
fn refuse(mut socket: TcpStream, mechanism: &str, mut got: impl FnMut(Vec<u8>)) {
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
        got(frame);
        let _ = socket.write_all(&(body.len() as u32).to_be_bytes());
        let _ = socket.write_all(&body);
    }
}

/// Runs a bridge whose broker refuses it, and returns all that it says. `got` sees each frame that the broker gets;
/// `at_refusal` is called when the bridge reports that.
fn run_refused(
    mechanism: &'static str,
    set: impl FnOnce(&mut BridgeConfig),
    got: impl FnMut(Vec<u8>) + Send + 'static,
    mut at_refusal: impl FnMut() + Send + 'static,
) -> String {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("edgelog-secrets-{}-{run}", std::process::id()));
    drop(Store::open(&dir).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let broker = thread::spawn(move || refuse(listener.accept().unwrap().0, mechanism, got));

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
                at_refusal();
                stop.stop();
            }
        });
        heard.add(&bridge);
        heard.add(&bridge.run());
        heard.add(&bridge);
    });
    broker.join().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    heard.0.lock().unwrap().clone()
}

/// What a bridge says whose broker refuses it, and the frames that the broker got.
fn said_and_got(mechanism: &'static str, set: impl FnOnce(&mut BridgeConfig)) -> (String, Vec<Vec<u8>>) {
    let frames = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let got = Arc::clone(&frames);
    let said = run_refused(mechanism, set, move |frame| got.lock().unwrap().push(frame), || {});
    let frames = std::mem::take(&mut *frames.lock().unwrap());
    (said, frames)
}

fn was_sent(got: &[Vec<u8>], secret: &str) -> bool {
    got.iter().any(|frame| frame.windows(secret.len()).any(|window| window == secret.as_bytes()))
}

#[test]
fn a_password_is_seen_by_the_broker_alone() {
    let (said, got) = said_and_got("PLAIN", |config| {
        config.set("sasl.username", "device-17").unwrap();
        config.set("sasl.password", PASSWORD).unwrap();
        // Refused keys and values, too.
        let wrong = config.set("sasl.passwort", PASSWORD).unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains(MARK));
        let wrong = config.set_lines(PASSWORD).unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains(MARK));
    });
    assert!(was_sent(&got, PASSWORD), "the broker did not get it, so nothing is shown");
    // Events, the log and the debug output were all captured.
    assert!(said.contains("device-17") && said.contains("authentication (PLAIN): refused"), "{said}");
    assert!(said.contains("the bridge tries again"), "{said}");
    assert!(!said.contains(MARK), "{said}");
}

#[test]
fn a_token_from_the_program_is_seen_by_the_broker_alone() {
    let (said, got) = said_and_got("OAUTHBEARER", |config| {
        config.set_oauthbearer_token_callback(|| Ok(TOKEN.to_owned()));
    });
    assert!(was_sent(&got, TOKEN), "the broker did not get it, so nothing is shown");
    assert!(said.contains("authentication (OAUTHBEARER): refused"), "{said}");
    assert!(!said.contains(MARK), "{said}");
}

/// A password that no part of this program holds, so that who searches for it does not find itself.
mod hidden {
    use super::*;

    const LEN: usize = 64;
    /// What memory is searched for: what is freed loses its first bytes in any case.
    const SEARCHED: usize = 24;

    fn byte(n: usize) -> u8 {
        b'a' + (n * n * 7 + n * 3 + 5) as u8 % 26
    }

    fn is_at(bytes: &[u8], at: usize) -> bool {
        bytes.len() - at >= LEN - SEARCHED && (SEARCHED..LEN).all(|n| bytes[at + n - SEARCHED] == byte(n))
    }

    pub(super) fn is_in(bytes: &[u8]) -> bool {
        (0..bytes.len()).any(|at| is_at(bytes, at))
    }

    pub(super) fn wipe(bytes: &mut [u8]) {
        bytes.fill(0);
        std::hint::black_box(bytes);
    }

    /// Lets it be used, and then no more.
    pub(super) fn lend(to: impl FnOnce(&str)) {
        let password = String::from_utf8((0..LEN).map(byte).collect()).unwrap();
        to(&password);
        wipe(&mut password.into_bytes());
    }

    /// How often it stands in the memory of this process.
    pub(super) fn count() -> usize {
        const CHUNK: usize = 1 << 20;
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let mut buffer = vec![0; CHUNK + LEN];
        let own = buffer.as_ptr_range();
        let own = own.start as usize..own.end as usize;
        let mut found = 0;
        for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            if !rest.starts_with("rw") {
                continue;
            }
            let bound = |text: &str| usize::from_str_radix(text, 16).unwrap();
            let (start, end) = range.split_once('-').map(|(start, end)| (bound(start), bound(end))).unwrap();
            for at in (start..end).step_by(CHUNK) {
                // What is mapped now may be gone in a moment.
                let len = (end - at).min(CHUNK + LEN);
                let Ok(read) = memory.read_at(&mut buffer[..len], at as u64) else { continue };
                let here = (0..read.min(CHUNK)).filter(|&n| !own.contains(&(at + n)) && is_at(&buffer[..read], n));
                found += here.count();
            }
        }
        wipe(&mut buffer);
        found
    }
}

/// Runs with the hidden password; returns how often it stood in memory when the broker had refused it, and afterwards.
fn run_with_hidden(mechanism: &'static str, set: impl FnOnce(&mut BridgeConfig)) -> (usize, usize) {
    let (was_sent, at_refusal) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (sent, counted) = (Arc::clone(&was_sent), Arc::clone(&at_refusal));
    let got = move |mut frame: Vec<u8>| {
        sent.fetch_or(hidden::is_in(&frame), Ordering::SeqCst);
        hidden::wipe(&mut frame);
    };
    run_refused(mechanism, set, got, move || counted.store(hidden::count(), Ordering::SeqCst));
    assert!(was_sent.load(Ordering::SeqCst), "the broker did not get it, so nothing is shown");
    (at_refusal.load(Ordering::SeqCst), hidden::count())
}

#[test]
fn a_password_stands_in_memory_once_and_is_overwritten() {
    let mut seen = 0;
    hidden::lend(|password| {
        let copy = password.to_owned();
        seen = hidden::count();
        hidden::wipe(&mut copy.into_bytes());
    });
    assert_eq!((seen, hidden::count()), (2, 0), "it is not seen where it stands");

    let set = run_with_hidden("PLAIN", |config| {
        config.set("sasl.username", "u").unwrap();
        hidden::lend(|password| config.set("sasl.password", password).unwrap());
    });
    assert_eq!(set, (1, 0), "as a key");

    let file = std::env::temp_dir().join(format!("edgelog-secrets-{}-password", std::process::id()));
    hidden::lend(|password| fs::write(&file, password).unwrap());
    let read = run_with_hidden("PLAIN", |config| {
        config.set("sasl.username", "u").unwrap();
        config.set("edgelog.sasl.password.file", file.to_str().unwrap()).unwrap();
    });
    assert_eq!(read, (0, 0), "in a file, read for each connection");
    let token = run_with_hidden("OAUTHBEARER", |config| {
        config.set("edgelog.sasl.oauthbearer.token.file", file.to_str().unwrap()).unwrap();
    });
    assert_eq!(token, (0, 0), "as a token");
    fs::remove_file(&file).unwrap();
}
