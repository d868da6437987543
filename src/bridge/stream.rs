//! The bytes between here and one broker. Plain TCP today; what encrypts or authenticates stands here too, and nothing
//! above this file will know.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    /// `security.protocol=PLAINTEXT`.
    Plain(TcpStream),
}

impl Stream {
    /// Connects to the first address of `host` that answers; the name is resolved anew each time.
    pub(super) fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<Stream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    // Requests are written whole: nothing is gained by waiting for more.
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Plain(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// No single read or write takes longer than this; it then answers `WouldBlock` or `TimedOut`.
    pub(super) fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
        }
    }
}
