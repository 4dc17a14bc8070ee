//! What went over the wire, and its classic pcap form, which Wireshark, tshark and sngrep open.
//!
//! A capture holds SIP and nothing below it, so the headers of IP, UDP and TCP are made up to fit (with correct
//! checksums; no handshakes). The addresses are the real ones, with three exceptions that a reader should know:
//!
//! - An overlay stream has peers at its ends. Each is shown as the address `fd70:3270:7369:…`, whose last ten octets
//!   are the first ten of the peer's position, and the stream as TCP between their ports 5060.
//! - What TLS carried is shown as plain TCP, and its port 5061 as 5060, or a reader would look for TLS.
//! - Of two addresses of different families, the IPv4 one is shown as an IPv4-mapped IPv6 address.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::transport::{Protocol, Remote};
use crate::name::PeerId;

/// Packets begin with an IP header (LINKTYPE_RAW).
const LINKTYPE_RAW: u32 = 101;
/// No packet is longer.
const SNAPLEN: u32 = 65_535;
/// Octets of a message in one segment: what fits under any header.
const MAX_SEGMENT: usize = 65_000;
/// Connections whose sequence numbers are kept; beyond it they begin anew.
const MAX_CONNECTIONS: usize = 4_096;
/// The unique local prefix under which peers are shown (RFC 4193): "p2psi" as the global identifier.
const PEER_PREFIX: [u8; 6] = [0xfd, 0x70, 0x32, 0x70, 0x73, 0x69];
const SIP_PORT: u16 = Protocol::Udp.default_port();

/// One message as it was sent or received.
#[derive(Debug, Clone)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// What carried it.
    pub protocol: Protocol,
    /// The sender.
    pub from: Remote,
    /// The receiver.
    pub to: Remote,
    /// Whether it was sent from here.
    pub sent: bool,
    /// The message.
    pub bytes: Bytes,
}

/// The address under which a peer of the overlay is shown.
pub fn address_of(peer: &PeerId) -> Ipv6Addr {
    let mut octets = [0; 16];
    let (prefix, rest) = octets.split_at_mut(PEER_PREFIX.len());
    prefix.copy_from_slice(&PEER_PREFIX);
    rest.iter_mut().zip(peer.position().octets()).for_each(|(octet, position)| *octet = *position);
    octets.into()
}

/// Writes captured messages as a pcap file.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
    /// One moment by both clocks.
    anchor: (Instant, SystemTime),
    /// The next sequence number of each direction of a TCP connection.
    sequences: BTreeMap<(SocketAddr, SocketAddr), u32>,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file's header.
    ///
    /// # Errors
    /// What the file says.
    pub fn new(mut out: W, anchor: (Instant, SystemTime)) -> io::Result<Self> {
        out.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
        out.write_all(&2_u16.to_le_bytes())?;
        out.write_all(&4_u16.to_le_bytes())?;
        out.write_all(&[0; 8])?;
        out.write_all(&SNAPLEN.to_le_bytes())?;
        out.write_all(&LINKTYPE_RAW.to_le_bytes())?;
        Ok(Self { out, anchor, sequences: BTreeMap::new() })
    }

    /// Writes one message, in as many packets as it takes.
    ///
    /// # Errors
    /// What the file says.
    pub fn write(&mut self, message: &Captured) -> io::Result<()> {
        let (from, to) = endpoints(message);
        let at = self.since_epoch(message.at);
        for payload in message.bytes.chunks(MAX_SEGMENT) {
            let packet = match message.protocol {
                Protocol::Udp => udp_packet(from, to, payload),
                Protocol::Tcp | Protocol::Tls | Protocol::Overlay => self.tcp_packet(from, to, payload),
            };
            self.record(at, &packet)?;
        }
        self.out.flush()
    }

    fn since_epoch(&self, at: Instant) -> Duration {
        let (instant, time) = self.anchor;
        let anchor = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        match at.checked_duration_since(instant) {
            Some(later) => anchor.saturating_add(later),
            None => anchor.saturating_sub(instant.saturating_duration_since(at)),
        }
    }

    fn record(&mut self, at: Duration, packet: &[u8]) -> io::Result<()> {
        // The format's seconds end in 2106.
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        for word in [seconds, at.subsec_micros(), length, length] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(packet)
    }

    fn tcp_packet(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
        if self.sequences.len() >= MAX_CONNECTIONS {
            self.sequences.clear();
        }
        let acknowledged = self.sequences.get(&(to, from)).copied().unwrap_or(1);
        let next = self.sequences.entry((from, to)).or_insert(1);
        let mut header = Vec::with_capacity(20 + payload.len());
        header.extend(from.port().to_be_bytes());
        header.extend(to.port().to_be_bytes());
        header.extend(next.to_be_bytes());
        header.extend(acknowledged.to_be_bytes());
        // Five words of header; PSH and ACK; the whole window; no urgent data.
        header.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        *next = next.wrapping_add(u32::try_from(payload.len()).unwrap_or_default());
        header.extend(payload);
        ip_packet(from.ip(), to.ip(), 6, 16, header)
    }
}

fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(8 + payload.len());
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header.extend(u16::try_from(8 + payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend([0; 2]);
    header.extend(payload);
    ip_packet(from.ip(), to.ip(), 17, 6, header)
}

/// The datagram with an IP header before it, and its own checksum filled in at `checksum_at`.
fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, checksum_at: usize, mut datagram: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
    let mut pseudo = addresses(from, to);
    pseudo.extend([0, protocol]);
    pseudo.extend(length.to_be_bytes());
    let mut sum = checksum(&[&pseudo, &datagram]);
    if protocol == 17 && sum == 0 {
        // No checksum at all would be 0 (RFC 768).
        sum = 0xffff;
    }
    if let Some(field) = datagram.get_mut(checksum_at..checksum_at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = Vec::with_capacity(40 + datagram.len());
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            packet.extend([0x45, 0]);
            packet.extend(length.saturating_add(20).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(addresses(from, to));
            let sum = checksum(&[&packet]);
            if let Some(field) = packet.get_mut(10..12) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        _ => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(addresses(from, to));
        }
    }
    packet.extend(datagram);
    packet
}

fn addresses(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    [octets(from), octets(to)].concat()
}

/// The Internet checksum (RFC 1071) of parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    // 65,535 octets of 16-bit words cannot overflow 32 bits.
    let mut sum = words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Both ends as addresses of one family.
fn endpoints(message: &Captured) -> (SocketAddr, SocketAddr) {
    let shown = |remote: Remote| match remote {
        Remote::Peer(peer) => SocketAddr::from((address_of(&peer), SIP_PORT)),
        Remote::Socket(address) if message.protocol == Protocol::Tls && address.port() == 5061 => {
            SocketAddr::new(address.ip(), SIP_PORT)
        }
        Remote::Socket(address) => address,
    };
    let (from, to) = (shown(message.from), shown(message.to));
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    };
    (mapped(from), mapped(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(protocol: Protocol, from: Remote, to: Remote, bytes: &'static [u8]) -> Captured {
        Captured { at: Instant::now(), protocol, from, to, sent: true, bytes: Bytes::from_static(bytes) }
    }

    fn socket(text: &str) -> Remote {
        Remote::Socket(text.parse().unwrap())
    }

    /// The packets of a file, after its header has been checked.
    fn packets(messages: &[Captured]) -> Vec<Vec<u8>> {
        let mut file = Vec::new();
        let mut writer = PcapWriter::new(&mut file, (Instant::now(), SystemTime::now())).unwrap();
        for message in messages {
            writer.write(message).unwrap();
        }
        assert_eq!(file[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        let mut rest = &file[24..];
        let mut packets = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
            packets.push(rest[16..16 + length].to_vec());
            rest = &rest[16 + length..];
        }
        packets
    }

    /// A receiver adds up everything, checksums included, and finds all ones (RFC 1071 §1).
    fn is_intact(packet: &[u8]) -> bool {
        let (addresses, protocol, datagram) = match packet[0] >> 4 {
            4 => {
                assert_eq!(checksum(&[&packet[..20]]), 0, "the header of IPv4");
                assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
                (&packet[12..20], packet[9], &packet[20..])
            }
            _ => {
                assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), packet.len() - 40);
                (&packet[8..40], packet[6], &packet[40..])
            }
        };
        let length = u16::try_from(datagram.len()).unwrap().to_be_bytes();
        checksum(&[addresses, &[0, protocol], &length, datagram]) == 0
    }

    #[test]
    fn checksums_hold_for_every_transport_and_family() {
        let peer = |n| Remote::Peer(PeerId::from_public_key([n; 32]));
        let messages = [
            captured(Protocol::Udp, socket("192.0.2.1:5060"), socket("192.0.2.2:5070"), b"OPTIONS sip:a@b SIP/2.0\r\n"),
            captured(Protocol::Udp, socket("[2001:db8::1]:5060"), socket("[2001:db8::2]:5060"), b"odd"),
            captured(Protocol::Tcp, socket("192.0.2.1:4000"), socket("192.0.2.2:5060"), b"odd"),
            captured(Protocol::Tls, socket("[2001:db8::1]:4000"), socket("192.0.2.2:5061"), b"even"),
            captured(Protocol::Overlay, peer(1), peer(2), b"INVITE"),
        ];
        let packets = packets(&messages);
        assert_eq!(packets.len(), messages.len());
        assert!(packets.iter().all(|packet| is_intact(packet)));
        let mut broken = packets[0].clone();
        *broken.last_mut().unwrap() ^= 1;
        assert!(!is_intact(&broken), "the test can tell");
        assert_eq!(packets[3][40..44], [15, 160, 19, 196], "5061 is shown as 5060");
    }

    #[test]
    fn sequence_numbers_follow_both_directions() {
        let (a, b) = (socket("192.0.2.1:4000"), socket("192.0.2.2:5060"));
        let messages = [
            captured(Protocol::Tcp, a, b, b"12345"),
            captured(Protocol::Tcp, b, a, b"123"),
            captured(Protocol::Tcp, a, b, b"1"),
        ];
        let numbers = packets(&messages).into_iter().map(|packet| {
            let number = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            (number(24), number(28))
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [(1, 1), (1, 6), (6, 4)]);
    }

    #[test]
    fn a_peer_is_always_shown_at_the_same_address() {
        let (one, two) = (PeerId::from_public_key([1; 32]), PeerId::from_public_key([2; 32]));
        assert_eq!(address_of(&one), address_of(&one));
        assert_ne!(address_of(&one), address_of(&two));
        assert!(address_of(&one).to_string().starts_with("fd70:3270:7369:"));
    }

    #[test]
    fn a_long_message_takes_several_packets() {
        let long: &'static [u8] = &[b'x'; MAX_SEGMENT + 10];
        let packets = packets(&[captured(Protocol::Tcp, socket("192.0.2.1:1"), socket("192.0.2.2:2"), long)]);
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_SEGMENT + 40, 50]);
        assert!(packets.iter().all(|packet| is_intact(packet)));
    }
}
