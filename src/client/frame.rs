//! The frames of the client protocol: requests and responses as they go over a stream or a socket.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::kind::Kind;

/// The version of the frames this library speaks.
pub const VERSION: u8 = 1;

/// The longest frame taken from anybody, in octets. Sixteen times the largest dictionary a storer keeps.
pub const MAX_FRAME: usize = 1 << 20;

/// The longest request, in octets: twice the largest record that an overlay may allow. Any peer can begin a hundred of
/// them at a time.
pub const MAX_REQUEST: usize = 1 << 17;

/// What few frames are longer than, in octets: the memory for one need not be found several times.
const USUAL: usize = 4096;

/// A typed request: its service name and the type of its answer.
pub trait Call: Serialize + DeserializeOwned {
    /// The name that selects the handler at the member.
    const SERVICE: &'static str;
    /// What the handler answers.
    type Reply: Serialize + DeserializeOwned;
}

/// A request on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// [`VERSION`].
    #[serde(rename = "v")]
    pub version: u8,
    /// Which handler is asked.
    #[serde(rename = "s")]
    pub service: String,
    /// The call, in CBOR.
    #[serde(rename = "b", with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// An answer on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseFrame {
    /// The handler's reply, in CBOR.
    #[serde(rename = "o")]
    Ok(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The request was not served.
    #[serde(rename = "e")]
    Error(ErrorReply),
}

/// Why a member did not serve a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ErrorReply {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The reason, for people. Untrusted text: escape it before it reaches a terminal.
    pub message: String,
}

/// The reasons for an [`ErrorReply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The frame or its body cannot be read.
    Malformed,
    /// The frame has a version this member does not speak.
    Version,
    /// No handler has this name here.
    UnknownService,
    /// This service is for the member's own user, over the unix socket.
    LocalOnly,
    /// The caller has used up its share for now.
    Throttled,
    /// The member is busy, draining or not joined.
    Unavailable,
}

impl ErrorReply {
    /// An error reply.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The kind of failure that this is to the caller.
    pub const fn kind(&self) -> Kind {
        match self.code {
            ErrorCode::LocalOnly => Kind::Usage,
            _ => Kind::Unreachable,
        }
    }
}

/// Why octets are not the frame or body they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not CBOR, or not of the expected shape.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        why: String,
    },
    /// A value that cannot be written.
    #[error("{what} cannot be encoded: {why}")]
    Unencodable {
        /// What was to be written.
        what: &'static str,
        /// What the encoder says.
        why: String,
    },
}

impl CodecError {
    /// What the other side sent cannot be used.
    pub const fn kind(&self) -> Kind {
        Kind::Unreachable
    }
}

impl RequestFrame {
    /// The frame that carries `call`.
    ///
    /// # Errors
    /// [`CodecError::Unencodable`].
    pub fn of<C: Call>(call: &C) -> Result<Self, CodecError> {
        Ok(Self { version: VERSION, service: C::SERVICE.to_owned(), body: encode(call, C::SERVICE)? })
    }

    /// The call that this frame carries, once [`RequestFrame::service`] has selected `C`.
    ///
    /// # Errors
    /// An [`ErrorReply`] ready to be sent back.
    pub fn call<C: Call>(&self) -> Result<C, ErrorReply> {
        decode(&self.body, C::SERVICE).map_err(|error| ErrorReply::new(ErrorCode::Malformed, error.to_string()))
    }
}

impl ResponseFrame {
    /// The frame that carries the reply to a `C`, or the reason why there is none.
    pub fn of<C: Call>(reply: Result<&C::Reply, ErrorReply>) -> Self {
        match reply.map(|reply| encode(reply, C::SERVICE)) {
            Ok(Ok(body)) => Self::Ok(body),
            Ok(Err(error)) => Self::Error(ErrorReply::new(ErrorCode::Unavailable, error.to_string())),
            Err(error) => Self::Error(error),
        }
    }

    /// The reply to a `C`.
    ///
    /// # Errors
    /// What the member answered instead; a body that cannot be read counts as [`ErrorCode::Malformed`].
    pub fn reply<C: Call>(self) -> Result<C::Reply, ErrorReply> {
        match self {
            Self::Ok(body) => {
                decode(&body, C::SERVICE).map_err(|error| ErrorReply::new(ErrorCode::Malformed, error.to_string()))
            }
            Self::Error(error) => Err(error),
        }
    }
}

