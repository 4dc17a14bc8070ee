//! Look users and services up in a P2PSIP overlay.
fn main() -> std::process::ExitCode {
    p2psip::cli::lookup::main()
}
