//! Makes text from elsewhere safe to show: names, reasons and addresses come from peers that nobody vouches for.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a character could move the cursor, change colours, reorder the line or hide in it.
///
/// Control characters (C0, DEL and C1, so every ANSI sequence loses its introducer), line and paragraph separators,
/// the bidirectional controls, and invisible characters that make two names look the same.
pub(in crate::cli) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with each unsafe character spelt out, `\n` or `\u{202e}`. What is safe already is not copied.
pub(in crate::cli) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// JSON text in which unsafe characters inside strings are `\uXXXX`: the same document, safe to show on a terminal.
///
/// JSON allows such characters nowhere but inside strings, except for the line ends that `serde_json` does not write.
pub(in crate::cli) fn escape_json(json: String) -> String {
    if !json.contains(is_unsafe) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_safe_is_not_copied() {
        for text in ["sip:alice@p2psip.org;gr=abc", "Zoë, 日本, 😀", ""] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn terminal_controls_become_visible() {
        assert_eq!(escape("\x1b[31mred\x07"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(escape("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(escape("\u{9b}2J"), "\\u{9b}2J", "the one-character introducer of C1");
        assert_eq!(escape("alice\u{202e}gro.pispp2p"), "alice\\u{202e}gro.pispp2p");
        assert_eq!(escape("ali\u{200b}ce"), "ali\\u{200b}ce");
    }

    #[test]
    fn json_means_the_same_after_escaping() {
        let text = "a\u{9b}b\u{202e}c\u{e0041}\n";
        let json = escape_json(serde_json::to_string(text).unwrap());
        assert!(json.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(text in "\\PC*|.*|[\u{0}-\u{ff}\u{2000}-\u{2070}]*") {
            prop_assert!(!escape(&text).contains(is_unsafe));
            let json = escape_json(serde_json::to_string(&text).unwrap());
            prop_assert!(!json.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
