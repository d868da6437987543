//! One connection to one broker: frames, correlation, versions, timeouts.
//!
//! A frame is a length (i32, big-endian) and that many bytes: a header with the correlation id, and the body. One
//! request is under way at a time. After any error the connection is of no use any more and is dropped: what was sent
//! may or may not have been carried out, and the caller knows what that means for its request.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::backoff::StopHandle;
use super::error::{BridgeError, Code, Result};
use super::stream::Stream;

/// No answer to a request of ours comes near this.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// How often a wait looks whether somebody asked to stop.
const LOOK: Duration = Duration::from_millis(200);

/// The version of ApiVersions that is asked with: the first that tells finalized features (Kafka 2.7).
const API_VERSIONS_VERSION: i16 = 3;
const UNSUPPORTED_VERSION: i16 = 35;

/// What is the same for all connections.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) client_id: String,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) stop: StopHandle,
}

/// A request that the bridge makes, with the versions of it that it can speak.
pub(super) trait Speaks: Request {
    /// Oldest and newest.
    const SPOKEN: (i16, i16);
}

/// What a broker said of itself.
#[derive(Debug, Default)]
struct Versions {
    apis: HashMap<i16, (i16, i16)>,
    /// `transaction.version` as finalized in the cluster; 0 where there is no such feature.
    transaction_version: i16,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    address: String,
    transport: Transport,
    next_correlation: i32,
    versions: Versions,
    /// The broker asked not to be spoken to before then.
    muted_until: Option<Instant>,
}

impl Connection {
    /// Connects and learns which versions the broker speaks.
    pub(super) fn open(host: &str, port: u16, transport: &Transport) -> Result<Connection> {
        let address = format!("{host}:{port}");
        let failed = |source| BridgeError::Connection { address: address.clone(), source };
        let stream = Stream::connect(host, port, transport.connect_timeout).map_err(failed)?;
        stream.set_timeout(LOOK).map_err(failed)?;
        let mut connection = Connection {
            stream,
            address,
            transport: transport.clone(),
            next_correlation: 0,
            versions: Versions::default(),
            muted_until: None,
        };
        connection.learn_versions()?;
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
        let mut frame = self.exchange(API_VERSIONS_VERSION, &request, self.transport.request_timeout)?;
        // A broker that does not know the version answers in version 0, whose first field is the error.
        let version = if frame.starts_with(&UNSUPPORTED_VERSION.to_be_bytes()) { 0 } else { API_VERSIONS_VERSION };
        let answer = ApiVersionsResponse::decode(&mut frame, version).map_err(|error| self.nonsense(&error))?;
        if answer.error_code == UNSUPPORTED_VERSION {
            let address = &self.address;
            return Err(BridgeError::Unsupported(format!(
                "{address} is older than Kafka 2.7; exactly-once delivery needs 4.0 with transaction.version=2"
            )));
        }
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

    /// Sends a request and waits for the answer.
    pub(super) fn request<R: Speaks>(&mut self, request: &R) -> Result<R::Response> {
        let version = self.version::<R>()?;
        if let Some(until) = self.muted_until.take() {
            self.transport.stop.wait(until.saturating_duration_since(Instant::now()));
        }
        let mut frame = self.exchange(version, request, self.transport.request_timeout)?;
        R::Response::decode(&mut frame, version).map_err(|error| self.nonsense(&error))
    }

    /// The broker said that it was asked too much: the next request waits.
    pub(super) fn mute_for(&mut self, throttle_time_ms: i32) {
        if let Ok(ms @ 1..) = u64::try_from(throttle_time_ms) {
            self.muted_until = Instant::now().checked_add(Duration::from_millis(ms));
        }
    }

    /// One request and the body of its answer.
    fn exchange<R: Request>(&mut self, version: i16, request: &R, timeout: Duration) -> Result<Bytes> {
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

        self.write(&frame, timeout)?;
        let deadline = Instant::now() + timeout;
        let mut len = [0; 4];
        self.read(&mut len, deadline)?;
        let len = i32::from_be_bytes(len);
        let Ok(len @ 4..=RESPONSE_BYTES_MAX) = usize::try_from(len) else {
            return Err(self.nonsense(&format!("a frame of {len} bytes")));
        };
        let mut answer = BytesMut::zeroed(len);
        self.read(&mut answer, deadline)?;
        let mut answer = answer.freeze();
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(|error| self.nonsense(&error))?;
        if header.correlation_id != correlation {
            let found = header.correlation_id;
            return Err(self.nonsense(&format!("the answer to request {found}, asked was {correlation}")));
        }
        Ok(answer)
    }

    /// A slow line is no dead one: the time begins anew with each piece that it takes.
    fn write(&mut self, mut bytes: &[u8], timeout: Duration) -> Result<()> {
        let mut deadline = Instant::now() + timeout;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(written) => (bytes, deadline) = (&bytes[written..], Instant::now() + timeout),
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
        BridgeError::Connection { address: self.address.clone(), source }
    }

    fn nonsense(&self, reason: &dyn std::fmt::Display) -> BridgeError {
        BridgeError::Protocol { address: self.address.clone(), reason: reason.to_string() }
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
