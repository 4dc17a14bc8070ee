//! How many SIP messages a second one core reads, as a JSON line: our reader beside rsip.
//!
//! `cargo run --release --example bench_parse [-- SECONDS [FILE]]`, or `bench/parse`, which prints it as a table, with
//! rsipstack. The messages are written to FILE as a JSON array, for other readers. There are 64 INVITEs with SDP of about 777 octets that differ in every identifier. Seconds are those of the CPU, and the readers take
//! turns, so that what else runs on the machine matters little and hits all of them; of the rounds the median counts.

#[path = "../bench/readers/src/rate.rs"]
mod rate;

use std::{hint::black_box, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use p2psip::sip::{Message, edit::Edit, header::Name};
use rate::rate;
use rsip::{
    headers::ToTypedHeader as _,
    message::{HeadersExt as _, SipMessage},
};
use serde_json::json;

const MESSAGES: usize = 64;
const ROUNDS: usize = 15;

/// What is measured: its reader, its name, and the work on one message, which is false if that could not be done.
type Work = (&'static str, &'static str, fn(&Bytes) -> bool);

const WORKS: [Work; 7] = [
    ("p2psip", "header index", |octets| Message::parse(octets.clone()).map(black_box).is_ok()),
    ("p2psip", "and five typed headers", |octets| Message::parse(octets.clone()).is_ok_and(|message| typed(&message))),
    ("p2psip", "and check for a proxy", |octets| {
        Message::parse(octets.clone()).is_ok_and(|message| black_box(&message).check().is_ok())
    }),
    ("p2psip", "and forward: Via, Max-Forwards, Record-Route", |octets| {
        Message::parse(octets.clone()).is_ok_and(|message| {
            let mut edit = Edit::new(black_box(&message));
            edit.set(Name::MaxForwards, "69");
            edit.prepend(Name::RecordRoute, "<sip:p2psip.org;lr>");
            edit.prepend(Name::Via, "SIP/2.0/UDP 192.0.2.53:5060;branch=z9hG4bK7f3a9c5511e0");
            !black_box(edit.finish()).is_empty()
        })
    }),
    ("rsip", "all headers", |octets| SipMessage::try_from(octets.as_ref()).map(black_box).is_ok()),
    ("rsip", "and five typed headers", |octets| {
        SipMessage::try_from(octets.as_ref()).is_ok_and(|message| rsip_typed(&message).is_ok())
    }),
    ("rsip", "and print", |octets| {
        SipMessage::try_from(octets.as_ref()).is_ok_and(|message| !black_box(Bytes::from(message)).is_empty())
    }),
];

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(10.0), |text| text.parse::<f64>())?;
    let messages = (0..MESSAGES).map(message).collect::<Vec<_>>();
    if let Some(file) = std::env::args().nth(2) {
        let texts = messages.iter().map(|octets| std::str::from_utf8(octets)).collect::<Result<Vec<_>, _>>()?;
        std::fs::write(&file, json!(texts).to_string()).with_context(|| format!("cannot write {file}"))?;
    }
    let octets = messages.iter().map(Bytes::len).sum::<usize>() / MESSAGES;
    for (reader, name, work) in WORKS {
        ensure!(messages.iter().all(work), "{reader} does not read its messages ({name})");
    }
    let round = Duration::from_secs_f64(seconds / (ROUNDS * WORKS.len()) as f64);
    let mut rates = vec![Vec::with_capacity(ROUNDS); WORKS.len()];
    for _ in 0..ROUNDS {
        for ((_, _, work), rates) in WORKS.iter().zip(&mut rates) {
            rates.push(rate(&messages, *work, round)?);
        }
    }
    let mut rows = Vec::new();
    for ((reader, name, _), mut rates) in WORKS.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2).context("no round was measured")?;
        rows.push(json!({ "reader": reader, "work": name, "per_s": median.round(), "best_per_s": rates.last() }));
    }
    let result = json!({ "messages": MESSAGES, "octets": octets, "rows": rows });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

/// What a transaction is matched by, and who talks to whom.
fn typed(message: &Message) -> bool {
    black_box(message.top_via()).is_ok()
        & black_box(message.from()).is_ok()
        & black_box(message.to()).is_ok()
        & black_box(message.cseq()).is_ok()
        & black_box(message.contacts().next()).is_some_and(|contact| contact.is_ok())
}

fn rsip_typed(message: &SipMessage) -> Result<(), rsip::Error> {
    black_box(message.via_header()?.typed()?);
    black_box(message.from_header()?.typed()?);
    black_box(message.to_header()?.typed()?);
    black_box(message.cseq_header()?.typed()?);
    black_box(message.contact_header()?.typed()?);
    Ok(())
}

/// One of the messages; no two share an identifier.
fn message(number: usize) -> Bytes {
    let id = number * 2_654_435_761 % 1_000_000_007 + 1_000_000_000;
    let sdp = format!(
        "v=0\r\no=alice {id} {id} IN IP4 192.0.2.{number}\r\ns=-\r\nc=IN IP4 192.0.2.{number}\r\nt=0 0\r\n\
         m=audio {} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
        40_000 + 2 * number
    );
    let head = format!(
        "INVITE sip:bob{number}@example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.{number}:5060;branch=z9hG4bK{id:x};rport\r\n\
         Max-Forwards: 70\r\n\
         From: \"Alice {number}\" <sip:alice{number}@p2psip.org>;tag={id}\r\n\
         To: <sip:bob{number}@example.com>\r\n\
         Call-ID: {id:x}-{number}@192.0.2.{number}\r\n\
         CSeq: {} INVITE\r\n\
         Contact: <sip:alice{number}@192.0.2.{number}:5060;transport=udp>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
         Supported: replaces, timer\r\n\
         User-Agent: bench/{number} (as long as most are)\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         Min-SE: 90\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n",
        number + 1,
        sdp.len()
    );
    Bytes::from(head + &sdp)
}
