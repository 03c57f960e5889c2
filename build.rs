//! Compiles `proto/` without needing `protoc` on the machine.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=start.order");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or("cargo sets OUT_DIR")?;
    if std::env::var_os("OPT_LEVEL").is_some_and(|level| level == "s") {
        ship(&out)?;
    }
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(["proto/worker/v1/worker.proto", "proto/control/v1/fleet.proto"])?;
    // What the reflection service tells.
    let described = out.join("descriptors.bin");
    std::fs::write(described, compiler.encode_file_descriptor_set())?;
    compiler.include_source_info(true);
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// What is shipped is built for size, and most of an idle process is pages of its own program.
fn ship(out: &Path) -> std::io::Result<()> {
    // Relocations are read at every start: packed they are 30 kB and not 730 (measured: a worker's memory falls by as
    // much).
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // The kernel maps 64 KiB around what is called, and of each 64 KiB a little is needed at the start: what a start calls
    // lies side by side (measured: a worker takes 10.4 MB and not 13.6). scripts/order-start.sh writes the names.
    let names = std::fs::read_to_string("start.order")?;
    let sections: Vec<String> = names.lines().map(|name| format!("*(.text.{name})")).collect();
    let script = out.join("start.ld");
    let text =
        format!("SECTIONS {{ .text.start : {{\n{}\n}} }}\nINSERT BEFORE .text;\n", sections.join("\n"));
    std::fs::write(&script, text)?;
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    Ok(())
}
