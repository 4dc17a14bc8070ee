//! Datagrams that did not arrive, as ICMP says (RFC 3261 §18.4).
//!
//! On Linux a socket keeps such errors in a queue of its own, each with the beginning of the datagram that it is about
//! (ip(7), `IP_RECVERR`). Elsewhere nothing is heard of them, and a target where nobody listens is a silent one.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;

use super::{Hop, Protocol, SendError};

/// A datagram of ours that did not arrive. Anybody can forge the ICMP message that says so; that its sender has seen the
/// datagram shows in what it quotes, if that is as long as to hold something unguessable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Where it was to go.
    pub remote: SocketAddr,
    /// Why it did not arrive, and what to do.
    pub why: &'static str,
    /// How it begins: all of it, or as much as was quoted, which may be nothing.
    pub quoted: Bytes,
}

impl Undelivered {
    /// The same as the error that it would be if it were known when the datagram is sent.
    pub fn error(&self) -> SendError {
        let hop = Box::new(Hop::socket(Protocol::Udp, self.remote));
        SendError::Unreachable { hop, why: self.why.to_owned() }
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{listen, next};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io::{self, IoSliceMut},
        net::{SocketAddr, UdpSocket},
        os::fd::AsRawFd as _,
    };

    use bytes::Bytes;
    use nix::{
        libc::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, sock_extended_err, sockaddr_in6},
        sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
    };

    use super::Undelivered;
    use crate::sip::transport::unmapped;

    /// What is read of a quoted datagram: as much as ICMP quotes of one over IPv4 (RFC 1812 §4.3.2.3).
    const QUOTED: usize = 576;

    const NOBODY: &str = "nobody listens there; check the port, and whether its server runs";
    const FORBIDDEN: &str = "a firewall forbids it; ask whoever runs it to let SIP pass";
    const UNREACHABLE: &str = "the host cannot be reached; check its address, and the way there";

    /// Has the socket keep such errors, or forget them and keep none. A socket for both families has those of both.
    pub(in super::super) fn listen(socket: &UdpSocket, ipv6: bool, whether: bool) -> io::Result<()> {
        if ipv6 {
            setsockopt(socket, sockopt::Ipv6RecvErr, &whether)?;
        }
        Ok(setsockopt(socket, sockopt::Ipv4RecvErr, &whether)?)
    }

    /// Takes the next error from the socket's queue; `None` if it says nothing of a datagram that is lost.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    pub(in super::super) fn next(socket: &UdpSocket) -> io::Result<Option<Undelivered>> {
        let mut quoted = [0; QUOTED];
        let mut control = nix::cmsg_space!(sock_extended_err, sockaddr_in6);
        let (length, remote, why) = {
            let parts = &mut [IoSliceMut::new(&mut quoted)];
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let error = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), parts, Some(&mut control), flags)?;
            let why = error.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                    reason(&error)
                }
                _ => None,
            });
            (error.bytes, error.address.as_ref().and_then(address), why)
        };
        let (Some(remote), Some(why)) = (remote, why) else { return Ok(None) };
        let quoted = Bytes::copy_from_slice(quoted.get(..length).unwrap_or_default());
        Ok(Some(Undelivered { remote, why, quoted }))
    }

    fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
        let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port()));
        v4.or_else(v6).map(unmapped)
    }

    /// Why the datagram is lost. Not that it was too long, which the kernel takes note of, nor that it was under way for
    /// too long, nor a source quench (RFC 3261 §18.4).
    fn reason(error: &sock_extended_err) -> Option<&'static str> {
        Some(match (error.ee_origin, error.ee_type, error.ee_code) {
            // RFC 792, RFC 1812 §5.2.7.1.
            (SO_EE_ORIGIN_ICMP, 3, 4) => return None,
            (SO_EE_ORIGIN_ICMP, 3, 2) => "it does not speak UDP; try another transport",
            (SO_EE_ORIGIN_ICMP, 3, 3) => NOBODY,
            (SO_EE_ORIGIN_ICMP, 3, 9 | 10 | 13) => FORBIDDEN,
            (SO_EE_ORIGIN_ICMP, 3, _) => UNREACHABLE,
            // RFC 4443 §3.1.
            (SO_EE_ORIGIN_ICMP6, 1, 4) => NOBODY,
            (SO_EE_ORIGIN_ICMP6, 1, 1 | 5 | 6) => FORBIDDEN,
            (SO_EE_ORIGIN_ICMP6, 1, _) => UNREACHABLE,
            (SO_EE_ORIGIN_ICMP, 12, _) | (SO_EE_ORIGIN_ICMP6, 4, _) => "it is refused on the way",
            _ => return None,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_does_not_mean_that_the_datagram_is_lost_is_ignored() {
            let said = |origin, kind, code| {
                let (ee_origin, ee_type, ee_code) = (origin, kind, code);
                reason(&sock_extended_err {
                    ee_errno: 0,
                    ee_origin,
                    ee_type,
                    ee_code,
                    ee_pad: 0,
                    ee_info: 0,
                    ee_data: 0,
                })
            };
            let (v4, v6, local) = (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, 1);
            for (origin, kind, code) in [(v4, 3, 4), (v4, 4, 0), (v4, 11, 0), (v6, 2, 0), (v6, 3, 0), (local, 3, 3)] {
                assert_eq!(said(origin, kind, code), None, "{origin} {kind} {code}");
            }
            assert_eq!(said(v4, 3, 3), said(v6, 1, 4));
            for (origin, kind, code) in [(v4, 3, 0), (v4, 3, 1), (v4, 3, 13), (v4, 12, 0), (v6, 1, 0), (v6, 4, 1)] {
                assert!(said(origin, kind, code).is_some(), "{origin} {kind} {code}");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn listen(_: &std::net::UdpSocket, _: bool, _: bool) -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn next(_: &std::net::UdpSocket) -> std::io::Result<Option<Undelivered>> {
    Err(std::io::ErrorKind::WouldBlock.into())
}
