//! One connection to one broker: frames, correlation, versions, timeouts, and saying who we are.
//!
//! A frame is a length (i32, big-endian) and that many bytes: a header with the correlation id, and the body. Several
//! requests may be in flight; a broker answers them in their order. After any error the connection is of no use any
//! more and is dropped, with all that was in flight: what was sent may or may not have been carried out, and the caller
//! knows what that means for its request.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, EndTxnRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use parking_lot::Mutex;
use zeroize::Zeroize;

use super::api::{self, ApiRequest};
use super::error::{KafkaError, Result, check};
use super::error_code::Code;
use super::link::{LinkEstimator, Waited};
use super::sasl::Exchange;
use super::security::{Sasl, Security};
use super::stop::StopHandle;
use super::stream::{self, Stream};
use super::tls::{self, TlsClient};

/// No response to a request of ours comes near this ...
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// ... nor, before the login is complete, this: until then the other end may be any program.
const LOGIN_RESPONSE_BYTES_MAX: usize = 1 << 20;
/// A broker that throttles does not read from the connection meanwhile (KIP-219): waiting here only spares it a request
/// that would time out. So a wait ends after this, with any number: one of 32 bits could silence us for 24 days.
const THROTTLE_MAX: Duration = Duration::from_secs(60);
/// Room is made for so much of a response at a time.
const READ_BYTES: usize = 64 << 10;
/// How often a wait looks whether a stop was requested.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The version of EndTxn that Kafka 4.0 has brought, with transactions of version 2.
const END_TXN_OF_VERSION_2: i16 = EndTxnRequest::SPOKEN.0;
/// The version of ApiVersions that is asked with: the first that has finalized features (Kafka 2.7).
const API_VERSIONS_VERSION: i16 = ApiVersionsRequest::SPOKEN.1;
/// The version of `SaslHandshake` behind which mechanisms speak in `SaslAuthenticate`; and the newest of that, which
/// says how long the session lasts.
const SASL_HANDSHAKE_VERSION: i16 = SaslHandshakeRequest::SPOKEN.1;
const SASL_AUTHENTICATE_VERSION: i16 = SaslAuthenticateRequest::SPOKEN.1;
/// No mechanism takes so many round trips.
const SASL_ROUND_TRIPS_MAX: usize = 8;
/// A broker lets a session be renewed once in a second.
const SESSION_MIN: Duration = Duration::from_millis(1100);

/// What is the same for all connections.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    pub(super) client_id: String,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stop: StopHandle,
    /// What all connections together know of the link.
    pub(super) link: LinkEstimator,
    /// Not asked again for each connection.
    versions: VersionCache,
    tls: Option<Arc<TlsClient>>,
    sasl: Option<Arc<Sasl>>,
}

impl Transport {
    pub(crate) fn new(
        client_id: &str,
        connect_timeout: Duration,
        request_timeout: Duration,
        security: &Security,
        stop: StopHandle,
    ) -> Transport {
        let tls = security.protocol.has_tls().then(|| Arc::new(TlsClient::new(security.tls.clone())));
        let sasl = security.protocol.has_sasl().then(|| Arc::new(security.sasl.clone()));
        let (client_id, link) = (client_id.to_owned(), LinkEstimator::default());
        Transport {
            client_id,
            connect_timeout,
            request_timeout,
            stop,
            link,
            versions: VersionCache::default(),
            tls,
            sasl,
        }
    }

    fn connect(&self, host: &str, port: u16) -> io::Result<Stream> {
        let socket = stream::connect(host, port, self.connect_timeout, STOP_CHECK_INTERVAL)?;
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let deadline = Instant::now() + self.request_timeout;
        Ok(Stream::Tls(Box::new(tls.connect(socket, host, deadline, &self.stop)?)))
    }

    fn failed(&self, address: &str, source: io::Error) -> KafkaError {
        let address = address.to_owned();
        let Some(tls) = &self.tls else { return KafkaError::Connection { address, source } };
        // No matter what it was, files that were exchanged meanwhile, or the system's certificates, may be the remedy.
        tls.forget();
        match tls::explain(&source) {
            Some(reason) => KafkaError::Tls { address, reason },
            None => KafkaError::Connection { address, source },
        }
    }
}

/// What a broker says of itself in ApiVersions.
#[derive(Debug, Clone, Default)]
struct Versions {
    apis: HashMap<i16, (i16, i16)>,
    /// `transaction.version` as finalized in the cluster; 0 where there is no such feature.
    transaction_version: i16,
}

/// What each broker speaks, by its address. One that was exchanged for another version closes a connection on which it
/// gets a request that it does not know: after the second in a row without any response, it is asked again.
#[derive(Debug, Clone, Default)]
struct VersionCache {
    brokers: Arc<Mutex<HashMap<String, (Versions, u32)>>>,
}

