//! A public address of record, and who its registrar is.

use crate::{name::Aor, ops::OpsError, sip::uri::SipUri, ua::registrar_of};

/// A public address of record.
pub(super) struct PublicAor {
    /// Without parameters: for To and From.
    pub(super) uri: String,
    pub(super) registrar: String,
    pub(super) secure: bool,
}

impl PublicAor {
    pub(super) fn parse(text: &str, user: &Aor) -> Result<Self, OpsError> {
        let wrong = |why: String| OpsError::PublicAor { text: text.to_owned(), why };
        let uri = SipUri::parse(text).map_err(|error| wrong(error.to_string()))?;
        let Some(name) = uri.user else { return Err(wrong("it has no user part".to_owned())) };
        if uri.headers.is_some() || uri.password.is_some() {
            return Err(wrong("it has a password or headers".to_owned()));
        }
        if uri.host.is_name(user.host().as_str()) {
            let why = format!("{} is the overlay itself, where p2p-register without --public registers", uri.host);
            return Err(wrong(why));
        }
        let scheme = if uri.secure { "sips" } else { "sip" };
        let port = uri.port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self {
            uri: format!("{scheme}:{name}@{}{port}", uri.host),
            registrar: registrar_of(&uri),
            secure: uri.secure,
        })
    }
}
