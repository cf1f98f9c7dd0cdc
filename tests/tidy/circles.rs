//! No file of a room may need another one that needs it: then neither can be read, tested or moved alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{relative, rooms, rust_files};

/// Rooms that still have circles, and how many of their files lie in one. The numbers may only become smaller, and no room may
/// come anew.
const IN_CIRCLES: &[(&str, usize)] =
    &[("server", 5), ("api", 2), ("shard", 5), ("io", 15), ("group", 8), ("config", 5), ("protocol", 16)];

/// Modules of one room, each with those of the same room that it uses.
type Uses = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

fn words(path: &str) -> Vec<String> {
    path.split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// The code without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// The paths of a tree of imports, as behind `use`.
fn expand(tree: &str, before: &[String], paths: &mut Vec<Vec<String>>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((path, rest)) => {
                let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
                expand(inner, &[before, &words(path)].concat(), paths);
            }
            None => {
                let path = part.split(" as ").next().unwrap_or_default();
                paths.push([before, &words(path)].concat());
            }
        }
    }
}

/// Every path that a file names: its imports, and what stands in the code. What it passes on of its own children it does not
/// use.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code = code(text);
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut statement: Option<(bool, String)> = None;
    for line in code.lines() {
        let (passed_on, import) = match line.trim_start() {
            line if line.starts_with("use ") => (false, line.strip_prefix("use ")),
            line if line.starts_with("pub use ") => (true, line.strip_prefix("pub use ")),
            line => (true, line.strip_prefix("pub(super) use ").or_else(|| line.strip_prefix("pub(crate) use "))),
        };
        match (&mut statement, import) {
            (None, Some(import)) => statement = Some((passed_on, import.to_owned())),
            (Some((_, tree)), _) => tree.push_str(line),
            (None, None) => rest.push_str(&format!("{line}\n")),
        }
        if let Some((passed_on, tree)) = statement.take_if(|(_, tree)| tree.contains(';')) {
            let mut found = Vec::new();
            expand(tree.trim().trim_end_matches(';'), &[], &mut found);
            let inside = |path: &Vec<String>| passed_on && path[0] != "crate" && path[0] != "super";
            paths.extend(found.into_iter().filter(|path| !inside(path)));
        }
    }
    for root in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(root) {
            let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
            let path: String = rest[at..].chars().take_while(|letter| is_word(*letter)).collect();
            // The second `super` of a path is no path of its own.
            if !rest[..at].ends_with("::") {
                paths.push(words(&path));
            }
        }
    }
    paths
}

/// The modules of a room, by their files below `src`.
fn uses(files: &BTreeMap<Vec<String>, String>) -> Uses {
    let used = |module: &Vec<String>, text: &str| {
        let found = paths(text).into_iter().filter_map(|path| {
            let mut at = match path[0].as_str() {
                "crate" => path[1..].to_vec(),
                "super" => {
                    let up = path.iter().take_while(|word| *word == "super").count();
                    [&module[..module.len().saturating_sub(up)], &path[up..]].concat()
                }
                _ => [&module[..], &path[..]].concat(),
            };
            while !at.is_empty() && !files.contains_key(&at) {
                at.pop();
            }
            // What a file names with a bare word is a child of its, or a crate.
            (!at.is_empty() && at != *module).then_some(at)
        });
        found.collect()
    };
    files.iter().map(|(module, text)| (module.clone(), used(module, text))).collect()
}

fn reaches(uses: &Uses, from: &[String], to: &[String]) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from.to_vec()]);
    while let Some(module) = left.pop() {
        for next in uses.get(&module).into_iter().flatten() {
            if *next == to {
                return true;
            }
            if seen.insert(next.clone()) {
                left.push(next.clone());
            }
        }
    }
    false
}

/// The modules that can be reached from themselves.
fn in_circles(uses: &Uses) -> Vec<String> {
    let found = uses.keys().filter(|module| reaches(uses, module, module));
    found.map(|module| module.join("::")).collect()
}

fn files_of(room: &str) -> BTreeMap<Vec<String>, String> {
    let module = |name: &str| words(&name.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::"));
    let all = rust_files("src").into_iter().map(|path| (module(&relative(&path)), path));
    // The room's own file says what the room is to others, and its tests may use all of it.
    let ours = all.filter(|(module, _)| module[0] == room && module.len() > 1 && !module.contains(&"tests".to_owned()));
    ours.map(|(module, path)| (module, fs::read_to_string(path).expect("a source file"))).collect()
}

#[test]
fn no_files_of_a_room_need_each_other() {
    let mut wrong = Vec::new();
    for room in rooms() {
        let found = in_circles(&uses(&files_of(&room)));
        let allowed = IN_CIRCLES.iter().find(|(name, _)| *name == room).map_or(0, |(_, count)| *count);
        if found.len() > allowed {
            wrong.push(format!("{room}: {} files lie in circles, {allowed} may: {}", found.len(), found.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_finder_of_circles_sees_every_form() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(module, text)| (words(module), (*text).to_owned())).collect();
        in_circles(&uses(&files))
    };
    let a = "use std::fmt;\nuse crate::{\n    base::Offset,\n    r::{b::{B, C}, d},\n};\n";
    for b in ["use crate::r::a::A;", "use super::a;", "fn f() { super::a::g() }", "fn f() { crate::r::a::g() }"] {
        assert_eq!(circles(&[("r::a", a), ("r::b", b), ("r::d", "")]), ["r::a", "r::b"], "{b}");
    }
    for b in [
        "// use super::a;",
        "use crate::q::a::A;",
        "use a::b;",
        "#[cfg(test)]\nmod tests {\n    use super::super::a;\n}",
    ] {
        assert_eq!(circles(&[("r::a", a), ("r::b", b), ("r::d", "")]), Vec::<String>::new(), "{b}");
    }
    let child = "use super::P;";
    assert_eq!(circles(&[("r::p", "mod c;\nuse c::C;"), ("r::p::c", child)]), ["r::p", "r::p::c"]);
    assert_eq!(circles(&[("r::p", "mod c;\npub use c::C;"), ("r::p::c", child)]), Vec::<String>::new());
    let three = [("r::a", "use super::b;"), ("r::b", "use super::c::{self, D};"), ("r::c", "use super::a::E as F;")];
    assert_eq!(circles(&three), ["r::a", "r::b", "r::c"]);
}
