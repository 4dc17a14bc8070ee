//! The use cases: what each tool does, without any word about arguments, colours or exit codes.
//!
//! Placeholder with the signatures only, until the use cases are merged: every call fails.

pub mod outcome;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{kind::Kind, name::OverlayId};

/// Which addresses may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// How to reach an overlay, and as whom.
#[derive(Debug, Clone)]
pub struct Access {
    /// The overlay, if it was named.
    pub overlay: Option<OverlayId>,
    /// Whether the overlay is purely local and may have a name that is no FQDN.
    pub local: bool,
    /// The descriptor, if not the home's.
    pub descriptor: Option<PathBuf>,
    /// Multiaddrs of members to ask first.
    pub peers: Vec<String>,
    /// The unix socket of a running member, if not the home's.
    pub socket: Option<PathBuf>,
    /// DNS servers instead of the system's.
    pub dns: Vec<SocketAddr>,
    /// The folder with keys, certificates and records.
    pub home: PathBuf,
    /// Total time to the first answer.
    pub timeout: Duration,
    /// Which addresses may be dialled.
    pub family: Family,
}

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ViaChoice {
    /// The best of what there is.
    #[default]
    Auto,
    /// Only the member on this machine.
    Socket,
    /// Only a remote member.
    Peer,
    /// Only our own walk.
    Walk,
}

/// Why a use case came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// This build has no overlay.
    #[error("this build cannot reach an overlay: the use cases are not built in yet")]
    NotBuilt,
}

impl OpsError {
    /// What sort of failure this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NotBuilt => Kind::Local,
        }
    }
}

/// Looking names up.
pub mod lookup {
    use super::{Access, OpsError, ViaChoice, outcome::LookupOutcome};
    use crate::name::ResourceName;

    /// Several lookups over one connection.
    #[derive(Debug)]
    pub struct Lookups(());

    impl Lookups {
        /// Finds somebody to ask.
        ///
        /// # Errors
        /// [`OpsError`].
        pub async fn attach(_access: &Access, _via: ViaChoice) -> Result<Self, OpsError> {
            Err(OpsError::NotBuilt)
        }

        /// Looks one name up.
        ///
        /// # Errors
        /// [`OpsError`].
        pub async fn lookup(&self, _name: &ResourceName) -> Result<LookupOutcome, OpsError> {
            Err(OpsError::NotBuilt)
        }
    }
}

/// Binding a user to contacts.
pub mod register {
    use std::time::Duration;

    use super::{Access, OpsError, outcome::RegisterOutcome};
    use crate::name::Aor;

    /// What to register.
    #[derive(Debug, Clone)]
    pub struct RegisterRequest {
        /// The user.
        pub aor: Aor,
        /// SIP URIs; none means the running member.
        pub contacts: Vec<String>,
        /// For how long, if not the overlay's default.
        pub expires: Option<Duration>,
        /// Remove this instance's record instead.
        pub remove: bool,
        /// Refresh until told to stop, then remove.
        pub stay: bool,
    }

    /// Registers, calls back once, and with `stay` at every refresh.
    ///
    /// # Errors
    /// [`OpsError`].
    pub async fn register(
        _access: &Access,
        _request: &RegisterRequest,
        _report: &mut dyn FnMut(RegisterOutcome),
        _shutdown: impl Future<Output = ()>,
    ) -> Result<(), OpsError> {
        Err(OpsError::NotBuilt)
    }
}

/// Being a member.
pub mod join {
    use super::{Access, OpsError, outcome::JoinOutcome};

    /// How to take part.
    #[derive(Debug, Clone)]
    pub struct JoinRequest {
        /// Multiaddrs to listen on; none means the defaults.
        pub listen: Vec<String>,
    }

    /// Joins, calls back once, and stays until `shutdown`.
    ///
    /// # Errors
    /// [`OpsError`].
    pub async fn join(
        _access: &Access,
        _request: &JoinRequest,
        _report: &mut dyn FnMut(JoinOutcome),
        _shutdown: impl Future<Output = ()>,
    ) -> Result<(), OpsError> {
        Err(OpsError::NotBuilt)
    }
}
