//! PEM as RFC 7468 lays it out in its strict form: base64 in lines of 64 characters between two labels.

use data_encoding::BASE64;

/// The longest text that is looked at; our own files have a few hundred bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// The most blocks that are read from one text.
const MAX_BLOCKS: usize = 64;
/// Characters of base64 on one line (RFC 7468 §2).
const LINE: usize = 64;

/// One block: its label (`CERTIFICATE`) and its octets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub label: String,
    pub octets: Vec<u8>,
}

/// Writes one block.
pub(super) fn encode(label: &str, octets: &[u8]) -> String {
    let body = BASE64.encode(octets);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Reads every block; text outside the blocks is explanation and is skipped (RFC 7468 §2).
pub(super) fn decode_all(text: &str) -> Result<Vec<Block>, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("it is longer than 64 KiB");
    }
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if open.is_some() {
                return Err("a PEM block begins inside another");
            }
            open = Some((label, String::new()));
        } else if let Some(label) = boundary(line, "-----END ") {
            let Some((begun, body)) = open.take() else {
                return Err("a PEM block ends that has not begun");
            };
            if begun != label {
                return Err("a PEM block ends with another label than it begins with");
            }
            let octets = BASE64.decode(body.as_bytes()).map_err(|_| "its base64 is damaged")?;
            if blocks.len() == MAX_BLOCKS {
                return Err("it has more than 64 PEM blocks");
            }
            blocks.push(Block { label: label.to_owned(), octets });
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    if open.is_some() {
        return Err("a PEM block does not end");
    }
    Ok(blocks)
}

/// Reads a text that holds exactly one block, with this label.
pub(super) fn decode_one(text: &str, label: &str) -> Result<Vec<u8>, String> {
    let mut blocks = decode_all(text)?;
    match (blocks.pop(), blocks.is_empty()) {
        (Some(block), true) if block.label == label => Ok(block.octets),
        (Some(block), true) => Err(format!("it holds a {}, not a {label}", block.label)),
        (Some(_), false) => Err(format!("it holds several PEM blocks, not one {label}")),
        (None, _) => Err(format!("it has no PEM block (-----BEGIN {label}-----)")),
    }
}

fn boundary<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.strip_prefix(begin)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_single_block_is_refused_with_the_reason() {
        let block = encode("X", b"octets");
        assert!(decode_one(&block, "Y").unwrap_err().contains("holds a X"));
        assert!(decode_one(&format!("{block}{block}"), "X").unwrap_err().contains("several"));
        assert!(decode_one("", "X").unwrap_err().contains("no PEM block"));
        assert!(decode_all("-----BEGIN X-----\n").unwrap_err().contains("does not end"));
        assert!(decode_all("-----END X-----\n").unwrap_err().contains("has not begun"));
        assert!(decode_all("-----BEGIN X-----\n-----END Y-----\n").unwrap_err().contains("another label"));
        assert!(decode_all("-----BEGIN X-----\n!\n-----END X-----\n").unwrap_err().contains("base64"));
        assert!(decode_all(&" ".repeat(MAX_TEXT + 1)).unwrap_err().contains("64 KiB"));
    }

    proptest! {
        #[test]
        fn blocks_round_trip(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = format!("some words\n{}\r\nmore words", encode("A B", &octets));
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(decode_one(&text, "A B").unwrap(), octets);
        }

        #[test]
        fn reading_never_panics(text in "(-----(BEGIN|END) X-----\n|\\PC|\n){0,20}") {
            let _ = decode_all(&text);
        }
    }
}
