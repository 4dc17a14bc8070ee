//! The options that tools share, as typed; [`super::settings`] gives them meaning.

use std::path::PathBuf;

use super::output::ColorChoice;

/// What every tool has, and each of its commands: how to print.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct CommonArgs {
    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "short", global = true)]
    pub(super) json: bool,

    /// Print bare values, one a line
    #[arg(long, global = true)]
    pub(super) short: bool,

    /// Print results and errors only
    #[arg(short, long, conflicts_with = "verbose", global = true)]
    pub(super) quiet: bool,

    /// Say what is going on; -vv and -vvv say more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(super) verbose: u8,

    /// Colour: auto, always or never; NO_COLOR means never
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        global = true
    )]
    pub(super) color: ColorChoice,
}

/// Where keys, certificates and settings are, for the tools that need some.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct HomeArgs {
    /// Folder of keys and certificates [env: P2PSIP_HOME]
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) home: Option<PathBuf>,

    /// Configuration file, instead of ./p2psip.toml and the user's
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
}

/// How to reach an overlay, for the tools that do.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct AccessArgs {
    /// Overlay identifier, such as p2psip.org [env: P2PSIP_OVERLAY]
    #[arg(long, value_name = "ID", global = true)]
    pub(super) overlay: Option<String>,

    /// Descriptor of the overlay, if not the home's
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) descriptor: Option<PathBuf>,

    /// Ask this member; repeat for several [env: P2PSIP_PEER]
    #[arg(long, value_name = "MULTIADDR", global = true)]
    pub(super) peer: Vec<String>,

    /// Unix socket of the member on this machine [env: P2PSIP_SOCKET]
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) socket: Option<PathBuf>,

    /// DNS server, ADDR or ADDR:PORT; repeat for several [env: P2PSIP_DNS]
    #[arg(long, value_name = "ADDR", global = true)]
    pub(super) dns: Vec<String>,

    /// Seconds until the first answer, such as 2.5 [default: 5]
    #[arg(long, value_name = "S", allow_negative_numbers = true, global = true)]
    pub(super) timeout: Option<String>,

    /// Use IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6", global = true)]
    pub(super) ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6', global = true)]
    pub(super) ipv6: bool,
}

/// The options of a tool that goes to an overlay: how to reach it, where its own things are, how to print.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct OverlayArgs {
    #[command(flatten)]
    pub(super) access: AccessArgs,

    #[command(flatten)]
    pub(super) home: HomeArgs,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}