/// A value in CBOR.
///
/// # Errors
/// [`CodecError::Unencodable`].
pub fn encode<T: Serialize>(value: &T, what: &'static str) -> Result<Vec<u8>, CodecError> {
    let mut octets = Vec::with_capacity(USUAL);
    ciborium::into_writer(value, &mut octets)
        .map_err(|error| CodecError::Unencodable { what, why: error.to_string() })?;
    Ok(octets)
}

/// Reads one CBOR value that takes up all of `octets`.
///
/// # Errors
/// [`CodecError::Malformed`].
pub fn decode<T: DeserializeOwned>(octets: &[u8], what: &'static str) -> Result<T, CodecError> {
    let malformed = |why: String| CodecError::Malformed { what, why };
    let mut rest = octets;
    let value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, 32).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(malformed(format!("{} bytes follow it", rest.len()))) }
}

/// A value as it goes onto the wire: its length as four octets, most significant first, then its CBOR.
///
/// # Errors
/// [`CodecError::Unencodable`], also for a value longer than [`MAX_FRAME`].
pub fn framed<T: Serialize>(value: &T, what: &'static str) -> Result<Vec<u8>, CodecError> {
    let unencodable = |why: String| CodecError::Unencodable { what, why };
    let mut octets = Vec::with_capacity(USUAL);
    octets.extend_from_slice(&[0; 4]);
    ciborium::into_writer(value, &mut octets).map_err(|error| unencodable(error.to_string()))?;
    let length = octets.len() - 4;
    if length > MAX_FRAME {
        return Err(unencodable(format!("it has {length} bytes, the limit is {MAX_FRAME}")));
    }
    let length = u32::try_from(length).map_err(|error| unencodable(error.to_string()))?;
    octets[..4].copy_from_slice(&length.to_be_bytes());
    Ok(octets)
}

/// The length that the first four octets of a frame announce, which may be `limit` octets long: [`MAX_REQUEST`] or
/// [`MAX_FRAME`].
///
/// # Errors
/// [`CodecError::Malformed`] above the limit.
pub fn frame_length(prefix: [u8; 4], limit: usize) -> Result<usize, CodecError> {
    let announced = u32::from_be_bytes(prefix);
    usize::try_from(announced).ok().filter(|length| *length <= limit).ok_or_else(|| CodecError::Malformed {
        what: "frame",
        why: format!("it announces {announced} bytes, the limit is {limit}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{client::Closest, name::Position};

    #[test]
    fn a_call_survives_the_wire() {
        let call = Closest { target: Position::of_name("sip:alice@p2psip.org"), count: 5 };
        let frame = RequestFrame::of(&call).unwrap();
        let wire = encode(&frame, "frame").unwrap();
        assert!(wire.len() < 100, "{}", wire.len());
        let back: RequestFrame = decode(&wire, "frame").unwrap();
        assert_eq!(back.service, "closest");
        assert_eq!(back.call::<Closest>().unwrap(), call);
    }

    #[test]
    fn what_follows_a_frame_is_an_error() {
        let mut wire = encode(&VERSION, "version").unwrap();
        wire.push(0);
        assert!(decode::<u8>(&wire, "version").unwrap_err().to_string().contains("1 bytes follow"));
    }

    #[test]
    fn a_frame_announces_its_length_and_no_more_than_the_limit() {
        let wire = framed(&VERSION, "version").unwrap();
        assert_eq!(frame_length([wire[0], wire[1], wire[2], wire[3]], MAX_FRAME).unwrap(), wire.len() - 4);
        assert!(frame_length([255; 4], MAX_FRAME).unwrap_err().to_string().contains("limit"));
        assert!(frame_length([0, 2, 0, 0], MAX_REQUEST).is_ok() && frame_length([0, 2, 0, 1], MAX_REQUEST).is_err());
        assert!(framed(&"x".repeat(MAX_FRAME), "text").is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<RequestFrame>(&octets, "frame");
            let _ = decode::<ResponseFrame>(&octets, "frame");
            let _ = decode::<Closest>(&octets, "closest");
        }
    }
}
