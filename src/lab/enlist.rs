//! Registers a phone with its domain, as phones do: REGISTER, challenge, REGISTER with credentials.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::UdpSocket;

use crate::sip::{
    Message, Method,
    compose::Request,
    digest::{Asker, Keyring, Protected, User},
    header::Name,
};

/// How long one response may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any response of a registrar has.
const MAX_DATAGRAM: usize = 4_096;

/// Binds `sip:USER@DOMAIN` to `contact` for an hour.
///
/// # Errors
/// What the network says, or that the registrar refuses.
pub(super) async fn enlist(server: SocketAddr, domain: &str, user: User, contact: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((server.ip(), 0)).await?;
    socket.connect(server).await?;
    let own = socket.local_addr()?;
    let (aor, registrar) = (format!("sip:{}@{domain}", user.name), format!("sip:{domain}"));
    let [call_id, tag, cnonce] = [0; 3].map(|_| format!("{:016x}", getrandom::u64().unwrap_or_default()));
    let mut keyring = Keyring::new(user);
    let mut buffer = vec![0; MAX_DATAGRAM];
    for cseq in 1..=2 {
        let mut request = Request::new(Method::Register, &registrar)
            .map_err(io::Error::other)?
            .header(Name::Via, &format!("SIP/2.0/UDP {own};branch=z9hG4bK{tag}{cseq};rport"))
            .header(Name::MaxForwards, "70")
            .header(Name::From, &format!("<{aor}>;tag={tag}"))
            .header(Name::To, &format!("<{aor}>"))
            .header(Name::CallId, &call_id)
            .header(Name::CSeq, &format!("{cseq} REGISTER"))
            .header(Name::Contact, &format!("<{contact}>"));
        let protected = Protected { method: "REGISTER", uri: &registrar, body: b"" };
        for (_, value) in keyring.credentials(&protected) {
            request = request.header(Name::Authorization, &value);
        }
        socket.send(request.finish().map_err(io::Error::other)?.bytes()).await?;
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.map_err(io::Error::other)??;
        let response = buffer.get(..length).unwrap_or_default().to_vec();
        let response = Message::parse(response.into()).map_err(io::Error::other)?;
        match response.status() {
            Some(200) => return Ok(()),
            Some(401) if cseq == 1 => {
                let challenges = response.values(Name::WwwAuthenticate);
                keyring.challenged(Asker::Server, challenges, &cnonce).map_err(io::Error::other)?;
            }
            status => return Err(io::Error::other(format!("{domain} answers {}", status.unwrap_or_default()))),
        }
    }
    Err(io::Error::other(format!("{domain} does not know the password")))
}
