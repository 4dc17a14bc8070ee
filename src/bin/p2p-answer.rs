//! Answer test calls in a P2PSIP overlay or beside it.
fn main() -> std::process::ExitCode {
    p2psip::cli::answer::main()
}
