//! Be a member of a P2PSIP overlay.
fn main() -> std::process::ExitCode {
    p2psip::cli::join::main()
}
