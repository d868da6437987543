//! One connection to one broker: frames, correlation, versions, timeouts, and saying who we are.
//!
//! A frame is a length (i32, big-endian) and that many bytes: a header with the correlation id, and the body. Several
//! requests may be under way; a broker answers in the order in which it was asked. After any error the connection is of
//! no use any more and is dropped, with all that was under way: what was sent may or may not have been carried out, and
//! the caller knows what that means for its request.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use parking_lot::Mutex;

use super::backoff::StopHandle;
use super::error::{BridgeError, Code, Result};
use super::line::{Line, Waited};
use super::sasl::Exchange;
use super::security::{Sasl, Security};
use super::shape::{self, Answered, Speaks};
use super::stream::{self, Stream};
use super::tls::{self, TlsClient};

/// No answer to a request of ours comes near this ...
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// ... nor to one that is asked before the login this: until then the other end may be any program.
const EARLY_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// A broker's quotas throttle for a second or so, and for no longer than their windows last together.
const THROTTLE_MAX: Duration = Duration::from_secs(60);
/// Room is made for so much of an answer at a time.
const READ_BYTES: usize = 64 << 10;
/// How often a wait looks whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(200);

/// The version of ApiVersions that is asked with: the first that tells finalized features (Kafka 2.7).
const API_VERSIONS_VERSION: i16 = ApiVersionsRequest::SPOKEN.1;
const UNSUPPORTED_VERSION: i16 = 35;
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
/// The version of `SaslHandshake` behind which words go into `SaslAuthenticate`; and the newest of that, which tells
/// how long the session lasts.
const SASL_HANDSHAKE_VERSION: i16 = SaslHandshakeRequest::SPOKEN.1;
const SASL_AUTHENTICATE_VERSION: i16 = SaslAuthenticateRequest::SPOKEN.1;
/// No mechanism has so many words.
const SASL_WORDS_MAX: usize = 8;
/// A broker lets a session be renewed once in a second.
const SESSION_MIN: Duration = Duration::from_millis(1100);

/// What is the same for all connections.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) client_id: String,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stop: StopHandle,
    /// What all connections together know of the line.
    pub(super) line: Line,
    /// What brokers said of themselves: not asked again for each connection.
    known: Known,
    tls: Option<Arc<TlsClient>>,
    sasl: Option<Arc<Sasl>>,
}

impl Transport {
    pub(super) fn new(
        client_id: &str,
        connect_timeout: Duration,
        request_timeout: Duration,
        security: &Security,
        stop: StopHandle,
    ) -> Transport {
        let tls = security.protocol.has_tls().then(|| Arc::new(TlsClient::new(security.tls.clone())));
        let sasl = security.protocol.has_sasl().then(|| Arc::new(security.sasl.clone()));
        let (client_id, line) = (client_id.to_owned(), Line::default());
        Transport { client_id, connect_timeout, request_timeout, stop, line, known: Known::default(), tls, sasl }
    }

    fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let socket = stream::connect(host, port, self.connect_timeout, LOOK)?;
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let deadline = Instant::now() + self.request_timeout;
        Ok(Stream::Tls(Box::new(tls.connect(socket, host, deadline, &self.stop)?)))
    }

    fn failed(&self, address: &str, source: io::Error) -> BridgeError {
        let address = address.to_owned();
        let Some(tls) = &self.tls else { return BridgeError::Connection { address, source } };
        // Whatever it was, files that were exchanged meanwhile, or the system's certificates, may be the remedy.
        tls.forget();
        match tls::explain(&source) {
            Some(reason) => BridgeError::Tls { address, reason },
            None => BridgeError::Connection { address, source },
        }
    }
}

/// What a broker said of itself.
#[derive(Debug, Clone, Default)]
struct Versions {
    apis: HashMap<i16, (i16, i16)>,
    /// `transaction.version` as finalized in the cluster; 0 where there is no such feature.
    transaction_version: i16,
}

/// What each broker speaks, by its address. One that was exchanged for another version closes a connection on which it
/// is asked what it does not know: after the second in a row without any answer, it is asked again.
#[derive(Debug, Clone, Default)]
struct Known {
    brokers: Arc<Mutex<HashMap<String, (Versions, u32)>>>,
}

impl Known {
    const SILENT_MAX: u32 = 2;

    fn of(&self, address: &str) -> Option<Versions> {
        self.brokers.lock().get(address).map(|(versions, _)| versions.clone())
    }

    /// Said by itself, or confirmed by an answer.
    fn learn(&self, address: &str, versions: &Versions) {
        self.brokers.lock().insert(address.to_owned(), (versions.clone(), 0));
    }

