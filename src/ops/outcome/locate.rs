//! Where the servers of a SIP domain are (RFC 3263), and how the outside sees an overlay.

use serde::Serialize;

/// The answer to a location by RFC 3263, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocateStatus {
    /// There is a server.
    Found,
    /// The domain does not exist (exit 1).
    NoDomain,
    /// The domain has no SIP server that could be used (exit 1).
    NoServer,
    /// The DNS has not answered (exit 3).
    NobodyToAsk,
}

/// What `p2p-lookup` found for a URI of a conventional SIP network.
#[derive(Debug, Clone, Serialize)]
pub struct LocateOutcome {
    /// The answer.
    pub status: LocateStatus,
    /// The URI as it was given.
    pub uri: String,
    /// Its host.
    pub domain: String,
    /// Where a request is tried, in this order.
    pub targets: Vec<TargetView>,
    /// What led there, in this order.
    pub path: Vec<StepView>,
    /// From start to answer.
    pub elapsed_ms: f64,
}

/// A server to try.
#[derive(Debug, Clone, Serialize)]
pub struct TargetView {
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Its IP address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// All three, `transport:address:port`.
    pub endpoint: String,
    /// Whom its certificate has to name; `null` without TLS.
    pub tls_name: Option<String>,
    /// What led there.
    pub because: String,
}

/// A step of a location.
#[derive(Debug, Clone, Serialize)]
pub struct StepView {
    /// What kind of step.
    pub step: StepKind,
    /// The rule that was applied, the question that was asked, or the record that was passed over.
    pub text: String,
    /// Of a question, where the answer came from: a name server's address, `cache`, `additional` (along with an
    /// earlier answer) or `local` (the hosts file, or the name alone); `null` if from nowhere.
    pub source: Option<String>,
    /// Of a question, what became of it.
    pub outcome: Option<AnswerStatus>,
    /// The records, why there are none, or why the record was passed over.
    pub answer: Vec<String>,
    /// Of a question, how long it took.
    pub took_ms: Option<f64>,
}

/// A kind of step, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// A rule was applied.
    Rule,
    /// A question was asked.
    Question,
    /// A record was passed over.
    Ignored,
}

/// What became of a question, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnswerStatus {
    /// There are records.
    Records,
    /// There are no such records.
    NoRecords,
    /// There is no such name.
    NoName,
    /// Nobody could tell.
    Unanswered,
}

/// How public SIP networks find an overlay (RFC 3263), beside how it is inside.
#[derive(Debug, Clone, Serialize)]
pub struct PublicView {
    /// What the DNS says; all but `found` and `nobody-to-ask` mean that the overlay cannot be reached from there.
    pub status: LocateStatus,
    /// Where a request goes, `transport:address:port`, in this order.
    pub endpoints: Vec<String>,
    /// Endpoints that proxy peers offer in the overlay, and the DNS does not have.
    pub only_in_overlay: Vec<String>,
    /// Endpoints in the DNS that no proxy peer offers in the overlay.
    pub only_in_dns: Vec<String>,
}
