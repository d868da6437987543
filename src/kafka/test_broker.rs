//! A broker of a few lines: answers ApiVersions by itself, and everything else as a test says.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::connection::Transport;
use super::security::Security;
use super::stop::StopHandle;

/// Listens until the test ends, on the port that it returns. `respond` gets each request's key and version, and gives
/// the response's body; `None` closes the connection.
pub(super) fn listen(respond: impl Fn(ApiKey, i16) -> Option<Bytes> + Clone + Send + 'static) -> u16 {
    listen_to(move |key, version, _| respond(key, version))
}

/// As [`listen`]; `respond` gets each request's body as well.
pub(crate) fn listen_to(respond: impl Fn(ApiKey, i16, Bytes) -> Option<Bytes> + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("it listens").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let respond = respond.clone();
            // A client that is gone ends it.
            thread::spawn(move || serve(client, respond));
        }
    });
    port
}

fn serve(mut client: TcpStream, respond: impl Fn(ApiKey, i16, Bytes) -> Option<Bytes>) -> io::Result<()> {
    loop {
        let mut len = [0; 4];
        client.read_exact(&mut len)?;
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        client.read_exact(&mut frame)?;
        let (key, version) = (i16::from_be_bytes([frame[0], frame[1]]), i16::from_be_bytes([frame[2], frame[3]]));
        let key = ApiKey::try_from(key).expect("a request of Kafka's");
        let mut request = Bytes::from(frame);
        let header = RequestHeader::decode(&mut request, key.request_header_version(version)).expect("a header");
        let body = if key == ApiKey::ApiVersions { Some(all_versions()) } else { respond(key, version, request) };
        let Some(body) = body else { return Ok(()) };
        let mut response = BytesMut::new();
        let answered = ResponseHeader::default().with_correlation_id(header.correlation_id);
        answered.encode(&mut response, key.response_header_version(version)).expect("a header");
        response.extend(body);
        client.write_all(&u32::try_from(response.len()).expect("a short response").to_be_bytes())?;
        client.write_all(&response)?;
    }
}

fn all_versions() -> Bytes {
    let apis = (0..100).map(|key| ApiVersion::default().with_api_key(key).with_max_version(i16::MAX));
    encoded(&ApiVersionsResponse::default().with_api_keys(apis.collect()), 3)
}

pub(crate) fn encoded(response: &impl Encodable, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    response.encode(&mut body, version).expect("a response");
    body.freeze()
}

/// With `zeros` more bytes behind it.
pub(super) fn padded(response: &impl Encodable, version: i16, zeros: usize) -> Bytes {
    let mut body = BytesMut::from(&encoded(response, version)[..]);
    body.put_bytes(0, zeros);
    body.freeze()
}

/// Without encryption and without a login.
pub(super) fn plaintext() -> Transport {
    let timeout = Duration::from_secs(30);
    Transport::new("test", timeout, timeout, &Security::default(), StopHandle::default())
}
