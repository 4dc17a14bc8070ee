//! Answer test calls in a P2PSIP overlay or beside it.

// A member's work passes from thread to thread, and glibc's allocator has them wait for each other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    p2psip::cli::answer::main()
}
