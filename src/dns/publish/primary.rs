//! Questions and updates to the primary name server of a zone: over UDP, and over TCP where a datagram is too small or stays unanswered.
//!
//! hickory's clients send a request again when no response comes. For an update that is wrong: the one whose response
//! was lost has been made, and the second then fails on its own prerequisites. Here nothing is repeated behind the
//! caller's back. And nothing is cached: what is read is what the server has now.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout_at,
};

use super::PublishError;
use crate::{
    clock::UnixMs,
    dns::{
        invalid,
        tsig::{Signed, TsigKey},
        update::{Judgement, judge},
    },
};

/// The largest datagram that crosses the internet in one piece (DNS flag day 2020).
const DATAGRAM: u16 = 1232;
/// How long the response to a datagram is waited for, first and then.
const PATIENCE: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(800)];
/// How long the response to an update is waited for over UDP. A server may write its journal first.
const UPDATE_PATIENCE: Duration = Duration::from_secs(1);

/// One name server, for as long as `deadline` allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    pub(super) server: SocketAddr,
    pub(super) deadline: Instant,
}

/// What came of sending an update once.
#[derive(Debug)]
pub(super) enum Sent {
    /// The server has answered.
    Answered(Judgement),
    /// Nobody knows whether the update was made: there was no answer that counts. The words say why.
    Unknown(String),
}

impl Exchange {
    /// Asks one question of class IN. A response with an error code is a response.
    ///
    /// # Errors
    /// [`PublishError::NoServer`].
    pub(super) async fn ask(
        &self,
        name: &Name,
        record_type: RecordType,
        recursive: bool,
    ) -> Result<Message, PublishError> {
        let id = random_id()?;
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = recursive;
        let mut question = Query::query(name.clone(), record_type);
        question.set_query_class(DNSClass::IN);
        message.add_query(question.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        message.set_edns(edns);
        let octets = message.to_vec().map_err(|_| invalid(&name.to_ascii(), "the question does not fit a message"))?;

        let accept = |octets: &[u8]| {
            let reply = Message::from_vec(octets).ok()?;
            let is_answer = reply.metadata.id == id
                && reply.metadata.message_type == MessageType::Response
                && reply.metadata.op_code == OpCode::Query
                // A server that does not understand EDNS, or the question, need not repeat it.
                && (reply.queries.first() == Some(&question)
                    || (reply.queries.is_empty() && reply.metadata.response_code != ResponseCode::NoError));
            is_answer.then_some(reply)
        };
        for patience in PATIENCE {
            match self.over_udp(&octets, patience, accept).await {
                Ok(Some(reply)) if !reply.metadata.truncation => return Ok(reply),
                Ok(Some(_)) => break,
                Ok(None) if Instant::now() < self.deadline => {}
                Ok(None) => return Err(self.silent()),
                // TCP is tried as well: there are servers that have nothing else.
                Err(_) => break,
            }
        }
        let reply = self.over_tcp(&octets).await.map_err(|cause| self.no_server(cause.to_string()))?;
        accept(&reply).ok_or_else(|| self.no_server("its answer makes no sense".to_owned()))
    }

    /// Sends an update once: over UDP if it fits a datagram and `udp` says so, else over TCP.
    pub(super) async fn send(&self, update: &Signed, key: &TsigKey, udp: bool) -> Sent {
        let mut ignored = "it did not answer";
        let mut accept = |octets: &[u8]| match judge(octets, update, key, UnixMs::now().0 / 1000) {
            Judgement::Ignore(why) => {
                ignored = why;
                None
            }
            judged => Some(judged),
        };
        if udp && update.octets.len() <= usize::from(DATAGRAM) {
            return match self.over_udp(&update.octets, UPDATE_PATIENCE, &mut accept).await {
                Ok(Some(judged)) => Sent::Answered(judged),
                Ok(None) => Sent::Unknown(ignored.to_owned()),
                Err(cause) => Sent::Unknown(cause.to_string()),
            };
        }
        match self.over_tcp(&update.octets).await.map(|reply| accept(&reply)) {
            Ok(Some(judged)) => Sent::Answered(judged),
            Ok(None) => Sent::Unknown(ignored.to_owned()),
            Err(cause) => Sent::Unknown(cause.to_string()),
        }
    }

    /// Sends a datagram and waits for the first one back that `accept` takes. The socket is connected: a closed port
    /// shows at once, and nobody but the server is heard.
    async fn over_udp<T>(
        &self,
        octets: &[u8],
        patience: Duration,
        mut accept: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let until = self.deadline.min(Instant::now() + patience);
        let socket = match self.server {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?,
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?,
        };
        socket.connect(self.server).await?;
        socket.send(octets).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        while let Ok(received) = timeout_at(until.into(), socket.recv(&mut buffer)).await {
            let accepted = buffer.get(..received?).and_then(&mut accept);
            if accepted.is_some() {
                return Ok(accepted);
            }
        }
        Ok(None)
    }

    /// Sends a message over a connection of its own and reads one back.
    async fn over_tcp(&self, octets: &[u8]) -> io::Result<Vec<u8>> {
        let exchange = async {
            let length = u16::try_from(octets.len()).map_err(|_| io::Error::other("the message is too long"))?;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(octets);
            let mut stream = TcpStream::connect(self.server).await?;
            stream.write_all(&framed).await?;
            let mut reply = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut reply).await?;
            Ok(reply)
        };
        match timeout_at(self.deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time")),
        }
    }

    fn silent(&self) -> PublishError {
        self.no_server("it did not answer in time".to_owned())
    }

    /// That the server cannot be asked.
    pub(super) const fn no_server(&self, why: String) -> PublishError {
        PublishError::NoServer { server: self.server, why }
    }
}

/// The id of a message, which somebody who does not see it must not guess.
pub(super) fn random_id() -> Result<u16, PublishError> {
    let mut octets = [0; 2];
    getrandom::fill(&mut octets).map_err(|_| PublishError::NoEntropy)?;
    Ok(u16::from_be_bytes(octets))
}
