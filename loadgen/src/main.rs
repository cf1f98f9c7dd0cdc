//! The program; everything else is in the library.

fn main() {
    std::process::exit(ringtail_loadgen::cli::main());
}
