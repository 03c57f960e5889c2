//! Compiles `proto/` without needing `protoc` on the machine.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // What is shipped is built for size, and most of an idle process is pages of its own program. Relocations are read
    // at every start: packed they are 30 kB and not 730 (measured: a worker's memory falls by as much).
    if std::env::var_os("OPT_LEVEL").is_some_and(|level| level == "s") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(["proto/worker/v1/worker.proto", "proto/control/v1/fleet.proto"])?;
    // What the reflection service tells.
    let described = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets OUT_DIR")?;
    let described = described.join("descriptors.bin");
    std::fs::write(described, compiler.encode_file_descriptor_set())?;
    compiler.include_source_info(true);
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
