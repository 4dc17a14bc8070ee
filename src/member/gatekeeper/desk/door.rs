//! What comes over the client protocol, from peers and from this machine's own user.

use std::sync::Weak;

use futures::{FutureExt as _, future::BoxFuture};

use super::Desk;
use crate::{
    client::{
        Call, ErrorCode, ErrorReply, RequestFrame, ResponseFrame,
        gatekeeper::{Decisions, Enter, Leave, Prove},
    },
    member::Handler,
    overlay::Caller,
};

/// What the member's handlers know of a gatekeeper.
pub(in super::super) struct Door(pub(in super::super) Weak<Desk>);

impl Handler for Door {
    fn handle(&self, caller: Caller, frame: RequestFrame) -> BoxFuture<'static, ResponseFrame> {
        let desk = self.0.upgrade();
        async move {
            let Some(desk) = desk else {
                let gone = ErrorReply::new(ErrorCode::Unavailable, "this member is no gatekeeper any more");
                return ResponseFrame::Error(gone);
            };
            match (frame.service.as_str(), caller) {
                (Decisions::SERVICE, Caller::Local) => answer::<Decisions>(&frame, async |_| desk.decisions()).await,
                (Decisions::SERVICE, Caller::Peer(_)) => {
                    let message = "a gatekeeper tells its decisions to its own user, over its unix socket";
                    ResponseFrame::Error(ErrorReply::new(ErrorCode::LocalOnly, message))
                }
                (Enter::SERVICE, Caller::Peer(peer)) => {
                    answer::<Enter>(&frame, async |call| desk.enter(peer, call)).await
                }
                (Prove::SERVICE, Caller::Peer(peer)) => {
                    answer::<Prove>(&frame, async |call| desk.prove(peer, call).await).await
                }
                (Leave::SERVICE, Caller::Peer(peer)) => answer::<Leave>(&frame, async |_| desk.leave(peer).await).await,
                _ => {
                    let message = "a gatekeeper is asked over the overlay, where a stream says who asks";
                    ResponseFrame::Error(ErrorReply::new(ErrorCode::Unavailable, message))
                }
            }
        }
        .boxed()
    }
}

/// Reads a call and answers it.
async fn answer<C: Call>(frame: &RequestFrame, work: impl AsyncFnOnce(C) -> C::Reply) -> ResponseFrame {
    match frame.call::<C>() {
        Ok(call) => ResponseFrame::of::<C>(Ok(&work(call).await)),
        Err(error) => ResponseFrame::Error(error),
    }
}
