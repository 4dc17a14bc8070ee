//! File descriptors: a member has one for each connection, and the usual limit is made for lesser programs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit on open files as far as it may. What fails is left as it is: the limit is met later,
/// if at all, with an error that says so.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::debug!(%error, "cannot raise the limit on open files");
        }
    }
}
