//! What manuals say about all tools: the environment and the files.

/// A name and what it is for.
pub type Entry = (&'static str, &'static str);

/// The environment variables that tools read.
pub const ENVIRONMENT: [Entry; 10] = [
    ("P2PSIP_OVERLAY", "The overlay identifier, as --overlay."),
    ("P2PSIP_AOR", "The user that p2p-register registers unless told otherwise."),
    ("P2PSIP_PEER", "Multiaddrs of members, separated by spaces or commas, as --peer."),
    ("P2PSIP_SOCKET", "The unix socket of a running member, as --socket."),
    ("P2PSIP_DNS", "DNS servers, separated by spaces or commas, as --dns."),
    ("P2PSIP_HOME", "The folder of keys and certificates, as --home."),
    ("P2PSIP_LOG", "What is logged, MODULE=LEVEL separated by commas, instead of what -q and -v say."),
    ("NO_COLOR", "If set, no colour unless --color always."),
    ("XDG_CONFIG_HOME", "Where the user's configuration is, instead of ~/.config."),
    ("XDG_DATA_HOME", "Where the default home is, instead of ~/.local/share."),
];

/// The files that tools read and write.
pub const FILES: [Entry; 8] = [
    ("./p2psip.toml", "The configuration of a folder. p2p-join --print-config explains every key."),
    ("~/.config/p2psip/config.toml", "The configuration of a user; ./p2psip.toml outranks it."),
    ("~/.local/share/p2psip/", "The default home. What follows is in it."),
    ("descriptor.toml", "What the overlay is: identifier, policy, CA and limits."),
    ("peer.key, instance.key", "The keys that name a process and a device, PKCS#8, mode 0600."),
    ("certs/", "The certificates of this device and this peer."),
    ("member.sock", "The unix socket of the running member."),
    ("shell_history", "What was typed at the prompt of p2p-shell."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::Key;

    #[test]
    fn every_variable_is_in_the_manual() {
        for variable in Key::ALL.into_iter().filter_map(Key::variable) {
            assert!(ENVIRONMENT.iter().any(|(name, _)| *name == variable), "{variable}");
        }
    }
}
