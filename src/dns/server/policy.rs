//! Who may change what in a zone of the embedded server.

use hickory_proto::rr::{Name, Record, RecordType};

use super::super::{DataKind, DnsError, rrset::parse_name, tsig::TsigKey};

/// Records that a key may change.
#[derive(Debug, Clone)]
pub struct Grant {
    owner: Owner,
    kinds: Option<Vec<DataKind>>,
    limit: Option<usize>,
}

#[derive(Debug, Clone)]
enum Owner {
    Any,
    Is(Name),
    Below(Name),
}

/// A key, and what it may do.
#[derive(Debug, Clone)]
pub(super) struct KeyPolicy {
    pub(super) key: TsigKey,
    pub(super) grants: Vec<Grant>,
}

impl Grant {
    /// Every record of the zone.
    pub const fn all() -> Self {
        Self { owner: Owner::Any, kinds: None, limit: None }
    }

    /// The records of one name.
    ///
    /// # Errors
    /// [`DnsError::Invalid`] if it is no domain name.
    pub fn name(name: &str) -> Result<Self, DnsError> {
        Ok(Self { owner: Owner::Is(parse_name(name)?), ..Self::all() })
    }

    /// The records of a name and of all names below it.
    ///
    /// # Errors
    /// [`DnsError::Invalid`] if it is no domain name.
    pub fn below(name: &str) -> Result<Self, DnsError> {
        Ok(Self { owner: Owner::Below(parse_name(name)?), ..Self::all() })
    }

    /// The same, but only records of these types.
    #[must_use]
    pub fn of(self, kinds: &[DataKind]) -> Self {
        Self { kinds: Some(kinds.to_vec()), ..self }
    }

    /// The same, but a name gets no more than `limit` records of one type. Those beyond are dropped without a word, as
    /// BIND does with `A(2)`.
    #[must_use]
    pub fn at_most(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    fn covers(&self, name: &Name, record_type: RecordType) -> bool {
        let owner = match &self.owner {
            Owner::Any => true,
            Owner::Is(own) => own == name,
            Owner::Below(own) => own.zone_of(name),
        };
        owner && self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind.record_type() == record_type))
    }
}

impl KeyPolicy {
    /// Whether the key may make a change: the type ANY, by which all of a name is deleted, takes a grant of all types.
    pub(super) fn allows(&self, change: &Record) -> bool {
        self.grants.iter().any(|grant| grant.covers(&change.name, change.record_type()))
    }

    /// How many records of that type the name may have.
    pub(super) fn limit(&self, name: &Name, record_type: RecordType) -> usize {
        let covering = self.grants.iter().filter(|grant| grant.covers(name, record_type));
        covering.map(|grant| grant.limit.unwrap_or(usize::MAX)).max().unwrap_or_default()
    }
}
