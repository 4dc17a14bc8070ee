//! Typed views of a message's header fields, parsed when somebody asks.

use super::{
    Message, ParseError,
    header::{CSeq, Challenge, Contact, Credentials, Event, MediaType, Name, NameAddr, RetryAfter, Via},
    scan,
    uri::Uri,
};

impl Message {
    /// The Request-URI in parts.
    ///
    /// # Errors
    /// [`ParseError::Uri`] if it is none; [`ParseError::StartLine`] of a response.
    pub fn uri(&self) -> Result<Uri<'_>, ParseError> {
        Uri::parse(self.request_uri().ok_or(ParseError::StartLine("a response has no Request-URI"))?)
    }

    /// The topmost Via.
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn top_via(&self) -> Result<Via<'_>, ParseError> {
        self.vias().next().unwrap_or(Err(ParseError::Missing("Via")))
    }

    /// All Vias from the top down.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'_>, ParseError>> + Clone {
        self.values(Name::Via).map(|value| Via::parse(value).map_err(fault("Via")))
    }

    /// Who made the request (RFC 3261 §20.20).
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn from(&self) -> Result<NameAddr<'_>, ParseError> {
        self.required(Name::From, "From", NameAddr::parse)
    }

    /// Whom the request is for (RFC 3261 §20.39).
    ///
    /// # Errors
    /// If there is none, or it is malformed.
    pub fn to(&self) -> Result<NameAddr<'_>, ParseError> {
        self.required(Name::To, "To", NameAddr::parse)
    }

    /// Number and method (RFC 3261 §20.16).
    ///
    /// # Errors
    /// If there is none, it is malformed, or its number is 2^31 or more.
    pub fn cseq(&self) -> Result<CSeq<'_>, ParseError> {
        self.required(Name::CSeq, "CSeq", CSeq::parse)
    }

    /// The Call-ID (RFC 3261 §20.8); compared by case.
    ///
    /// # Errors
    /// If there is none, it is empty, not UTF-8, or has white space.
    pub fn call_id(&self) -> Result<&str, ParseError> {
        self.required(Name::CallId, "Call-ID", |value| {
            if value.is_empty() || value.iter().any(|octet| scan::is_lws(*octet)) {
                return Err("it is empty or has white space");
            }
            scan::text(value).ok_or("it is not UTF-8")
        })
    }

    /// How many more hops the request may take (RFC 3261 §20.22).
    ///
    /// # Errors
    /// If it is not a number from 0 to 255.
    pub fn max_forwards(&self) -> Result<Option<u8>, ParseError> {
        let wrong = "it is not a number from 0 to 255";
        self.optional(Name::MaxForwards, "Max-Forwards", |value| {
            scan::number(value).and_then(|hops| u8::try_from(hops).ok()).ok_or(wrong)
        })
    }

    /// How many branches at once the request may still fork into (RFC 5393 §5.3.3).
    ///
    /// # Errors
    /// If it is not a number.
    pub fn max_breadth(&self) -> Result<Option<u32>, ParseError> {
        self.optional(Name::MaxBreadth, "Max-Breadth", seconds)
    }

    /// The Routes from the top down (RFC 3261 §20.34).
    pub fn routes(&self) -> impl Iterator<Item = Result<NameAddr<'_>, ParseError>> + Clone {
        self.addresses(Name::Route, "Route")
    }

    /// The Record-Routes from the top down (RFC 3261 §20.30).
    pub fn record_routes(&self) -> impl Iterator<Item = Result<NameAddr<'_>, ParseError>> + Clone {
        self.addresses(Name::RecordRoute, "Record-Route")
    }

    /// The Paths from the top down (RFC 3327).
    pub fn paths(&self) -> impl Iterator<Item = Result<NameAddr<'_>, ParseError>> + Clone {
        self.addresses(Name::Path, "Path")
    }

    /// The Contacts (RFC 3261 §20.10).
    pub fn contacts(&self) -> impl Iterator<Item = Result<Contact<'_>, ParseError>> + Clone {
        self.values(Name::Contact).map(|value| Contact::parse(value).map_err(fault("Contact")))
    }

    /// Expires, in seconds; what is greater than 2^32 - 1 counts as that (RFC 3261 §20.19).
    ///
    /// # Errors
    /// If it is not a number.
    pub fn expires(&self) -> Result<Option<u32>, ParseError> {
        self.optional(Name::Expires, "Expires", seconds)
    }

    /// Min-Expires, in seconds (RFC 3261 §20.23).
    ///
    /// # Errors
    /// If it is not a number.
    pub fn min_expires(&self) -> Result<Option<u32>, ParseError> {
        self.optional(Name::MinExpires, "Min-Expires", seconds)
    }

    /// Retry-After (RFC 3261 §20.33).
    ///
    /// # Errors
    /// If it is malformed.
    pub fn retry_after(&self) -> Result<Option<RetryAfter<'_>>, ParseError> {
        self.optional(Name::RetryAfter, "Retry-After", RetryAfter::parse)
    }

    /// Content-Length, in octets; `None` if there is none.
    ///
    /// # Errors
    /// If it is not a number, or two lines of it differ.
    pub fn content_length(&self) -> Result<Option<usize>, ParseError> {
        let mut lengths = self.values(Name::ContentLength);
        let Some(first) = lengths.next() else { return Ok(None) };
        let length = scan::number(first).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(ParseError::ContentLength("it is not a number"))?;
        if lengths.any(|other| scan::number(other) != u64::try_from(length).ok()) {
            return Err(ParseError::ContentLength("two of them differ"));
        }
        Ok(Some(length))
    }

    /// Content-Type (RFC 3261 §20.15).
    ///
    /// # Errors
    /// If it is malformed.
    pub fn content_type(&self) -> Result<Option<MediaType<'_>>, ParseError> {
        self.optional(Name::ContentType, "Content-Type", MediaType::parse)
    }

    /// Event (RFC 6665 §8.2.1).
    ///
    /// # Errors
    /// If it is malformed.
    pub fn event(&self) -> Result<Option<Event<'_>>, ParseError> {
        self.optional(Name::Event, "Event", Event::parse)
    }

    /// The tokens of a list like Require, Proxy-Require, Supported, Unsupported or Allow.
    /// An element that is not a token is passed over only if it is empty.
    pub fn tokens<'a>(&'a self, name: Name<'a>) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.values(name).filter(|value| !value.is_empty())
    }

    /// Whether a list like Supported has this token, without regard to case.
    pub fn has_token(&self, name: Name<'_>, token: &str) -> bool {
        self.tokens(name).any(|own| own.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The challenges of a 401 or 407: those of WWW-Authenticate, then those of Proxy-Authenticate.
    pub fn challenges(&self) -> impl Iterator<Item = (Name<'static>, Result<Challenge<'_>, ParseError>)> + Clone {
        let of = |name, text| self.values(name).map(move |value| (name, Challenge::parse(value).map_err(fault(text))));
        of(Name::WwwAuthenticate, "WWW-Authenticate").chain(of(Name::ProxyAuthenticate, "Proxy-Authenticate"))
    }

    /// The credentials of a request: those of Authorization, then those of Proxy-Authorization.
    pub fn credentials(&self) -> impl Iterator<Item = (Name<'static>, Result<Credentials<'_>, ParseError>)> + Clone {
        let of =
            |name, text| self.values(name).map(move |value| (name, Credentials::parse(value).map_err(fault(text))));
        of(Name::Authorization, "Authorization").chain(of(Name::ProxyAuthorization, "Proxy-Authorization"))
    }

    /// The addresses of any list of addresses, as P-Asserted-Identity.
    fn addresses(
        &self,
        name: Name<'static>,
        text: &'static str,
    ) -> impl Iterator<Item = Result<NameAddr<'_>, ParseError>> + Clone {
        self.values(name).map(move |value| NameAddr::parse(value).map_err(fault(text)))
    }

    fn optional<'a, T>(
        &'a self,
        name: Name<'static>,
        text: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ParseError> {
        self.header(name).map(parse).transpose().map_err(fault(text))
    }

    fn required<'a, T>(
        &'a self,
        name: Name<'static>,
        text: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Result<T, &'static str>,
    ) -> Result<T, ParseError> {
        self.optional(name, text, parse)?.ok_or(ParseError::Missing(text))
    }
}

/// Names the header field in which something is wrong.
fn fault(name: &'static str) -> impl Fn(&'static str) -> ParseError {
    move |why| ParseError::Value { name, why }
}

fn seconds(value: &[u8]) -> Result<u32, &'static str> {
    let number = scan::number(value).ok_or("it is not a number")?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}
