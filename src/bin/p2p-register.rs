//! Bind a user of a P2PSIP overlay to where that user is.
fn main() -> std::process::ExitCode {
    p2psip::cli::register::main()
}
