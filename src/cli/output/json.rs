//! What `--json` prints: one object a line, each with `status`.

use serde::Serialize;

use super::{error::Failure, escape::escape_json};
use crate::kind::Kind;

/// An outcome, on one line.
pub(in crate::cli) fn outcome(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map(escape_json)
        .map_err(|error| Failure::new(Kind::Local, error).context("cannot write the outcome as JSON"))
}

/// A failure that is no outcome: `{"status":…,"error":{"kind":…,"message":…}}`, with `uri` if it concerns one of
/// several.
#[derive(Debug, Serialize)]
struct FailureLine<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<&'a str>,
    error: FailureView,
}

#[derive(Debug, Serialize)]
struct FailureView {
    kind: Kind,
    message: String,
}

/// A failure, on one line; `None` for wrong usage, which is no answer to anything.
pub(in crate::cli) fn failure(failure: &Failure) -> Option<String> {
    let status = match failure.kind() {
        Kind::Usage => return None,
        Kind::Negative => "negative",
        Kind::Unreachable => "nobody-to-ask",
        Kind::Untrusted => "untrusted",
        Kind::Local => "failed",
    };
    let error = FailureView { kind: failure.kind(), message: failure.to_string() };
    serde_json::to_string(&FailureLine { status, uri: failure.uri(), error }).map(escape_json).ok()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failure_has_status_kind_and_message() {
        let line = failure(&Failure::new(Kind::Unreachable, anyhow!("no peer answered"))).unwrap();
        assert_eq!(line, r#"{"status":"nobody-to-ask","error":{"kind":"unreachable","message":"no peer answered"}}"#);
        let about = Failure::new(Kind::Local, anyhow!("disk full")).about("sip:a@b.org");
        assert_eq!(
            failure(&about).unwrap(),
            r#"{"status":"failed","uri":"sip:a@b.org","error":{"kind":"local","message":"disk full"}}"#
        );
    }

    #[test]
    fn wrong_usage_prints_nothing() {
        assert_eq!(failure(&Failure::usage("no such option")), None);
    }
}
