//! Session descriptions (RFC 8866) and the offer/answer exchange (RFC 3264) of a test call: one audio line, PCMU.
//!
//! No media is sent or received yet, and the descriptions say so: whoever has no RTP socket describes the line as
//! `inactive` at the discard port 9, which is an ordinary, valid session of which nobody expects to hear anything.

use std::net::{IpAddr, Ipv4Addr};

use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};

/// G.711 µ-law at 8 kHz (RFC 3551 §6), which everybody speaks.
const PCMU: &str = "0";
/// The port of a media line that leads nowhere (RFC 863).
const DISCARD: u16 = 9;
/// Media lines answered.
const MAX_LINES: usize = 32;

/// Which way media flows, seen from who describes it (RFC 3264 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendReceive,
    /// To the other side only.
    SendOnly,
    /// From the other side only.
    ReceiveOnly,
    /// Not at all.
    Inactive,
}

impl Direction {
    const ALL: [Self; 4] = [Self::SendReceive, Self::SendOnly, Self::ReceiveOnly, Self::Inactive];

    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendReceive => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::ReceiveOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    const fn sends(self) -> bool {
        matches!(self, Self::SendReceive | Self::SendOnly)
    }

    const fn receives(self) -> bool {
        matches!(self, Self::SendReceive | Self::ReceiveOnly)
    }

    /// What is left of this side's wish, given the other side's (RFC 3264 §6.1).
    #[must_use]
    pub const fn against(self, other: Self) -> Self {
        match (self.sends() && other.receives(), self.receives() && other.sends()) {
            (true, true) => Self::SendReceive,
            (true, false) => Self::SendOnly,
            (false, true) => Self::ReceiveOnly,
            (false, false) => Self::Inactive,
        }
    }
}

/// This side of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Names the session among all of this host's (RFC 8866 §5.2); numeric.
    pub session: u64,
    /// Goes up by one when the description changes, and only then (RFC 3264 §8).
    pub version: u64,
    /// Where RTP is received.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Which way media is wanted.
    pub direction: Direction,
}

impl Local {
    /// A session without media.
    pub const fn without_media(session: u64) -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { session, version: 1, address, port: DISCARD, direction: Direction::Inactive }
    }
}

/// The audio line of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audio {
    /// Where its author receives RTP.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Which way its author wants media.
    pub direction: Direction,
}

/// Why a description is no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Not a session description.
    #[error("the session description cannot be read: {0}")]
    Malformed(String),
    /// More media lines than are looked at.
    #[error("the session description has more than {MAX_LINES} media lines")]
    TooMany,
    /// No audio line with PCMU that is switched on.
    #[error("the session description has no audio line with PCMU over RTP/AVP")]
    NoCommonCodec,
    /// An audio line without a usable address.
    #[error("the session description has no address for its audio line")]
    NoAddress,
    /// It cannot be written, which takes a fault of the library.
    #[error("the session description cannot be written: {0}")]
    Unwritable(String),
}

/// An offer of one audio line.
///
/// # Errors
/// [`SdpError::Unwritable`].
pub fn offer(local: &Local) -> Result<Vec<u8>, SdpError> {
    let mut session = session(local);
    session.medias.push(audio(local, local.direction));
    written(&session)
}

/// The answer to an offer: its first audio line with PCMU is taken, all others are refused (RFC 3264 §6).
///
/// # Errors
/// [`SdpError`]: an offer that cannot be read (answer the request with 400) or has nothing in common (488).
pub fn answer(offer: &[u8], local: &Local) -> Result<Vec<u8>, SdpError> {
    let offer = parsed(offer)?;
    let taken = offer.medias.iter().position(is_usable).ok_or(SdpError::NoCommonCodec)?;
    let mut session = session(local);
    for (nth, line) in offer.medias.iter().enumerate() {
        session.medias.push(if nth == taken {
            audio(local, local.direction.against(direction(line, &offer)))
        } else {
            Media { port: 0, num_ports: None, attributes: Vec::new(), connections: Vec::new(), ..line.clone() }
        });
    }
    written(&session)
}

/// The first audio line with PCMU of a description.
///
/// # Errors
/// [`SdpError`].
pub fn read(description: &[u8]) -> Result<Audio, SdpError> {
    let session = parsed(description)?;
    let line = session.medias.iter().find(|line| is_usable(line)).ok_or(SdpError::NoCommonCodec)?;
    let connection = line.connections.first().or(session.connection.as_ref()).ok_or(SdpError::NoAddress)?;
    let address = connection.try_address().map_err(|_| SdpError::NoAddress)?.ip;
    Ok(Audio { address, port: line.port, direction: direction(line, &session) })
}

fn parsed(description: &[u8]) -> Result<Session, SdpError> {
    let session = Session::parse(description).map_err(|error| SdpError::Malformed(error.to_string()))?;
    if session.medias.len() > MAX_LINES { Err(SdpError::TooMany) } else { Ok(session) }
}

