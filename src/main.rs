//! The binary: all it does is in `posthaste::cli`.

/// glibc's allocator cost a sixth of the CPU of a relayed message: bodies are allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    posthaste::cli::run()
}
