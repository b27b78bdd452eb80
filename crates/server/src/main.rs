//! The binary `musterbeat`.

fn main() -> std::process::ExitCode {
    musterbeat_server::cli::main()
}
