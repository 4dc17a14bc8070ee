//! The names of header fields, long and compact (RFC 3261 §7.3.3), and how they are found fast.

use std::fmt;

/// Defines [`Name`] and its table: variant, canonical spelling, compact letter (RFC 3261 §7.3.3), whether a comma list.
macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal $(/ $compact:literal)? $([$list:ident])?,)+) => {
        /// A header field's name: one that this library knows, in long or compact form, or any other.
        ///
        /// Names are compared without case.
        #[derive(Clone, Copy)]
        pub enum Name<'a> {
            $($(#[$doc])* #[doc = concat!("`", $text, "`")] $variant,)+
            /// A name that is not in the table, as it was written.
            Other(&'a [u8]),
        }

        /// The known names' codes, in the order of the table.
        #[derive(Clone, Copy)]
        #[repr(u8)]
        enum Position { $($variant,)+ }

        const TABLE: &[Known] = &[$(Known {
            name: Name::$variant,
            text: $text,
            compact: names!(@compact $($compact)?),
            list: names!(@list $($list)?),
        },)+];

        impl Name<'_> {
            pub(in crate::sip) const fn code(&self) -> u8 {
                match self {
                    $(Self::$variant => Position::$variant as u8,)+
                    Self::Other(_) => OTHER,
                }
            }
        }
    };
    (@compact $letter:literal) => { $letter };
    (@compact) => { 0 };
    (@list $list:ident) => { true };
    (@list) => { false };
}

struct Known {
    name: Name<'static>,
    text: &'static str,
    compact: u8,
    list: bool,
}

/// The code of every name that is not in the table.
pub(in crate::sip) const OTHER: u8 = u8::MAX;

names! {
    Accept = "Accept" [list],
    AcceptContact = "Accept-Contact" / b'a' [list],
    AcceptEncoding = "Accept-Encoding" [list],
    AcceptLanguage = "Accept-Language" [list],
    AlertInfo = "Alert-Info" [list],
    Allow = "Allow" [list],
    AllowEvents = "Allow-Events" / b'u' [list],
    AuthenticationInfo = "Authentication-Info",
    Authorization = "Authorization",
    CallId = "Call-ID" / b'i',
    CallInfo = "Call-Info" [list],
    Contact = "Contact" / b'm' [list],
    ContentDisposition = "Content-Disposition",
    ContentEncoding = "Content-Encoding" / b'e' [list],
    ContentLanguage = "Content-Language" [list],
    ContentLength = "Content-Length" / b'l',
    ContentType = "Content-Type" / b'c',
    CSeq = "CSeq",
    Date = "Date",
    Diversion = "Diversion" [list],
    ErrorInfo = "Error-Info" [list],
    Event = "Event" / b'o',
    Expires = "Expires",
    FlowTimer = "Flow-Timer",
    From = "From" / b'f',
    HistoryInfo = "History-Info" [list],
    Identity = "Identity" / b'y' [list],
    InReplyTo = "In-Reply-To" [list],
    Join = "Join",
    MaxBreadth = "Max-Breadth",
    MaxForwards = "Max-Forwards",
    MimeVersion = "MIME-Version",
    MinExpires = "Min-Expires",
    MinSe = "Min-SE",
    Organization = "Organization",
    PAssertedIdentity = "P-Asserted-Identity" [list],
    PPreferredIdentity = "P-Preferred-Identity" [list],
    Path = "Path" [list],
    Priority = "Priority",
    Privacy = "Privacy",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyRequire = "Proxy-Require" [list],
    RAck = "RAck",
    Reason = "Reason" [list],
    RecordRoute = "Record-Route" [list],
    ReferTo = "Refer-To" / b'r',
    ReferredBy = "Referred-By" / b'b',
    RejectContact = "Reject-Contact" / b'j' [list],
    Replaces = "Replaces",
    ReplyTo = "Reply-To",
    RequestDisposition = "Request-Disposition" / b'd' [list],
    Require = "Require" [list],
    RetryAfter = "Retry-After",
    Route = "Route" [list],
    RSeq = "RSeq",
    Server = "Server",
    ServiceRoute = "Service-Route" [list],
    SessionExpires = "Session-Expires" / b'x',
    SipEtag = "SIP-ETag",
    SipIfMatch = "SIP-If-Match",
    Subject = "Subject" / b's',
    SubscriptionState = "Subscription-State",
    Supported = "Supported" / b'k' [list],
    Timestamp = "Timestamp",
    To = "To" / b't',
    Unsupported = "Unsupported" [list],
    UserAgent = "User-Agent",
    Via = "Via" / b'v' [list],
    Warning = "Warning" [list],
    WwwAuthenticate = "WWW-Authenticate",
}

