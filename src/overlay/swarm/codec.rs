//! Frames of the client protocol on a libp2p stream: a length of four octets, then CBOR.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use serde::{Serialize, de::DeserializeOwned};

use crate::client::{self, MAX_FRAME, MAX_REQUEST, RequestFrame, ResponseFrame};

/// The codec of the client protocol. Stateless.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameCodec;

impl request_response::Codec for FrameCodec {
    type Protocol = StreamProtocol;
    type Request = RequestFrame;
    type Response = ResponseFrame;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<RequestFrame>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, MAX_REQUEST, "request").await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<ResponseFrame>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, MAX_FRAME, "response").await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: RequestFrame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &request, "request").await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: ResponseFrame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &response, "response").await
    }
}

async fn read<T, R>(io: &mut R, limit: usize, what: &'static str) -> io::Result<T>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = client::frame_length(length, limit).map_err(io::Error::other)?;
    // The buffer grows with what arrives, not with what the other side announces.
    let mut octets = Vec::with_capacity(length.min(4096));
    io.take(length as u64).read_to_end(&mut octets).await?;
    if octets.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    client::decode(&octets, what).map_err(io::Error::other)
}

async fn write<T: Serialize, W: AsyncWrite + Unpin>(io: &mut W, value: &T, what: &'static str) -> io::Result<()> {
    io.write_all(&client::framed(value, what).map_err(io::Error::other)?).await?;
    io.flush().await
}

const _: () = assert!(MAX_FRAME <= u32::MAX as usize);