    /// A connection to it ended without any answer.
    fn doubt(&self, address: &str) {
        let mut brokers = self.brokers.lock();
        let Some((_, silent)) = brokers.get_mut(address) else { return };
        *silent += 1;
        if *silent >= Known::SILENT_MAX {
            brokers.remove(address);
        }
    }
}

/// A request whose answer is not read yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    correlation: i32,
    version: i16,
    header_version: i16,
    bytes: usize,
    began: Instant,
    at: Instant,
}

/// An answer's body, with the version that it is written in.
type Answer = (i16, Bytes);

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    address: String,
    transport: Transport,
    next_correlation: i32,
    versions: Versions,
    /// They are what was known before, and nothing was answered yet.
    is_assumed: bool,
    /// What is under way, oldest first.
    asked: VecDeque<Asked>,
    /// Answers that were read before somebody wanted them.
    early: VecDeque<Answer>,
    /// Bytes of the requests that have no answer yet.
    under_way: usize,
    /// An answer may have so many bytes.
    response_bytes_max: usize,
    /// When the last answer came: time for the next one begins there.
    heard: Instant,
    /// Who we are has to be said again from then on.
    session_until: Option<Instant>,
    /// The broker asked not to be spoken to before then.
    muted_until: Option<Instant>,
}

impl Connection {
    /// Connects and learns which versions the broker speaks.
    pub(super) fn open(host: &str, port: u16, transport: &Transport) -> Result<Connection> {
        let address = format!("{host}:{port}");
        let stream = transport.connect(host, port).map_err(|source| {
            let closed = matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
            if closed && transport.tls.is_some() {
                const WORDS: &str =
                    "closed during the TLS handshake; security.protocol may be another one on this port";
                return transport.failed(&address, io::Error::new(source.kind(), WORDS));
            }
            transport.failed(&address, source)
        })?;
        let mut connection = Connection {
            stream,
            address,
            transport: transport.clone(),
            next_correlation: 0,
            versions: Versions::default(),
            asked: VecDeque::new(),
            under_way: 0,
            response_bytes_max: EARLY_RESPONSE_BYTES_MAX,
            is_assumed: false,
            early: VecDeque::new(),
            heard: Instant::now(),
            session_until: None,
            muted_until: None,
        };
        if let Some(versions) = connection.transport.known.of(&connection.address) {
            (connection.versions, connection.is_assumed) = (versions, true);
        } else {
            connection.learn_versions()?;
            connection.transport.known.learn(&connection.address, &connection.versions);
        }
        connection.authenticate()?;
        connection.response_bytes_max = RESPONSE_BYTES_MAX;
        Ok(connection)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn transaction_version(&self) -> i16 {
        self.versions.transaction_version
    }

    fn learn_versions(&mut self) -> Result<()> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("edgelog"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut frame = self.exchange(API_VERSIONS_VERSION, &request)?;
        // A broker that does not know the version answers in version 0, whose first field is the error.
        if frame.starts_with(&UNSUPPORTED_VERSION.to_be_bytes()) {
            let address = &self.address;
            return Err(BridgeError::Unsupported(format!(
                "{address} is older than Kafka 2.7; exactly-once delivery needs 4.0 with transaction.version=2"
            )));
        }
        let answer = self.decode::<ApiVersionsRequest>(&mut frame, API_VERSIONS_VERSION)?;
        if answer.error_code != 0 {
            return Err(BridgeError::broker("ApiVersions", answer.error_code, None));
        }
        self.versions.apis =
            answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        let feature = answer.finalized_features.iter().find(|feature| &*feature.name == "transaction.version");
        self.versions.transaction_version = feature.map_or(0, |feature| feature.max_version_level);
        Ok(())
    }

    /// The newest version of a request that both sides speak.
    pub(super) fn version<R: Speaks>(&self) -> Result<i16> {
        let (min, max) = self.versions.apis.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = max.min(R::SPOKEN.1);
        if version < min.max(R::SPOKEN.0) {
            return Err(BridgeError::Unsupported(format!(
                "{} speaks versions {min} to {max} of request {}, {} to {} are needed: Kafka 4.0 or later",
                self.address,
                R::KEY,
                R::SPOKEN.0,
                R::SPOKEN.1
            )));
        }
        Ok(version)
    }

    /// Says who we are, where that is asked for: at the beginning, and before the session ends (KIP-368).
    fn authenticate(&mut self) -> Result<()> {
        let Some(sasl) = self.transport.sasl.clone() else { return Ok(()) };
        let mechanism = sasl.mechanism.expect("a mechanism is set where SASL is");
        let began = Instant::now();
        let address = self.address.clone();
        let refused = |reason: String| BridgeError::Authentication {
            address: address.clone(),
            mechanism: mechanism.name(),
            reason,
        };
        let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism.name()));
        let mut frame = self.exchange(SASL_HANDSHAKE_VERSION, &handshake)?;
        let answer = self.decode::<SaslHandshakeRequest>(&mut frame, SASL_HANDSHAKE_VERSION)?;
        if answer.error_code == UNSUPPORTED_SASL_MECHANISM {
            let offered: Vec<&str> = answer.mechanisms.iter().map(|name| &**name).collect();
            return Err(refused(format!("it takes {}: see sasl.mechanism", offered.join(", "))));
        }
        if answer.error_code != 0 {
            return Err(refused(Code(answer.error_code).to_string()));
        }
        let credentials = sasl.credentials().map_err(refused)?;
        let (mut exchange, first) = Exchange::begin(mechanism, &credentials).map_err(refused)?;
        let mut say = Some(first);
        let mut lifetime_ms = 0;
        for _ in 0..SASL_WORDS_MAX {
            let Some(said) = say else {
                let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
                // While there is still time to do so between two requests.
                self.session_until = lifetime.map(|lifetime| began + (lifetime * 17 / 20).max(SESSION_MIN));
                return Ok(());
            };
            let request = SaslAuthenticateRequest::default().with_auth_bytes(said.into());
            let mut frame = self.exchange(SASL_AUTHENTICATE_VERSION, &request)?;
            let answer = self.decode::<SaslAuthenticateRequest>(&mut frame, SASL_AUTHENTICATE_VERSION)?;
            if answer.error_code != 0 {
                let code = Code(answer.error_code);
                return Err(refused(answer.error_message.map_or_else(|| code.to_string(), |words| words.to_string())));
            }
            lifetime_ms = answer.session_lifetime_ms;
            say = exchange.answer(&answer.auth_bytes).map_err(refused)?;
        }
        Err(refused("it never ends".to_owned()))
    }

    /// Sends a request and waits for the answer. Nothing else may be under way.
    pub(super) fn request<R: Speaks>(&mut self, request: &R) -> Result<R::Response> {
        self.send(request)?;
        self.receive::<R>()
    }

    /// Sends a request; [`receive`](Connection::receive) gets the answer, after those to earlier ones.
    pub(super) fn send<R: Speaks>(&mut self, request: &R) -> Result<()> {
        let version = self.version::<R>()?;
        if self.session_until.is_some_and(|until| Instant::now() >= until) {
            // Between requests: what is under way comes first.
            while !self.asked.is_empty() {
                let answer = self.read_answer()?;
                self.early.push_back(answer);
            }
            self.authenticate()?;
        }
        if let Some(until) = self.muted_until.take() {
            self.transport.stop.wait(until.saturating_duration_since(Instant::now()));
        }
        self.ask(version, request)
    }

    /// Waits for the answer to the oldest request that has none yet, which was an `R`.
    pub(super) fn receive<R: Speaks>(&mut self) -> Result<R::Response> {
        let (version, mut body) = match self.early.pop_front() {
            Some(answer) => answer,
            None => self.read_answer()?,
        };
        self.decode::<R>(&mut body, version)
    }

    fn decode<R: Answered>(&self, body: &mut Bytes, version: i16) -> Result<R::Response> {
        shape::decode::<R>(body, version).map_err(|reason| self.nonsense(&reason))
    }

    /// The broker said that it was asked too much: the next request waits.
    pub(super) fn mute_for(&mut self, throttle_time_ms: i32) {
        if let Ok(ms @ 1..) = u64::try_from(throttle_time_ms) {
            self.muted_until = Some(Instant::now() + Duration::from_millis(ms).min(THROTTLE_MAX));
        }
    }

    /// One request and the body of its answer.
    fn exchange<R: Request>(&mut self, version: i16, request: &R) -> Result<Bytes> {
        self.ask(version, request)?;
        Ok(self.read_answer()?.1)
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        let correlation = self.next_correlation;
        self.next_correlation = self.next_correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(StrBytes::from_string(self.transport.client_id.clone())));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(|error| self.nonsense(&error))?;
        request.encode(&mut frame, version).map_err(|error| self.nonsense(&error))?;
        let len = i32::try_from(frame.len() - 4).expect("a request is far below 2 GiB");
        frame[..4].copy_from_slice(&len.to_be_bytes());
        let (bytes, began) = (frame.len(), Instant::now());
        self.under_way += bytes;
        let header_version = R::Response::header_version(version);
        self.asked.push_back(Asked { correlation, version, header_version, bytes, began, at: began });
        self.write(&frame)?;
        self.asked.back_mut().expect("pushed above").at = Instant::now();
        Ok(())
    }

    fn read_answer(&mut self) -> Result<Answer> {
        let Some(&asked) = self.asked.front() else {
            return Err(self.failed(io::Error::new(io::ErrorKind::NotConnected, "nothing was asked")));
        };
        // What was written may still be on its way: a slow line is no dead one.
        let time = self.transport.request_timeout + self.transport.line.sending(asked.bytes);
        let deadline = asked.at.max(self.heard) + time;
        let mut len = [0; 4];
        self.read(&mut len, deadline)?;
        // A record of TLS, most of all an alert.
        if matches!(len, [0x14..=0x17, 3, ..]) {
            return Err(self.nonsense(&"TLS, and security.protocol says otherwise"));
        }
        let len = i32::from_be_bytes(len);
        let Some(len) = usize::try_from(len).ok().filter(|len| (4..=self.response_bytes_max).contains(len)) else {
            let max = self.response_bytes_max;
            return Err(self.nonsense(&format!("a frame of {len} bytes, 4 to {max} are taken")));
        };
        // Memory follows what has come: a length alone takes none.
        let mut answer = BytesMut::new();
        while answer.len() < len {
            let at = answer.len();
            answer.resize(len.min(at + READ_BYTES), 0);
            self.read(&mut answer[at..], deadline)?;
        }
        let now = Instant::now();
        let waited =
            if asked.began < self.heard { Waited::Behind(now - self.heard) } else { Waited::Alone(now - asked.began) };
        self.heard = now;
        let mut answer = answer.freeze();
        if asked.header_version > 0 {
            shape::check_header(&answer).map_err(|reason| self.nonsense(&reason))?;
        }
        let header =
            ResponseHeader::decode(&mut answer, asked.header_version).map_err(|error| self.nonsense(&error))?;
        if header.correlation_id != asked.correlation {
            let (found, expected) = (header.correlation_id, asked.correlation);
            return Err(self.nonsense(&format!("the answer to request {found}, asked was {expected}")));
        }
        self.asked.pop_front();
        self.under_way -= asked.bytes;
        self.transport.line.answered(asked.bytes, waited);
        if std::mem::take(&mut self.is_assumed) {
            self.transport.known.learn(&self.address, &self.versions);
        }
        Ok((asked.version, answer))
    }

    /// A slow line is no dead one: the time begins anew with each piece that it takes.
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        let timeout = self.transport.request_timeout;
        let mut deadline = Instant::now() + timeout;
        while !bytes.is_empty() || self.stream.is_behind() {
            match self.stream.push(bytes) {
                Ok(taken) => (bytes, deadline) = (&bytes[taken..], Instant::now() + timeout),
                Err(error) => self.wait_on(error, deadline)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            match self.stream.read(&mut buffer[at..]) {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => at += read,
                Err(error) => self.wait_on(error, deadline)?,
            }
        }
        Ok(())
    }

    /// After a read or write that did nothing: whether there is time for another.
    fn wait_on(&self, error: io::Error, deadline: Instant) -> Result<()> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                self.transport.stop.check_grace()?;
                if Instant::now() >= deadline {
                    return Err(self.failed(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
                }
                Ok(())
            }
            _ => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: io::Error) -> BridgeError {
        self.transport.failed(&self.address, source)
    }

    fn nonsense(&self, reason: &dyn std::fmt::Display) -> BridgeError {
        BridgeError::Protocol { address: self.address.clone(), reason: reason.to_string() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_assumed {
            self.transport.known.doubt(&self.address);
        }
        if self.under_way > 0 {
            self.stream.close_at_once();
            let oldest = self.asked.front();
            let since = oldest.map_or(Duration::ZERO, |asked| asked.began.max(self.heard).elapsed());
            self.transport.line.died(self.under_way, oldest.map_or(0, |asked| asked.bytes), since);
        }
    }
}

/// The answer's own error, where it has one.
pub(super) fn check(doing: &str, code: i16) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(BridgeError::broker(doing, code, None)) }
}

/// As [`check`], for a code that says more than retry or not.
pub(super) fn code_of(error: &BridgeError) -> Option<Code> {
    match error {
        BridgeError::Broker { code, .. } => Some(*code),
        _ => None,
    }
}
