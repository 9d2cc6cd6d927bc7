//! How the image links the agent, which has to fit its layer: `AGENT_LINK_ARGUMENTS` goes to the linker. The clients of AWS are made of much code
//! that is the same code many times, and only some linkers fold that. A flag for the compiler would compile everything anew instead.

#![allow(
    clippy::print_stdout,
    reason = "this is how a build script speaks to cargo"
)]

fn main() {
    const VARIABLE: &str = "AGENT_LINK_ARGUMENTS";
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    println!("cargo:rerun-if-changed=build.rs");
    let Some(arguments) = std::env::var_os(VARIABLE) else {
        return;
    };
    let arguments = arguments
        .into_string()
        .expect("the arguments of a linker are text");
    for argument in arguments.split_whitespace() {
        println!("cargo:rustc-link-arg-bin=edit-agent={argument}");
    }
}
