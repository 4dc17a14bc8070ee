//! Be a member of a P2PSIP overlay.

// A member's work passes from thread to thread, and glibc's allocator has them wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    p2psip::cli::join::main()
}