/// How many buckets names are sorted into, by length and first letter; a power of two.
const BUCKETS: usize = 256;
/// For each bucket the first code in it, and for each code the next one in the same bucket.
const CHAINS: ([u8; BUCKETS], [u8; TABLE.len()]) = chains();

/// Which bucket a name is in: few known names share both length and first letter.
const fn bucket(length: usize, first: u8) -> usize {
    (length << 5 ^ (first | 0x20) as usize) & (BUCKETS - 1)
}

const fn chains() -> ([u8; BUCKETS], [u8; TABLE.len()]) {
    let mut heads = [OTHER; BUCKETS];
    let mut next = [OTHER; TABLE.len()];
    let mut code = 0;
    while code < TABLE.len() {
        let text = TABLE[code].text.as_bytes();
        let bucket = bucket(text.len(), text[0]);
        next[code] = heads[bucket];
        heads[bucket] = code as u8;
        code += 1;
    }
    (heads, next)
}

/// The code of the name with each compact letter, from `a` on.
const COMPACT: [u8; 26] = compact();

const fn compact() -> [u8; 26] {
    let mut letters = [OTHER; 26];
    let mut code = 0;
    while code < TABLE.len() {
        if TABLE[code].compact != 0 {
            letters[(TABLE[code].compact - b'a') as usize] = code as u8;
        }
        code += 1;
    }
    letters
}

/// The code of a name as it is written in a message.
pub(in crate::sip) fn code_of(name: &[u8]) -> u8 {
    if let [letter] = name {
        let place = letter.to_ascii_lowercase().wrapping_sub(b'a');
        return COMPACT.get(usize::from(place)).copied().unwrap_or(OTHER);
    }
    let Some(first) = name.first() else { return OTHER };
    let mut code = CHAINS.0.get(bucket(name.len(), *first)).copied().unwrap_or(OTHER);
    while let Some(known) = TABLE.get(usize::from(code)) {
        // Most write names as the RFCs do, and comparing octets as they are takes one instruction for many.
        let text = known.text.as_bytes();
        if name == text || name.eq_ignore_ascii_case(text) {
            return code;
        }
        code = CHAINS.1.get(usize::from(code)).copied().unwrap_or(OTHER);
    }
    OTHER
}

impl<'a> Name<'a> {
    /// The name that is written so, in long or compact form.
    pub fn new(written: &'a [u8]) -> Self {
        Self::from_code(code_of(written), written)
    }

    pub(in crate::sip) fn from_code(code: u8, written: &'a [u8]) -> Self {
        TABLE.get(usize::from(code)).map_or(Self::Other(written), |known| known.name)
    }

    fn known(&self) -> Option<&'static Known> {
        TABLE.get(usize::from(self.code()))
    }

    /// The canonical spelling in long form; of an unknown name, as it was written.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Other(written) => written,
            known => known.known().map_or(b"", |known| known.text.as_bytes()),
        }
    }

    /// The canonical spelling, for messages to people.
    pub fn as_str(&self) -> &'a str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("?")
    }

    /// Whether the header field is a comma list, so that lines of it may be split and joined (RFC 3261 §7.3.1).
    pub fn is_list(&self) -> bool {
        self.known().is_some_and(|known| known.list)
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Other(one), Self::Other(other)) => one.eq_ignore_ascii_case(other),
            _ => self.code() == other.code(),
        }
    }
}

impl Eq for Name<'_> {}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.as_bytes().escape_ascii())
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case_and_in_compact_form() {
        for known in TABLE {
            let shouted = known.text.to_uppercase();
            assert_eq!(Name::new(known.text.as_bytes()), known.name);
            assert_eq!(Name::new(shouted.as_bytes()), known.name);
            if known.compact != 0 {
                assert_eq!(Name::new(&[known.compact]), known.name);
                assert_eq!(Name::new(&[known.compact.to_ascii_uppercase()]), known.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_itself() {
        for written in ["X-Custom", "Vias", "Fro", "z", "", "!", "cSeqq"] {
            assert_eq!(Name::new(written.as_bytes()), Name::Other(written.to_uppercase().as_bytes()));
            assert_eq!(Name::new(written.as_bytes()).as_str(), written);
        }
        assert_ne!(Name::Other(b"a1"), Name::Other(b"a2"));
        assert_ne!(Name::Other(b"Via"), Name::Via, "a known name is made by Name::new");
    }

    #[test]
    fn few_names_share_a_bucket() {
        let longest = CHAINS.0.iter().map(|head| {
            std::iter::successors(Some(*head), |code| CHAINS.1.get(usize::from(*code)).copied())
                .take_while(|code| *code != OTHER)
                .count()
        });
        assert!(longest.max().unwrap() <= 3);
    }
}
