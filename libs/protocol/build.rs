//! Generates the messages and the gRPC service without needing `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/document.proto");
    println!("cargo:rerun-if-changed=proto/directory.proto");
    let files = protox::compile(["proto/document.proto", "proto/directory.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