impl VersionCache {
    const SILENT_MAX: u32 = 2;

    fn of(&self, address: &str) -> Option<Versions> {
        self.brokers.lock().get(address).map(|(versions, _)| versions.clone())
    }

    /// Said by itself, or confirmed by a response.
    fn learn(&self, address: &str, versions: &Versions) {
        self.brokers.lock().insert(address.to_owned(), (versions.clone(), 0));
    }

    /// A connection to it ended without any response.
    fn doubt(&self, address: &str) {
        let mut brokers = self.brokers.lock();
        let Some((_, silent)) = brokers.get_mut(address) else { return };
        *silent += 1;
        if *silent >= VersionCache::SILENT_MAX {
            brokers.remove(address);
        }
    }
}

/// A request whose response is not read yet.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    correlation: i32,
    version: i16,
    header_version: i16,
    bytes: usize,
    began: Instant,
    at: Instant,
}

/// A response's body, with the version that it is written in.
type Body = (i16, Bytes);

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    address: String,
    transport: Transport,
    next_correlation: i32,
    versions: Versions,
    /// They are what was known before, and there was no response yet.
    is_assumed: bool,
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
    /// Responses that were read before the caller asked for them.
    buffered: VecDeque<Body>,
    /// Bytes of the requests in flight.
    in_flight_bytes: usize,
    /// A response may have so many bytes.
    response_bytes_max: usize,
    /// Time for the next response begins there.
    last_response_at: Instant,
    /// We have to authenticate again from then on.
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
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            response_bytes_max: LOGIN_RESPONSE_BYTES_MAX,
            is_assumed: false,
            buffered: VecDeque::new(),
            last_response_at: Instant::now(),
            session_until: None,
            muted_until: None,
        };
        if let Some(versions) = connection.transport.versions.of(&connection.address) {
            (connection.versions, connection.is_assumed) = (versions, true);
        } else {
            connection.learn_versions()?;
            connection.transport.versions.learn(&connection.address, &connection.versions);
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

    /// Whether the broker can have transactions of version 2: it knows the form of EndTxn that came with them.
    pub(super) fn knows_transactions_of_version_2(&self) -> bool {
        self.versions.apis.get(&EndTxnRequest::KEY).is_some_and(|(_, newest)| *newest >= END_TXN_OF_VERSION_2)
    }

    fn learn_versions(&mut self) -> Result<()> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("edgelog"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut frame = self.exchange(API_VERSIONS_VERSION, &request)?;
        // A broker that does not know the version answers in version 0, whose first field is the error.
        if frame.starts_with(&ResponseError::UnsupportedVersion.code().to_be_bytes()) {
            let address = &self.address;
            return Err(KafkaError::Unsupported(format!(
                "{address} is older than Kafka 2.7; exactly-once delivery needs 4.0 with transaction.version=2"
            )));
        }
        let response = self.decode::<ApiVersionsRequest>(&mut frame, API_VERSIONS_VERSION)?;
        check("ApiVersions", response.error_code)?;
        self.versions.apis =
            response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        let feature = response.finalized_features.iter().find(|feature| &*feature.name == "transaction.version");
        self.versions.transaction_version = feature.map_or(0, |feature| feature.max_version_level);
        Ok(())
    }

    /// The newest version of a request that both sides speak.
    pub(super) fn version<R: ApiRequest>(&self) -> Result<i16> {
        let (min, max) = self.versions.apis.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = max.min(R::SPOKEN.1);
        if version < min.max(R::SPOKEN.0) {
            return Err(KafkaError::Unsupported(format!(
                "{} speaks versions {min} to {max} of request {}, {} to {} are needed: Kafka 4.0 or later",
                self.address,
                R::KEY,
                R::SPOKEN.0,
                R::SPOKEN.1
            )));
        }
        Ok(version)
    }

    /// Authenticates, where SASL is asked for: at the beginning, and before the session ends (KIP-368).
    fn authenticate(&mut self) -> Result<()> {
        let Some(sasl) = self.transport.sasl.clone() else { return Ok(()) };
        let mechanism = sasl.mechanism.expect("a mechanism is set where SASL is");
        let began = Instant::now();
        let address = self.address.clone();
        let refused = |reason: String| KafkaError::Authentication {
            address: address.clone(),
            mechanism: mechanism.name(),
            reason,
        };
        let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism.name()));
        let mut frame = self.exchange(SASL_HANDSHAKE_VERSION, &handshake)?;
        let response = self.decode::<SaslHandshakeRequest>(&mut frame, SASL_HANDSHAKE_VERSION)?;
        if response.error_code == ResponseError::UnsupportedSaslMechanism.code() {
            let offered: Vec<&str> = response.mechanisms.iter().map(|name| &**name).collect();
            return Err(refused(format!("it takes {}: see sasl.mechanism", offered.join(", "))));
        }
        if response.error_code != 0 {
            return Err(refused(Code(response.error_code).to_string()));
        }
        let credentials = sasl.credentials().map_err(refused)?;
        let (mut exchange, first) = Exchange::begin(mechanism, &credentials).map_err(refused)?;
        let mut say = Some(first);
        let mut lifetime_ms = 0;
        for _ in 0..SASL_ROUND_TRIPS_MAX {
            let Some(message) = say else {
                let lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
                // While there is still time to do so between two requests.
                self.session_until = lifetime.map(|lifetime| began + (lifetime * 17 / 20).max(SESSION_MIN));
                return Ok(());
            };
            let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_owner(message));
            let mut frame = self.exchange(SASL_AUTHENTICATE_VERSION, &request)?;
            let response = self.decode::<SaslAuthenticateRequest>(&mut frame, SASL_AUTHENTICATE_VERSION)?;
            if response.error_code != 0 {
                let code = Code(response.error_code);
                return Err(refused(
                    response.error_message.map_or_else(|| code.to_string(), |words| words.to_string()),
                ));
            }
            lifetime_ms = response.session_lifetime_ms;
            say = exchange.answer(&response.auth_bytes).map_err(refused)?;
        }
        Err(refused(format!("it did not end after {SASL_ROUND_TRIPS_MAX} round trips")))
    }

    /// Sends a request and waits for the response. Nothing else may be in flight.
    pub(super) fn request<R: ApiRequest>(&mut self, request: &R) -> Result<R::Response> {
        self.send(request)?;
        self.receive::<R>()
    }

    /// Sends a request; [`receive`](Connection::receive) gets the response, after those to earlier ones.
    pub(super) fn send<R: ApiRequest>(&mut self, request: &R) -> Result<()> {
        let version = self.version::<R>()?;
        if self.session_until.is_some_and(|until| Instant::now() >= until) {
            // Between requests: what is in flight comes first.
            while !self.in_flight.is_empty() {
                let body = self.read_response()?;
                self.buffered.push_back(body);
            }
            self.authenticate()?;
        }
        if let Some(until) = self.muted_until.take() {
            self.transport.stop.wait(until.saturating_duration_since(Instant::now()));
        }
        self.write_request(version, request)
    }

    /// Waits for the response to the oldest request in flight, which was an `R`.
    pub(super) fn receive<R: ApiRequest>(&mut self) -> Result<R::Response> {
        let (version, mut body) = match self.buffered.pop_front() {
            Some(body) => body,
            None => self.read_response()?,
        };
        self.decode::<R>(&mut body, version)
    }

    fn decode<R: ApiRequest>(&self, body: &mut Bytes, version: i16) -> Result<R::Response> {
        api::decode::<R>(body, version).map_err(|reason| self.malformed(&reason))
    }

    /// The broker throttles us: the next request waits.
    pub(super) fn mute_for(&mut self, throttle_time_ms: i32) {
        if let Ok(ms @ 1..) = u64::try_from(throttle_time_ms) {
            self.muted_until = Some(Instant::now() + Duration::from_millis(ms).min(THROTTLE_MAX));
        }
    }

    /// One request and the body of its response.
    fn exchange<R: Request>(&mut self, version: i16, request: &R) -> Result<Bytes> {
        self.write_request(version, request)?;
        Ok(self.read_response()?.1)
    }

    fn write_request<R: Request>(&mut self, version: i16, request: &R) -> Result<()> {
        let correlation = self.next_correlation;
        self.next_correlation = self.next_correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(StrBytes::from_string(self.transport.client_id.clone())));
        // Made as large as it becomes: a frame that grows leaves copies of what it holds behind.
        let header_version = R::header_version(version);
        let sizes = header.compute_size(header_version).and_then(|len| Ok(len + request.compute_size(version)?));
        let len = sizes.map_err(|error| self.malformed(&error))?;
        let mut frame = BytesMut::with_capacity(4 + len);
        frame.put_i32(0);
        header.encode(&mut frame, header_version).map_err(|error| self.malformed(&error))?;
        request.encode(&mut frame, version).map_err(|error| self.malformed(&error))?;
        let len = i32::try_from(frame.len() - 4).expect("a request is far below 2 GiB");
        frame[..4].copy_from_slice(&len.to_be_bytes());
        let (bytes, began) = (frame.len(), Instant::now());
        self.in_flight_bytes += bytes;
        let header_version = R::Response::header_version(version);
        self.in_flight.push_back(InFlight { correlation, version, header_version, bytes, began, at: began });
        let written = self.write(&frame);
        if R::KEY == SaslAuthenticateRequest::KEY {
            // There may be a password in it.
            frame.as_mut().zeroize();
        }
        written?;
        self.in_flight.back_mut().expect("pushed above").at = Instant::now();
        Ok(())
    }

    fn read_response(&mut self) -> Result<Body> {
        let Some(&request) = self.in_flight.front() else {
            return Err(self.failed(io::Error::new(io::ErrorKind::NotConnected, "nothing is in flight")));
        };
        // What was written may still be on its way: a slow line is no dead one.
        let time = self.transport.request_timeout + self.transport.link.sending(request.bytes);
        let deadline = request.at.max(self.last_response_at) + time;
        let mut len = [0; 4];
        self.read(&mut len, deadline)?;
        // A record of TLS, most of all an alert.
        if matches!(len, [0x14..=0x17, 3, ..]) {
            return Err(self.malformed(&"TLS, and security.protocol says otherwise"));
        }
        let len = i32::from_be_bytes(len);
        let Some(len) = usize::try_from(len).ok().filter(|len| (4..=self.response_bytes_max).contains(len)) else {
            let max = self.response_bytes_max;
            return Err(self.malformed(&format!("a frame of {len} bytes, 4 to {max} are taken")));
        };
        // Memory follows what has come: a length alone takes none.
        let mut response = BytesMut::new();
        while response.len() < len {
            let at = response.len();
            response.resize(len.min(at + READ_BYTES), 0);
            self.read(&mut response[at..], deadline)?;
        }
        let now = Instant::now();
        let waited = if request.began < self.last_response_at {
            Waited::Behind(now - self.last_response_at)
        } else {
            Waited::Alone(now - request.began)
        };
        self.last_response_at = now;
        let mut response = response.freeze();
        if request.header_version > 0 {
            api::check_header(&response).map_err(|reason| self.malformed(&reason))?;
        }
        let header =
            ResponseHeader::decode(&mut response, request.header_version).map_err(|error| self.malformed(&error))?;
        if header.correlation_id != request.correlation {
            let (found, expected) = (header.correlation_id, request.correlation);
            return Err(self.malformed(&format!("the response to request {found}, {expected} was expected")));
        }
        self.in_flight.pop_front();
        self.in_flight_bytes -= request.bytes;
        self.transport.link.answered(request.bytes, waited);
        if std::mem::take(&mut self.is_assumed) {
            self.transport.versions.learn(&self.address, &self.versions);
        }
        Ok((request.version, response))
    }

    /// A slow line is no dead one: the timeout starts again with every write that it takes.
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

    fn failed(&self, source: io::Error) -> KafkaError {
        self.transport.failed(&self.address, source)
    }

    fn malformed(&self, reason: &dyn std::fmt::Display) -> KafkaError {
        KafkaError::Protocol { address: self.address.clone(), reason: reason.to_string() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_assumed {
            self.transport.versions.doubt(&self.address);
        }
        if self.in_flight_bytes > 0 {
            self.stream.close_at_once();
            let oldest = self.in_flight.front();
            let since = oldest.map_or(Duration::ZERO, |request| request.began.max(self.last_response_at).elapsed());
            self.transport.link.died(self.in_flight_bytes, oldest.map_or(0, |request| request.bytes), since);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

    use super::super::test_broker::{listen, padded, plaintext};
    use super::*;

    /// The other end may be any program: 64 MiB were taken from it.
    #[test]
    fn a_response_before_the_login_is_complete_has_at_most_a_mebibyte() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = thread::spawn(move || listener.accept().unwrap().0.write_all(&((1 << 20) + 1_u32).to_be_bytes()));
        let error = Connection::open("127.0.0.1", port, &plaintext()).unwrap_err().to_string();
        assert!(error.contains("a frame of 1048577 bytes, 4 to 1048576 are taken"), "{error}");
        other.join().unwrap().unwrap();

        let port = listen(|_, version| Some(padded(&MetadataResponse::default(), version, 2 << 20)));
        let mut connection = Connection::open("127.0.0.1", port, &plaintext()).unwrap();
        connection.request(&MetadataRequest::default()).unwrap();
    }

    /// A broker could have silenced us for 24 days.
    #[test]
    fn a_throttle_lasts_a_minute_at_most() {
        let port = listen(|_, _| None);
        let mut connection = Connection::open("127.0.0.1", port, &plaintext()).unwrap();
        connection.mute_for(0);
        assert_eq!(connection.muted_until, None);
        connection.mute_for(i32::MAX);
        assert!(connection.muted_until.unwrap() <= Instant::now() + Duration::from_secs(60));
    }
}
