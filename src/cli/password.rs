//! Passwords: the first line of a file or of a file descriptor, or what a person types unseen. Never an argument, for
//! those are there for everybody on the machine to read.

use std::{
    fs::File,
    io::{Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, anyhow};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::output::error::{Failure, Stop};
use crate::kind::Kind;

/// The longest password, in octets.
const MAX_PASSWORD: usize = 1_024;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;

/// The first line of a file.
pub(super) fn of_file(path: &Path) -> Result<String, Failure> {
    let shown = path.display().to_string();
    first_line(File::open(path), "--password-file", &shown)
}

/// What to warn of if others may read the file.
pub(super) fn exposed(path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.permissions().mode() & 0o777;
    let exposed = mode & 0o077 != 0;
    exposed.then(|| format!("others may read {0} (mode {mode:04o}); run chmod 600 {0}", path.display()))
}

/// The first line of a file descriptor that this process was started with.
pub(super) fn of_descriptor(number: u16) -> Result<String, Failure> {
    let shown = format!("file descriptor {number}");
    first_line(File::open(format!("/dev/fd/{number}")), "--password-fd", &shown)
}

fn first_line(file: std::io::Result<File>, option: &str, shown: &str) -> Result<String, Failure> {
    let mut octets = Vec::new();
    file.and_then(|file| file.take(MAX_PASSWORD as u64 + 2).read_to_end(&mut octets))
        .map_err(|error| Failure::new(Kind::Usage, error).context(format!("{option}: cannot read {shown}")))?;
    let line = octets.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(line) if !line.is_empty() && line.len() <= MAX_PASSWORD => Ok(line.to_owned()),
        _ => Err(Failure::new(Kind::Usage, anyhow!("{option}: the first line of {shown} is no password"))),
    }
}

/// Asks the person at the terminal; nothing of what is typed is shown. `None` if it is nothing.
pub(super) fn ask(prompt: &str) -> Result<Option<String>, Stop> {
    let failed =
        |error: anyhow::Error| Stop::from(Failure::new(Kind::Local, error).context("cannot ask for a password"));
    let terminal = File::options().read(true).write(true).open("/dev/tty").context("/dev/tty");
    let unseen = Unseen::of(terminal.map_err(failed)?).map_err(|error| failed(error.into()))?;
    unseen.typed(prompt).map_err(|error| failed(error.into()))?.ok_or(Stop::Interrupted)
}

/// A terminal that shows nothing and sends no signals, until it is dropped.
struct Unseen {
    terminal: File,
    before: Termios,
}

impl Unseen {
    fn of(terminal: File) -> rustix::io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut now = before.clone();
        now.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &now)?;
        Ok(Self { terminal, before })
    }

    /// What is typed up to the end of the line; `None` if it was interrupted.
    fn typed(&self, prompt: &str) -> std::io::Result<Option<Option<String>>> {
        let mut terminal = &self.terminal;
        terminal.write_all(prompt.as_bytes())?;
        let (mut line, mut typed) = (Vec::new(), [0]);
        // One by one: what follows the line is meant for somebody else.
        while terminal.read(&mut typed)? > 0 {
            let [octet] = typed;
            match octet {
                INTERRUPT => return Ok(None),
                b'\r' | b'\n' | END => break,
                _ if BACKSPACE.contains(&octet) => {
                    // A character is as many octets as continue it.
                    while line.pop().is_some_and(|octet| octet & 0xc0 == 0x80) {}
                }
                _ if line.len() < MAX_PASSWORD => line.push(octet),
                _ => {}
            }
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        Ok(Some(Some(line).filter(|line| !line.is_empty())))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // Who typed is to see the end of the line; and if the terminal is gone, there is nothing to put in order.
        let _ = (&self.terminal).write_all(b"\r\n");
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_a_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("password");
        for (content, password) in [("secret\nmore", "secret"), (" a b \r\n", " a b "), ("grün", "grün")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(of_file(&path).unwrap(), password);
        }
        for content in [&b""[..], b"\nsecret", &[b'a'; MAX_PASSWORD + 1], b"\xff\n"] {
            std::fs::write(&path, content).unwrap();
            assert!(of_file(&path).unwrap_err().to_string().ends_with("is no password"), "{content:?}");
        }
        assert!(of_file(&folder.path().join("missing")).unwrap_err().to_string().contains("cannot read"));
        assert!(of_descriptor(u16::MAX).is_err());
    }

    #[test]
    fn a_password_that_others_may_read_is_warned_of() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "secret").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert!(exposed(&path).unwrap().contains("(mode 0640); run chmod 600"));
        mode(0o600);
        assert_eq!(exposed(&path), None);
        assert_eq!(exposed(&folder.path().join("missing")), None);
    }
}
