//! Find the peers of a P2PSIP overlay that offer a service.
fn main() -> std::process::ExitCode {
    p2psip::cli::discover::main()
}
