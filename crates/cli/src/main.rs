//! The binary `dacapo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dacapo_cli::main()
}
