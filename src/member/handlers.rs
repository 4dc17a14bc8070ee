//! The built-in services of a member.

use std::{future::Future, sync::Arc, time::Duration};

use super::core::{Core, now};
use crate::{
    client::{
        Call, Closest, ClosestReply, DescriptorReply, Digest, ErrorCode, ErrorReply, Fetch, FetchReply, GetDescriptor,
        Held, Keep, Lookup, MAX_FRAME, Put, PutRevocations, RequestFrame, ResponseFrame, Services, Status, Store,
    },
    clock::UnixMs,
    overlay::{Answer, Caller, redir::Wanted},
};

/// The longest that a client may make a member work on one request.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// Octets of envelopes in one answer to a digest: half a frame leaves room for the rest.
const DIGEST_BUDGET: usize = MAX_FRAME / 2;
/// Records in one answer to `held`.
const MAX_HELD: usize = 1000;

/// The answer of a built-in service; `None` if the name is not one's.
pub(super) fn built_in(core: &Arc<Core>, caller: Caller, frame: &RequestFrame) -> Option<Answer> {
    let from = match caller {
        Caller::Peer(peer) => Some(peer),
        Caller::Local => None,
    };
    Some(match frame.service.as_str() {
        Closest::SERVICE => with::<Closest>(frame, |call| {
            now::<Closest>(&ClosestReply { peers: core.closest(&call.target, call.count) })
        }),
        Fetch::SERVICE => with::<Fetch>(frame, |call| {
            let envelopes = core.envelopes(&call.target).iter().map(|envelope| envelope.to_vec().into()).collect();
            now::<Fetch>(&FetchReply { envelopes, closer: core.closest(&call.target, call.closer) })
        }),
        Store::SERVICE => with::<Store>(frame, |call| {
            later::<Store, _>(core, move |core| async move { core.accept(&call.envelope, from) })
        }),
        Digest::SERVICE => with::<Digest>(frame, |call| {
            later::<Digest, _>(core, move |core| async move {
                core.with_storer(|storer, _| storer.answer_digest(&call, UnixMs::now(), DIGEST_BUDGET))
            })
        }),
        Keep::SERVICE => {
            with::<Keep>(frame, |call| later::<Keep, _>(core, move |core| async move { core.keep_for(&call.envelope) }))
        }
        PutRevocations::SERVICE => with::<PutRevocations>(frame, |call| {
            later::<PutRevocations, _>(core, move |core| async move { core.take_revocations(&call.list) })
        }),
        GetDescriptor::SERVICE => with::<GetDescriptor>(frame, |_| {
            let revocations = core.revocations().map(Into::into);
            now::<GetDescriptor>(&DescriptorReply { toml: core.descriptor().to_toml(), revocations })
        }),
        Lookup::SERVICE => with::<Lookup>(frame, |call| {
            let timeout = Duration::from_millis(call.timeout_ms).min(MAX_TIMEOUT);
            later::<Lookup, _>(core, move |core| async move { core.lookup(call.name, timeout).await.reply })
        }),
        Services::SERVICE => with::<Services>(frame, |call| {
            let timeout = Duration::from_millis(call.timeout_ms).min(MAX_TIMEOUT);
            let max_age = Duration::from_millis(call.max_age_ms);
            let wanted = match usize::try_from(call.wanted).unwrap_or(usize::MAX) {
                0 => Wanted::All,
                count => Wanted::Some(count),
            };
            later::<Services, _>(core, move |core| async move {
                core.services(call.service, wanted, max_age, timeout).await.into()
            })
        }),
        Put::SERVICE => with::<Put>(frame, |mut call| {
            call.timeout_ms = call.timeout_ms.min(u64::try_from(MAX_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
            later::<Put, _>(core, move |core| async move { core.put(call).await })
        }),
        Status::SERVICE => with::<Status>(frame, |_| now::<Status>(&core.status())),
        Held::SERVICE if caller == Caller::Local => with::<Held>(frame, |call| {
            let limit = usize::try_from(call.limit).unwrap_or(usize::MAX).min(MAX_HELD);
            now::<Held>(&core.with_storer(|storer, kept| {
                let mut reply = storer.held(UnixMs::now(), limit);
                for record in &mut reply.records {
                    record.kept = kept.contains(&record.name.position(), &record.instance);
                }
                reply
            }))
        }),
        Held::SERVICE | crate::client::Events::SERVICE => {
            let message = format!("'{}' is only for this member's own user, over its unix socket", frame.service);
            Answer::Now(ResponseFrame::Error(ErrorReply::new(ErrorCode::LocalOnly, message)))
        }
        _ => return None,
    })
}

/// Reads the call, or answers why it cannot be read.
fn with<C: Call>(frame: &RequestFrame, answer: impl FnOnce(C) -> Answer) -> Answer {
    match frame.call::<C>() {
        Ok(call) => answer(call),
        Err(error) => Answer::Now(ResponseFrame::Error(error)),
    }
}

/// An answer that takes a while.
fn later<C, F>(core: &Arc<Core>, work: impl FnOnce(Arc<Core>) -> F + Send + 'static) -> Answer
where
    C: Call<Reply: Send + Sync>,
    F: Future<Output = C::Reply> + Send,
{
    let core = core.clone();
    Answer::Later(Box::pin(async move { ResponseFrame::of::<C>(Ok(&work(core).await)) }))
}
