//! A whole P2PSIP world on loopback.

// A member's work passes from thread to thread, and glibc's allocator has them wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    p2psip::cli::lab::main()
}
