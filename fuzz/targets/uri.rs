//! Any text: a URI that keeps its octets, is the same as itself, and whose host is read again from how it prints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2psip::sip::uri::{Host, Uri, unescape};

fuzz_target!(|text: &str| {
    let Ok(uri) = Uri::parse(text) else { return };
    assert_eq!(uri.as_str(), text);
    assert!(uri.is_equivalent(&uri));
    if let Some(sip) = uri.sip() {
        assert_eq!(Host::parse(&sip.host.to_string()), Ok(sip.host));
        let _ = (sip.maddr(), sip.transport(), sip.gr(), sip.is_loose_router());
        let _ = sip.user.map(unescape);
    }
});
