//! The house rules that a machine can check: who may use whom, how long files are, where `unsafe` lives.

#[path = "tidy/circles.rs"]
mod circles;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// No source file is longer. Near this, look for the second subject.
const LINES_MAX: usize = 800;

/// The only files that may contain `unsafe`, each with one job.
const UNSAFE_FILES: &[&str] = &[
    "src/io/memory.rs",
    "src/io/glommio/",
    "src/io/ring.rs",
    "src/io/ring/",
    "src/server/signals.rs",
    "src/server/limits.rs",
    "loadgen/src/sys.rs",
    "benches/bare/src/ring.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

/// The rooms of `lib.rs`, top first.
fn rooms() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    lib.lines()
        .filter_map(|line| {
            let line = line.trim();
            let name = ["pub mod ", "pub(crate) mod ", "mod "].iter().find_map(|start| line.strip_prefix(start))?;
            name.strip_suffix(';').map(str::to_owned)
        })
        .collect()
}

/// The rooms that a file names, as `crate::room`, in any form of `use`.
fn used_rooms(text: &str, rooms: &[String]) -> Vec<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            // `use crate::{a::…, b::{…}}`: the names at depth one.
            let mut depth = 1;
            let mut word = String::new();
            let mut at_start = true;
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => at_start = true,
                    letter if depth == 1 && at_start && (letter.is_alphanumeric() || letter == '_') => {
                        word.push(letter)
                    }
                    letter if letter.is_whitespace() => {}
                    _ => at_start = at_start && word.is_empty(),
                }
                if (!at_start || letter == ',' || depth == 0) && !word.is_empty() {
                    used.push(std::mem::take(&mut word));
                    at_start = letter == ',';
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            let name: String = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            used.push(name);
        }
    }
    used.retain(|name| rooms.contains(name));
    used
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let rooms = rooms();
    assert!(rooms.len() > 10, "lib.rs was not understood: {rooms:?}");
    let height: BTreeMap<&str, usize> = rooms.iter().enumerate().map(|(index, room)| (room.as_str(), index)).collect();
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let name = relative(&file);
        let room = name.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default().to_owned();
        let Some(own) = height.get(room.as_str()) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        for used in used_rooms(&text, &rooms) {
            if height[used.as_str()] < *own {
                wrong.push(format!("{name} ({room}) uses {used}, which stands above it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let rooms: Vec<String> = ["net", "log", "io", "base"].map(String::from).to_vec();
    let used = |text: &str| used_rooms(text, &rooms);
    assert_eq!(used("use crate::net;"), ["net"]);
    assert_eq!(used("use crate::log::{Log, Read};"), ["log"]);
    assert_eq!(used("use crate::{\n    base::{Offset, Map},\n    io::Io,\n    net,\n};"), ["base", "io", "net"]);
    assert_eq!(used("let x = crate::io::join_all(y);"), ["io"]);
    assert_eq!(used("// crate::net is not used here"), Vec::<String>::new());
}

#[test]
fn files_have_one_subject() {
    let mut long = Vec::new();
    for file in ["src", "loadgen/src", "tests", "benches"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&file).expect("a source file");
        let lines = text.lines().count();
        // A table that a program writes is read by nobody from its front to its end.
        if lines > LINES_MAX && !text.starts_with("//! Made by tests/") {
            long.push(format!("{}: {lines} lines", relative(&file)));
        }
    }
    assert!(long.is_empty(), "longer than {LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let mut wrong = Vec::new();
    for file in ["src", "loadgen/src", "benches"].into_iter().flat_map(rust_files) {
        let name = relative(&file);
        let text = fs::read_to_string(&file).expect("a source file");
        let allowed = UNSAFE_FILES.iter().any(|place| name.starts_with(place));
        if text.contains("allow(unsafe_code)") && !allowed {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "unsafe outside its files: {wrong:?}");
}

/// The part of a file that is not its tests, without comments.
fn code(text: &str) -> String {
    let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    own.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect()
}

/// Where code names the crate glommio, and not our backend or the feature of that name.
fn names_glommio(code: &str) -> bool {
    code.match_indices("glommio").any(|(at, name)| {
        let before = code[..at].trim_end_matches("::");
        let is_ours = before.ends_with("io") && before.len() < at;
        let is_path = code[at + name.len()..].starts_with("::");
        let is_import = before.trim_end().ends_with("use");
        (is_path || is_import) && !is_ours
    })
}

#[test]
fn only_io_names_glommio_and_net_names_no_socket() {
    assert!(names_glommio("use glommio::net::TcpStream;") && names_glommio("let x = ::glommio::executor();"));
    assert!(!names_glommio("use crate::io::{Io, glommio as backend};\nlet x = crate::io::glommio::start();\n"));
    assert!(!names_glommio("#[cfg(feature = \"glommio\")]"));
    const SOCKETS: [&str; 6] = ["TcpStream", "TcpListener", "socket2", "os::fd", "libc::", "glommio"];
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let name = relative(&file);
        let code = code(&fs::read_to_string(&file).expect("a source file"));
        if !name.starts_with("src/io") && names_glommio(&code) {
            wrong.push(format!("{name} names glommio"));
        }
        let is_net = name.starts_with("src/net/") && !name.starts_with("src/net/tests");
        let code = code.replace("feature = \"glommio\"", "");
        if let Some(socket) = SOCKETS.iter().find(|socket| is_net && code.contains(**socket)) {
            wrong.push(format!("{name} names {socket}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The blocks of imports, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    Std,
    Crates,
    Own,
}

/// What is wrong with the imports at the head of a file: `std`, crates, `crate`, a blank line between, and each root once.
fn wrong_imports(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut last: Option<(Block, bool)> = None;
    let (mut blank, mut attribute) = (false, false);
    for line in text.lines() {
        let import = line.strip_prefix("use ");
        // What has an attribute stands apart.
        if let (Some(path), false) = (import, attribute) {
            let root = path.trim_start_matches("::").split([':', ';', ' ']).next().unwrap_or_default();
            let block = match root {
                "std" | "core" | "alloc" => Block::Std,
                "crate" | "super" | "self" => Block::Own,
                _ => Block::Crates,
            };
            if seen.contains(&root) {
                wrong.push(format!("{root} is imported from twice"));
            }
            seen.push(root);
            if let Some((before, _)) = last
                && (block < before || (block > before) != blank)
            {
                wrong.push(format!("`{line}` is not in its block"));
            }
            last = Some((block, blank));
        }
        // A blank line counts until the next import, also with a long import before it.
        blank = line.is_empty() || (blank && import.is_none());
        if import.is_some() {
            blank = false;
        }
        attribute = line.starts_with("#[");
        // Other items end the head; tests and macros below have imports of their own.
        let goes_on = ["use ", "pub use ", "mod ", "pub mod ", "pub(crate) mod ", " ", "}", "#", "//"];
        if !line.is_empty() && !goes_on.iter().any(|start| line.starts_with(start)) {
            break;
        }
    }
    wrong
}

#[test]
fn imports_have_one_style() {
    assert_eq!(
        wrong_imports("use std::{\n    fmt,\n    io,\n};\n\nuse bytes::Bytes;\nuse uuid::Uuid;\n\nuse crate::io;\n"),
        [""; 0]
    );
    assert_eq!(wrong_imports("use std::fmt;\nuse std::io;\n"), ["std is imported from twice"]);
    assert_eq!(wrong_imports("use std::fmt;\nuse bytes::Bytes;\n"), ["`use bytes::Bytes;` is not in its block"]);
    assert_eq!(wrong_imports("use bytes::Bytes;\n\nuse uuid::Uuid;\n"), ["`use uuid::Uuid;` is not in its block"]);
    assert_eq!(wrong_imports("use crate::io;\n\nuse std::fmt;\n"), ["`use std::fmt;` is not in its block"]);
    let mut wrong = Vec::new();
    for file in ["src", "loadgen/src", "loadgen/tests", "tests", "benches"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&file).expect("a source file");
        wrong.extend(wrong_imports(&text).into_iter().map(|why| format!("{}: {why}", relative(&file))));
    }
    // cargo +nightly fmt --all -- --config imports_granularity=Crate,group_imports=StdExternalCrate; cargo fmt --all
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lines that say `# Errors` in another form than `/// # Errors  What they are.`, right below what it belongs to.
fn wrong_errors(text: &str) -> Vec<usize> {
    let mut wrong = Vec::new();
    let mut before = "";
    for (line, number) in text.lines().map(str::trim_start).zip(1..) {
        if let Some(words) = line.strip_prefix("/// # Errors") {
            let told = words.strip_prefix("  ").is_some_and(|words| !words.is_empty() && !words.starts_with(' '));
            if !told || before == "///" {
                wrong.push(number);
            }
        }
        before = line;
    }
    wrong
}

#[test]
fn errors_are_told_in_one_form() {
    assert_eq!(wrong_errors("/// Reads.\n/// # Errors  It cannot.\n/// And more.\nfn f() {}\n"), [0; 0]);
    assert_eq!(
        wrong_errors("/// # Errors\n/// It cannot.\n\n/// Reads.\n///\n/// # Errors  It cannot.\n/// # Errors Too.\n"),
        [1, 6, 7]
    );
    let mut wrong = Vec::new();
    for file in ["src", "loadgen/src"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&file).expect("a source file");
        wrong.extend(wrong_errors(&text).into_iter().map(|line| format!("{}:{line}", relative(&file))));
    }
    assert!(wrong.is_empty(), "`# Errors` in another form:\n{}", wrong.join("\n"));
}
