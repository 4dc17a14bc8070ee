//! One question to one name server: a datagram, repeated while nothing comes, and TCP if the answer does not fit.
//!
//! Each question has a connected socket of its own: the system picks its port at random, drops what comes from
//! elsewhere, and reports a closed port at once, where an unconnected socket would wait in vain.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout, timeout_at},
};

/// How long a datagram may remain unanswered until it is repeated.
const ATTEMPT: Duration = Duration::from_millis(500);
/// How often a datagram is sent: 1.5 s for a silent server, in which a recursive one with an empty cache has mostly
/// found the answer.
const ATTEMPTS: usize = 3;
/// How long a truncated answer may take over TCP.
const STREAM: Duration = Duration::from_millis(1_500);
/// The largest datagram that is asked for: what crosses nearly every path unfragmented (DNS flag day 2020).
const MAX_PAYLOAD: u16 = 1_232;
/// Room for datagrams of servers that do not care.
const BUFFER: usize = 4_096;

/// Why there is no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// Nothing came in time.
    Silent,
    /// The server cannot be reached, or its port is closed.
    Unreachable(io::Error),
    /// What came cannot be understood.
    Malformed(String),
}

/// Asks a server. The caller may give up earlier by dropping the future.
pub(super) async fn ask(server: SocketAddr, question: &Query) -> Result<Message, NoResponse> {
    let mut request = Message::query();
    request.metadata.recursion_desired = true;
    request.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_PAYLOAD);
    request.edns = Some(edns);
    let mut response = over_udp(server, &request).await?;
    if response.metadata.response_code == ResponseCode::FormErr && response.edns.is_none() {
        // A server that has never heard of EDNS (RFC 6891 §7).
        request.edns = None;
        response = over_udp(server, &request).await?;
    }
    if response.metadata.truncation { over_tcp(server, &request).await } else { Ok(response) }
}

async fn over_udp(server: SocketAddr, request: &Message) -> Result<Message, NoResponse> {
    let local = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let octets = encode(request)?;
    let socket = UdpSocket::bind(local).await.map_err(NoResponse::Unreachable)?;
    socket.connect(server).await.map_err(NoResponse::Unreachable)?;
    let mut buffer = vec![0; BUFFER];
    for _ in 0..ATTEMPTS {
        socket.send(&octets).await.map_err(NoResponse::Unreachable)?;
        let until = Instant::now() + ATTEMPT;
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let length = received.map_err(NoResponse::Unreachable)?;
            // Whatever answers another question may come from a forger who guesses; the true answer may follow.
            if let Some(response) = buffer.get(..length).and_then(|datagram| decode(request, datagram)) {
                return response;
            }
        }
    }
    Err(NoResponse::Silent)
}

async fn over_tcp(server: SocketAddr, request: &Message) -> Result<Message, NoResponse> {
    let octets = encode(request)?;
    let length = u16::try_from(octets.len()).map_err(|_| NoResponse::Malformed("the question is too long".into()))?;
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&[&length.to_be_bytes(), octets.as_slice()].concat()).await?;
        let mut buffer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut buffer).await?;
        Ok(buffer)
    };
    let received = timeout(STREAM, exchange).await.map_err(|_| NoResponse::Silent)?;
    let received = received.map_err(NoResponse::Unreachable)?;
    decode(request, &received)
        .unwrap_or_else(|| Err(NoResponse::Malformed("over TCP it answers something that was not asked".into())))
}

fn encode(request: &Message) -> Result<Vec<u8>, NoResponse> {
    request.to_vec().map_err(|cause| NoResponse::Malformed(format!("the question cannot be written: {cause}")))
}

/// The response in these octets; `None` if they are not one to this request.
fn decode(request: &Message, octets: &[u8]) -> Option<Result<Message, NoResponse>> {
    if octets.get(..2)? != request.metadata.id.to_be_bytes() {
        return None;
    }
    let response = match Message::from_vec(octets) {
        Ok(response) => response,
        Err(cause) => return Some(Err(NoResponse::Malformed(cause.to_string()))),
    };
    // Some servers leave the question out of an error.
    let about_it = match response.queries.as_slice() {
        [] => response.answers.is_empty() && response.metadata.response_code != ResponseCode::NoError,
        [question] => request.queries.first().is_some_and(|asked| same(asked, question)),
        _ => false,
    };
    let fits = response.metadata.message_type == MessageType::Response
        && response.metadata.op_code == OpCode::Query
        && about_it;
    fits.then_some(Ok(response))
}

fn same(a: &Query, b: &Query) -> bool {
    a.query_type() == b.query_type()
        && a.query_class() == b.query_class()
        && a.name().to_lowercase() == b.name().to_lowercase()
}
