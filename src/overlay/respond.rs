//! Requests that reach a process: who sent them, and what answers them.

use futures::future::BoxFuture;

use crate::{
    client::{RequestFrame, ResponseFrame},
    name::PeerId,
};

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A process in the overlay, authenticated by its stream.
    Peer(PeerId),
    /// A program of this member's own user, over the unix socket.
    Local,
}

/// An answer, at once or later.
pub enum Answer {
    /// Ready: the event loop sends it without a task of its own.
    Now(ResponseFrame),
    /// Takes a while: signatures are checked, or other peers asked.
    Later(BoxFuture<'static, ResponseFrame>),
}

/// What answers the requests that reach a process. A member's responder dispatches on the service's name.
pub trait Responder: Send + Sync + 'static {
    /// Answers one request. Called on the swarm's own task: anything slow belongs into [`Answer::Later`].
    fn respond(&self, caller: Caller, frame: RequestFrame) -> Answer;
}
