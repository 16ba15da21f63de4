//! What a connection of HTTP/2 is held to: calls at a time, the size of headers, and that its client is still there.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use ostiary::pb::v1 as pb;
use tonic::Request;

use crate::attacks::frames::{Attacker, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, frame, headers};
use crate::process::{Place, Server};

/// A frame that answers.
const ACK: u8 = 1;
/// What a message is in, and the flag that says that nothing follows it.
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
/// A message with nothing in it, as gRPC frames it.
const NOTHING: [u8; 5] = [0; 5];
/// Settings.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const INITIAL_WINDOW_SIZE: u8 = 4;
/// Why a call was not taken.
const REFUSED_STREAM: u32 = 7;

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The next frame, unless the server hangs up.
fn next(mut connection: &TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    match connection.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
        Err(error) => panic!("{error}"),
    }
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    connection.read_exact(&mut payload).unwrap();
    Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
}

/// The next frame of this type that answers nothing.
fn next_of(connection: &TcpStream, kind: u8) -> Option<Frame> {
    std::iter::from_fn(|| next(connection)).find(|frame| frame.kind == kind && frame.flags & ACK == 0)
}

fn setting(settings: &Frame, which: u16) -> Option<u32> {
    let mut entries = settings.payload.chunks(6);
    entries.find_map(|entry| {
        let [a, b, value @ ..] = entry else { return None };
        (u16::from_be_bytes([*a, *b]) == which).then(|| u32::from_be_bytes(value.try_into().unwrap()))
    })
}

/// A call by the holder of this root key, whose message is still to come.
fn call(path: &str, stream: u32, bearer: &str) -> Vec<u8> {
    // A literal with a new name; a length below 127 takes one byte.
    let mut block = [headers(path), vec![0x00]].concat();
    for text in ["authorization", bearer] {
        block.push(u8::try_from(text.len()).ok().filter(|length| *length < 0x7f).unwrap());
        block.extend(text.as_bytes());
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn connect(server: &Server) -> TcpStream {
    Attacker::connect(LOCAL, server.address).unwrap().0
}

#[test]
fn the_257th_call_at_a_time_on_a_connection_is_not_taken_and_the_others_are() {
    let place = Place::new();
    let server = place.serve(&[]);
    let bearer = format!("Bearer {}", place.first_root_key());
    let mut connection = connect(&server);
    let settings = next_of(&connection, SETTINGS).unwrap();
    assert_eq!(setting(&settings, MAX_CONCURRENT_STREAMS), Some(256));
    assert_eq!(setting(&settings, MAX_HEADER_LIST_SIZE), Some(16 << 10));
    let begun: Vec<u8> =
        (0..257).flat_map(|place| call("/ostiary.v1.KeyService/VerifyKey", 2 * place + 1, &bearer)).collect();
    connection.write_all(&begun).unwrap();
    let refused = next_of(&connection, RST_STREAM).unwrap();
    assert_eq!(refused.stream, 2 * 256 + 1);
    assert_eq!(refused.payload, REFUSED_STREAM.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_above_16_kib_are_refused_and_the_connection_goes_on() {
    let place = Place::new();
    let server = place.serve(&[]);
    let client = server.client(&place.first_root_key()).await;
    let with = |length: usize| {
        let mut request = Request::new(pb::WhoAmIRequest::default());
        request.metadata_mut().insert("x-filler", "a".repeat(length).parse().unwrap());
        request
    };
    client.root_keys().who_am_i(with(15 << 10)).await.unwrap();
    assert!(client.root_keys().who_am_i(with(16 << 10)).await.is_err());
    client.root_keys().who_am_i(with(0)).await.unwrap();
}

#[test]
fn a_client_that_answers_no_ping_is_hung_up_on_and_one_that_does_is_not() {
    let place = Place::new();
    let server = place.serve(&[]);
    let (gone, mut there) = (connect(&server), connect(&server));
    let answered = std::thread::spawn(move || {
        let ping = next_of(&there, PING).expect("it is asked");
        there.write_all(&frame(PING, ACK, 0, &ping.payload)).unwrap();
        there
    });
    assert!(next_of(&gone, PING).is_some(), "it is asked");
    assert!(next_of(&gone, PING).is_none(), "and then hung up on");
    let there = answered.join().unwrap();
    there.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let nothing = (&there).read(&mut [0; 1]).unwrap_err();
    assert!(matches!(nothing.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{nothing}");
}

#[test]
fn a_client_that_answers_pings_but_takes_no_answer_is_hung_up_on() {
    let place = Place::new();
    let server = place.serve(&[]);
    let mut connection = connect(&server);
    // No room for any byte of an answer.
    connection.write_all(&frame(SETTINGS, 0, 0, &[0, INITIAL_WINDOW_SIZE, 0, 0, 0, 0])).unwrap();
    let bearer = format!("Bearer {}", place.first_root_key());
    let watch = call("/ostiary.v1.AuditLogService/WatchAuditEvents", 1, &bearer);
    connection.write_all(&[watch, frame(DATA, END_STREAM, 1, &NOTHING)].concat()).unwrap();
    let mut asked = 0;
    while let Some(next) = next(&connection) {
        assert_ne!(next.kind, DATA, "there is no room for it");
        if next.kind == PING && next.flags & ACK == 0 {
            asked += 1;
            connection.write_all(&frame(PING, ACK, 0, &next.payload)).unwrap();
        }
    }
    assert!(asked > 0, "that it is there was not the question");
}
