//! Look around in a P2PSIP overlay, command by command.
fn main() -> std::process::ExitCode {
    p2psip::cli::shell::main()
}
