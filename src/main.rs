//! The binary: all it does is in `posthaste::cli`.

fn main() -> std::process::ExitCode {
    posthaste::cli::run()
}
