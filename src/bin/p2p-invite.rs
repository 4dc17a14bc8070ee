//! Place test calls in and across a P2PSIP overlay.
fn main() -> std::process::ExitCode {
    p2psip::cli::invite::main()
}
