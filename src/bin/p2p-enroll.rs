//! Make overlays and give their users certificates.
fn main() -> std::process::ExitCode {
    p2psip::cli::enroll::main()
}
