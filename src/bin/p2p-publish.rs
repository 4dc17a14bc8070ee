//! Publish proxy peers of a P2PSIP overlay in the DNS.
fn main() -> std::process::ExitCode {
    p2psip::cli::publish::main()
}
