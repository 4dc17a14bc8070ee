//! When two SIP URIs name the same (RFC 3261 §19.1.4).

use super::{SipUri, UriParams, unescape};

/// The most parameters of a SIP URI that are compared one by one.
pub const MAX_COMPARED: usize = 64;

impl SipUri<'_> {
    /// Whether both URIs name the same by RFC 3261 §19.1.4.
    ///
    /// Parameters are compared each with each, so of URIs with more than [`MAX_COMPARED`] only the text is compared.
    pub fn is_equivalent(&self, other: &SipUri<'_>) -> bool {
        if self.text == other.text {
            return true;
        }
        let comparable = |uri: &SipUri<'_>| uri.params.iter().nth(MAX_COMPARED).is_none();
        comparable(self)
            && comparable(other)
            && self.secure == other.secure
            && same_escaped(self.user, other.user, true)
            && same_escaped(self.password, other.password, true)
            && self.host == other.host
            && self.port == other.port
            && same_params(&self.params, &other.params)
            && same_headers(self.headers, other.headers)
    }
}

/// Parameters that both have must match; these, if only one has them, do not match (§19.1.4; `transport` is in none
/// of its rules, but in its examples).
fn same_params(one: &UriParams<'_>, other: &UriParams<'_>) -> bool {
    let find = |params: &UriParams<'_>, name: &str| {
        params.iter().find(|(own, _)| same_escaped(Some(own), Some(name), false)).map(|(_, value)| value.is_some())
    };
    let significant = ["user", "ttl", "method", "maddr", "transport"];
    if significant.iter().any(|name| find(one, name).is_some() != find(other, name).is_some()) {
        return false;
    }
    agrees(one, other) && agrees(other, one)
}

/// Whether each parameter has the value of some parameter of that name there, if there are any. A name should stand
/// only once (§19.1.1); where it does not, no order among them is made up.
fn agrees(one: &UriParams<'_>, other: &UriParams<'_>) -> bool {
    one.iter().all(|(name, value)| {
        let mut same = other.iter().filter(|(theirs, _)| same_escaped(Some(theirs), Some(name), false)).peekable();
        same.peek().is_none() || same.any(|(_, theirs)| same_escaped(value, theirs, false))
    })
}

/// Whether two parts are the same once their escapes are decoded.
fn same_escaped(one: Option<&str>, other: Option<&str>, by_case: bool) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) if by_case => unescape(one) == unescape(other),
        (Some(one), Some(other)) => unescape(one).eq_ignore_ascii_case(&unescape(other)),
        _ => false,
    }
}

/// Header components are never ignored; their order does not matter (§19.1.4).
fn same_headers(one: Option<&str>, other: Option<&str>) -> bool {
    let sorted = |headers: Option<&str>| {
        let mut list = headers
            .unwrap_or_default()
            .split('&')
            .filter_map(|header| header.split_once('='))
            .map(|(name, value)| (unescape(name).to_ascii_lowercase(), unescape(value).into_owned()))
            .collect::<Vec<_>>();
        list.sort();
        list
    };
    match (one, other) {
        (None, None) => true,
        _ => sorted(one) == sorted(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(text: &str) -> SipUri<'_> {
        SipUri::parse(text).unwrap()
    }

    #[test]
    fn parameters_that_repeat_or_abound_are_compared_without_harm() {
        let twice = sip("sip:a@b;x=1;x=2");
        assert!(twice.is_equivalent(&twice));
        assert!(twice.is_equivalent(&sip("sip:a@b;X=2;x=1")) && sip("sip:a@b;x=2;x=1").is_equivalent(&twice));
        assert!(!twice.is_equivalent(&sip("sip:a@b;x=1")) && !sip("sip:a@b;x=1").is_equivalent(&twice));
        let many = format!("sip:a@b{}", ";p".repeat(MAX_COMPARED + 1));
        assert!(sip(&many).is_equivalent(&sip(&many)));
        assert!(!sip(&many).is_equivalent(&sip(&many.to_uppercase().replace("SIP:A@B", "sip:a@b"))));
    }

    #[test]
    fn equivalence_is_that_of_rfc_3261_section_19_1_4() {
        let same = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            ("sip:a@b?Subject=x&priority=urgent", "sip:a@b?priority=urgent&subject=x"),
            ("sip:a@[2001:DB8:0::1]", "sip:a@[2001:db8::1]"),
        ];
        let different = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:a@b;user=phone", "sip:a@b"),
            ("sip:a@b;x=1", "sip:a@b;x=2"),
            ("sip:a@b", "sips:a@b"),
            ("sip:a@b", "sip:a:c@b"),
        ];
        for (one, other) in same {
            assert!(sip(one).is_equivalent(&sip(other)) && sip(other).is_equivalent(&sip(one)), "{one} {other}");
        }
        for (one, other) in different {
            assert!(!sip(one).is_equivalent(&sip(other)) && !sip(other).is_equivalent(&sip(one)), "{one} {other}");
        }
    }
}
