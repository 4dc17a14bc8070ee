//! A whole P2PSIP world on loopback.
fn main() -> std::process::ExitCode {
    p2psip::cli::lab::main()
}
