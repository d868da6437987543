//! The bytes between here and one broker, encrypted or not; nothing above this file knows.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::tls::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// Connects to the first address of `host` that answers; the name is resolved each time. No single read or write
/// takes longer than `patience`: it then answers `WouldBlock` or `TimedOut`.
pub(super) fn connect(host: &str, port: u16, timeout: Duration, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                // Requests are written whole: nothing is gained by waiting for more.
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Stream {
    /// Whether bytes that were taken are not on the line yet: `push` has to be called again, with no more of them.
    pub(super) fn is_behind(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.is_behind(),
        }
    }

    /// Takes some of `bytes`, or puts some of what it took on the line: some way further on return, in any case.
    /// Returns how many it took.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => match stream.write(bytes)? {
                0 => Err(io::ErrorKind::WriteZero.into()),
                written => Ok(written),
            },
            Stream::Tls(stream) => stream.push(bytes),
        }
    }
}

impl Stream {
    /// Closing it throws away what was taken and is not sent yet. Otherwise the system goes on to send that, and a slow
    /// line is busy for minutes with requests that no one waits for.
    pub(super) fn close_at_once(&self) {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.socket(),
        };
        // Where it is closed already there is nothing to throw away.
        let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}
