//! Reads standard input line by line, for tools that take one thing a line.

use std::io::{self, BufRead};

use anyhow::anyhow;
use tokio::sync::mpsc;

use super::{io::Io, output::error::Failure};
use crate::kind::Kind;

/// The longest line, in bytes; a URI has at most 512.
const MAX_LINE: u64 = 4_096;
/// Lines read ahead of the work.
const READ_AHEAD: usize = 16;

/// Takes the tool's standard input and reads it in a thread of its own, because a read cannot be interrupted. Empty
/// lines and comments are skipped.
pub(super) fn read(io: &mut Io<'_>) -> mpsc::Receiver<Result<String, Failure>> {
    let mut stdin = std::mem::replace(&mut io.stdin, Box::new(io::empty()));
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        while let Some(line) = next(&mut *stdin) {
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// The next line that says something; nothing sensible can follow an error.
fn next(stdin: &mut (dyn BufRead + Send)) -> Option<Result<String, Failure>> {
    loop {
        let mut line = Vec::new();
        match io::Read::take(&mut *stdin, MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(read) if read as u64 == MAX_LINE && !line.ends_with(b"\n") => {
                let why = anyhow!("standard input has a line longer than {MAX_LINE} bytes; write one item a line");
                return Some(Err(Failure::new(Kind::Usage, why)));
            }
            Ok(_) => match String::from_utf8_lossy(&line).trim() {
                "" => {}
                text if text.starts_with('#') => {}
                text => return Some(Ok(text.to_owned())),
            },
            Err(error) => {
                return Some(Err(Failure::new(Kind::Local, error).context("cannot read standard input")));
            }
        }
    }
}
