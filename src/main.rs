//! The `flux` executable: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    flux::cli::main(std::env::args_os())
}
