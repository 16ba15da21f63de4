//! HTTP/2 by hand, as no client in good faith speaks it (RFC 9113). The benches use it as well.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const VERIFY_KEY: &str = "/ostiary.v1.KeyService/VerifyKey";
/// Types of frames (section 6).
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// A flag: no more headers of this call follow.
pub const END_HEADERS: u8 = 4;
/// The code of a stream that nobody needs any more.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A frame: its type, its flags, the stream that it belongs to, and what is in it.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags], stream.to_be_bytes().as_slice(), payload].concat()
}

/// The headers of a call that names no root key: POST, http, its path, the type of its content.
pub fn headers(path: &str) -> Vec<u8> {
    let kind = b"application/grpc";
    let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    // A literal whose name is number 31 of the static table.
    block.extend([0x0f, 0x10, kind.len() as u8]);
    block.extend(kind);
    block
}

/// A call whose message is still to come.
pub fn call(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &headers(VERIFY_KEY))
}

/// A call whose headers are still going on.
pub fn call_begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0, stream, &headers(VERIFY_KEY))
}

/// More headers, which are not the last: one of so many bytes.
pub fn continuation(stream: u32, size: usize) -> Vec<u8> {
    let mut block = Vec::new();
    if size > 0 {
        // A literal with a new name, `x`, whose length takes more than the 7 bits of a prefix.
        let mut rest = size - 127;
        block.extend([0x00, 0x01, b'x', 0x7f]);
        while rest >= 0x80 {
            block.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
        block.extend(vec![b'a'; size]);
    }
    frame(CONTINUATION, 0, stream, &block)
}

/// Takes a call back.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL)
}

/// Settings that change nothing, but must be acknowledged.
pub fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// A question that must be answered.
pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

/// A connection from this address of the machine itself.
pub fn from(own: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((own, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// A connection that has begun well.
pub struct Attacker(pub TcpStream);

impl Attacker {
    pub fn connect(own: Ipv4Addr, to: SocketAddr) -> io::Result<Self> {
        let mut connection = from(own, to)?;
        // Bounds, not expectations.
        connection.set_write_timeout(Some(Duration::from_secs(2)))?;
        connection.set_read_timeout(Some(Duration::from_secs(60)))?;
        connection.write_all(&[PREFACE, &settings()].concat())?;
        Ok(Self(connection))
    }

    /// Sends this; false once that is not possible any more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Whether the server hangs up, whatever it says before.
    pub fn is_hung_up_on(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            }
        }
    }
}
