//! CSeq (RFC 3261 §20.16).

use crate::sip::{
    Method,
    scan::{self, Cursor},
};

/// CSeq: a request's number in its dialog, and its method again (RFC 3261 §20.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CSeq<'a> {
    /// Less than 2^31 (§8.1.1.5).
    pub number: u32,
    /// The request's method.
    pub method: Method<'a>,
}

impl<'a> CSeq<'a> {
    /// Reads the value of CSeq.
    pub(in crate::sip) fn parse(value: &'a [u8]) -> Result<Self, &'static str> {
        let mut cursor = Cursor::new(value);
        let number = cursor.token().and_then(scan::number).ok_or("it has no number")?;
        let number = u32::try_from(number).ok().filter(|number| *number < 1 << 31);
        let number = number.ok_or("its number is 2^31 or more")?;
        cursor.skip_lws();
        let method = cursor.token_text().ok_or("it has no method")?;
        if !cursor.is_empty() {
            return Err("something follows its method");
        }
        Ok(Self { number, method: Method::new(method) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cseq_is_a_number_below_2_to_the_31_and_a_method() {
        assert_eq!(CSeq::parse(b"0009\r\n  INVITE"), Ok(CSeq { number: 9, method: Method::Invite }));
        assert_eq!(CSeq::parse(b"2147483647 NEW").unwrap().method, Method::Other("NEW"));
        for wrong in
            ["", "1", "INVITE", "INVITE 1", "2147483648 ACK", "36893488147419103232 ACK", "1 ACK x", "-1 ACK", "1,ACK"]
        {
            assert!(CSeq::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
