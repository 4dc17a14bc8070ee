//! Holding on to a key: `p2p-lookup --pin`.

use super::{Access, OpsError, ViaChoice, lookup::Lookups};
use crate::name::{InstanceId, ResourceName};

/// Believes, from now on, only the key of this instance and those pinned before where `name` is concerned. It matters
/// in an overlay of the policy `open`, where anybody may sign a record for any name. Storers do not ask: a pin is one
/// user's opinion.
///
/// # Errors
/// [`OpsError::NotThere`] if the name has no record of that instance; as [`Lookups::lookup`]; [`OpsError::Identity`]
/// if the home cannot be written.
pub async fn pin(access: &Access, name: &ResourceName, instance: &InstanceId, via: ViaChoice) -> Result<(), OpsError> {
    let outcome = Lookups::attach_without_pins(access, via).await?.lookup(name).await?;
    let Some(record) = outcome.records.iter().find(|record| record.instance == *instance) else {
        return Err(OpsError::NotThere { name: name.to_string(), instance: *instance });
    };
    Ok(access.own_home()?.change_pins(|pins| {
        pins.keys.entry(name.clone()).or_default().insert(record.key);
    })?)
}
