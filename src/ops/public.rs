//! Registering with a public SIP network: `p2p-register --public` (draft §4.2).

mod aor;
mod outcome;
mod reach;
mod session;
mod verdict;

use std::time::{Duration, Instant};

pub use self::outcome::{PublicOutcome, PublicStatus, Step, StepOutcome};
use self::{aor::PublicAor, session::Session};
use super::{Access, OpsError, register::RegisterRequest};
use crate::{
    name::Aor,
    sip::{digest::User, tap::Tap},
};

/// What is to be registered, and where.
#[derive(Debug, Clone)]
pub struct PublicRequest {
    /// The user of the overlay.
    pub aor: Aor,
    /// The public address of record, such as `sip:alice@example.org`.
    pub public: String,
    /// SIP URIs to bind the user to; none for what this device has registered, or else the member on this machine.
    pub contacts: Vec<String>,
    /// For how long both bindings are to hold; without it, the overlay's default, and an hour outside.
    pub expires: Option<Duration>,
    /// Who we are to those that challenge us.
    pub user: Option<User>,
    /// Take this device's binding out, and the public one if no other device needs it.
    pub remove: bool,
    /// Stay, and refresh both bindings.
    pub stay: bool,
    /// Who listens in, if anybody.
    pub tap: Option<Tap>,
}

impl PublicRequest {
    /// Checks what can be known to be wrong before anybody is asked.
    ///
    /// # Errors
    /// [`OpsError::PublicAor`]: no address of record, or one of the overlay itself.
    pub fn check(public: &str, aor: &Aor) -> Result<(), OpsError> {
        PublicAor::parse(public, aor).map(drop)
    }
}

/// What is told meanwhile.
#[derive(Debug, Clone)]
pub enum PublicReport {
    /// A step is done.
    Step(StepOutcome),
    /// The proxy peer is gone; another one is sought.
    Lost,
    /// What became of it; again after each refresh, if it stays.
    Outcome(Box<PublicOutcome>),
}

/// Registers in the overlay, and there in the public network; or removes both. With `stay` until `shutdown`.
///
/// # Errors
/// [`OpsError`]: no such address, nothing to bind to, no credentials, no way into the overlay. Being refused, and finding
/// nobody, are outcomes.
pub async fn register_public(
    access: &Access,
    request: &PublicRequest,
    report: &mut dyn FnMut(PublicReport),
    shutdown: impl Future<Output = ()>,
) -> Result<(), OpsError> {
    let began = Instant::now();
    let public = PublicAor::parse(&request.public, &request.aor)?;
    let inside = RegisterRequest {
        aor: request.aor.clone(),
        contacts: request.contacts.clone(),
        expires: request.expires,
        remove: request.remove,
        stay: request.stay,
    };
    tokio::pin!(shutdown);
    let mut session = tokio::select! {
        session = Session::open(access, request, &inside, public, began) => session?,
        () = &mut shutdown => return Ok(()),
    };
    // From here on the overlay knows of this process, and is told when it goes, whatever else happens.
    let result = session.run(report, shutdown).await;
    let left = session.close().await;
    result.and(left)
}
