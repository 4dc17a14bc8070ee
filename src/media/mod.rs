//! What calls are about: descriptions of media sessions.

pub mod sdp;
