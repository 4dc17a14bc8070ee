//! The URIs that are looked up: the operands, or the lines of standard input.

use tokio::sync::mpsc;

use crate::{
    cli::{
        lines,
        output::{Output, error::Failure},
    },
    name::ResourceName,
    ops::locate::{Scope, Subject},
};

/// The URIs to look up, checked.
pub(super) enum Uris {
    Operands { subjects: std::vec::IntoIter<Subject>, several: bool },
    Lines { lines: mpsc::Receiver<Result<String, Failure>>, scope: Scope },
}

impl Uris {
    /// Takes them from the operands, where one that is wrong stops everything, or begins to read standard input.
    pub(super) fn new(operands: &[String], scope: Scope, output: &mut Output<'_, '_>) -> Result<Self, Failure> {
        if operands == ["-"] {
            return Ok(Self::Lines { lines: lines::read(output.io()), scope });
        }
        if operands.iter().any(|operand| operand == "-") {
            return Err(Failure::usage("'-' reads all URIs from standard input and cannot stand beside others"));
        }
        let subjects = operands.iter().map(|text| Subject::parse(text, scope)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Operands { several: subjects.len() > 1, subjects: subjects.into_iter() })
    }

    /// The one URI given as an operand, which is needed where it matters which one is meant.
    pub(super) fn only(&self) -> Result<ResourceName, Failure> {
        match self {
            Self::Operands { subjects, several: false } => match subjects.as_slice().first() {
                Some(Subject::Overlay(name)) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| Failure::usage("--pin takes one URI"))
    }

    /// Whether more than one may come.
    pub(super) const fn are_several(&self) -> bool {
        match self {
            Self::Operands { several, .. } => *several,
            Self::Lines { .. } => true,
        }
    }

    /// The next one; what is wrong with it does not concern the others.
    pub(super) async fn next(&mut self) -> Option<Result<Subject, Failure>> {
        match self {
            Self::Operands { subjects, .. } => subjects.next().map(Ok),
            Self::Lines { lines, scope } => {
                Some(lines.recv().await?.and_then(|text| Ok(Subject::parse(&text, *scope)?)))
            }
        }
    }
}