fn is_usable(line: &Media) -> bool {
    line.media == "audio"
        && line.port != 0
        && line.proto == "RTP/AVP"
        && line.fmt.split_ascii_whitespace().any(|format| format == PCMU)
}

/// A line's own direction, else the session's, else both ways (RFC 8866 §6.7).
fn direction(line: &Media, session: &Session) -> Direction {
    let find = |attributes: &[Attribute]| {
        let named = |attribute: &Attribute| Direction::ALL.into_iter().find(|d| d.as_str() == attribute.attribute);
        attributes.iter().find_map(named)
    };
    find(&line.attributes).or_else(|| find(&session.attributes)).unwrap_or(Direction::SendReceive)
}

fn session(local: &Local) -> Session {
    let origin = Origin::with_ip_addr(local.session, local.version, local.address);
    let mut session = Session::new(origin, "-");
    session.connection = Some(Connection::from_ip_addr(local.address));
    session.times.push(Time { start_time: 0, stop_time: 0, repeats: Vec::new() });
    session
}

fn audio(local: &Local, direction: Direction) -> Media {
    let mut line = Media::new(sdp_types::MediaType::Audio, local.port, sdp_types::TransportProto::RtpAvp, PCMU);
    line.attributes.push(Attribute::with_value("rtpmap", "0 PCMU/8000"));
    line.attributes.push(Attribute::new(direction.as_str()));
    line
}

fn written(session: &Session) -> Result<Vec<u8>, SdpError> {
    let mut bytes = Vec::new();
    session.write(&mut bytes).map_err(|error| SdpError::Unwritable(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local() -> Local {
        let address = "192.0.2.7".parse().unwrap();
        Local { session: 42, version: 1, address, port: 40_000, direction: Direction::SendReceive }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_offer_is_one_audio_line() {
        assert_eq!(
            text(offer(&local()).unwrap()),
            "v=0\r\no=- 42 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n\
             m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
        );
        assert_eq!(
            read(&offer(&Local::without_media(1)).unwrap()).unwrap(),
            Audio { address: Ipv4Addr::UNSPECIFIED.into(), port: 9, direction: Direction::Inactive }
        );
    }

    #[test]
    fn an_answer_has_the_lines_of_the_offer_and_refuses_all_but_one() {
        let offer = b"v=0\r\no=bob 1 1 IN IP6 2001:db8::1\r\ns=phone\r\nt=0 0\r\na=sendonly\r\n\
            m=video 5000 RTP/AVP 96\r\nc=IN IP6 2001:db8::1\r\na=rtpmap:96 VP8/90000\r\n\
            m=audio 0 RTP/AVP 0\r\nm=audio 5004 RTP/AVP 8 0 101\r\nc=IN IP6 2001:db8::2\r\n\
            m=audio 5006 RTP/AVP 0\r\n";
        assert_eq!(
            read(offer).unwrap(),
            Audio { address: "2001:db8::2".parse().unwrap(), port: 5004, direction: Direction::SendOnly }
        );
        let answer = text(answer(offer, &local()).unwrap());
        let lines = answer.lines().filter(|line| line.starts_with("m=")).collect::<Vec<_>>();
        assert_eq!(
            lines,
            ["m=video 0 RTP/AVP 96", "m=audio 0 RTP/AVP 0", "m=audio 40000 RTP/AVP 0", "m=audio 0 RTP/AVP 0"]
        );
        assert!(answer.contains("a=recvonly"), "{answer}");
    }

    #[test]
    fn nothing_in_common_is_said() {
        let offer = |line: &str| format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n{line}").into_bytes();
        for line in ["", "m=audio 5004 RTP/AVP 8\r\n", "m=audio 5004 RTP/SAVP 0\r\n", "m=audio 0 RTP/AVP 0\r\n"] {
            assert_eq!(answer(&offer(line), &local()), Err(SdpError::NoCommonCodec), "{line}");
        }
        assert_eq!(read(&offer("m=audio 5004 RTP/AVP 0\r\n")), Err(SdpError::NoAddress));
        assert!(matches!(answer(b"nonsense", &local()), Err(SdpError::Malformed(_))));
        assert_eq!(answer(&offer(&"m=audio 0 RTP/AVP 0\r\n".repeat(40)), &local()), Err(SdpError::TooMany));
    }

    #[test]
    fn directions_meet_as_rfc_3264_says() {
        use Direction::{Inactive, ReceiveOnly, SendOnly, SendReceive};
        assert_eq!(SendReceive.against(SendReceive), SendReceive);
        assert_eq!(SendReceive.against(SendOnly), ReceiveOnly);
        assert_eq!(SendReceive.against(ReceiveOnly), SendOnly);
        assert_eq!(SendOnly.against(SendOnly), Inactive);
        assert_eq!(Inactive.against(SendReceive), Inactive);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), line in "[vosctma]=\\PC{0,60}") {
            let _ = read(&bytes);
            let _ = answer(format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nt=0 0\r\n{line}\r\n").as_bytes(), &local());
        }
    }
}
