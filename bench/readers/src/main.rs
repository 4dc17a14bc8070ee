//! Messages that rsipstack reads in a second on one core. `sip-readers SECONDS FILE`, where FILE has a JSON array of
//! messages; prints JSON rows as `bench_parse` does.

mod rate;

use std::{error::Error, hint::black_box, time::Duration};

use rate::rate;
use rsipstack::sip::{HeadersExt, SipMessage, ToTypedHeader, error::Error as Fault};
use serde_json::json;

const ROUNDS: usize = 5;

type Work = (&'static str, fn(&Vec<u8>) -> bool);

const WORKS: [Work; 3] = [
    ("all headers", |octets| SipMessage::try_from(octets.as_slice()).map(black_box).is_ok()),
    ("and five typed headers", |octets| {
        SipMessage::try_from(octets.as_slice()).is_ok_and(|message| typed(&message).is_ok())
    }),
    ("and print", |octets| {
        SipMessage::try_from(octets.as_slice()).is_ok_and(|message| !black_box(message.to_string()).is_empty())
    }),
];

fn typed(message: &SipMessage) -> Result<(), Fault> {
    black_box(message.via_header()?.typed()?);
    black_box(message.from_header()?.typed()?);
    black_box(message.to_header()?.typed()?);
    black_box(message.cseq_header()?.typed()?);
    black_box(message.contact_header()?.typed()?);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [_, seconds, file] = std::env::args().collect::<Vec<_>>().try_into().map_err(|_| "SECONDS FILE")?;
    let messages: Vec<String> = serde_json::from_slice(&std::fs::read(file)?)?;
    let messages: Vec<_> = messages.into_iter().map(String::into_bytes).collect();
    let round = Duration::from_secs_f64(seconds.parse::<f64>()? / (ROUNDS * WORKS.len()) as f64);
    let mut rows = Vec::new();
    for (name, work) in WORKS {
        if !messages.iter().all(work) {
            return Err(format!("rsipstack does not read its messages ({name})").into());
        }
        let mut rates = (0..ROUNDS).map(|_| rate(&messages, work, round)).collect::<Result<Vec<_>, _>>()?;
        rates.sort_by(f64::total_cmp);
        rows.push(json!({
            "reader": "rsipstack", "work": name, "per_s": rates[ROUNDS / 2].round(), "best_per_s": rates[ROUNDS - 1],
        }));
    }
    println!("{}", json!({ "rows": rows }));
    Ok(())
}
