//! The binary `dacapo`, built beside this package's tests, which operate the service with it.

fn main() -> std::process::ExitCode {
    dacapo_cli::main()
}
