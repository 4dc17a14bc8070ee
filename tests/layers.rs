//! The layers import one way, and each outside world has one door.
//!
//! Reads the sources as text: comments and strings are blanked, then `crate::` paths and names of crates are found.

use std::{collections::BTreeSet, path::Path};

use crate::support::{files_below, root};

/// The steps from the bottom up. Modules on one step never import each other, and nothing imports upwards.
const STEPS: [&[&str]; 12] = [
    &["bounded", "clock", "kind"],
    &["name"],
    &["identity"],
    &["record"],
    &["client"],
    &["overlay", "dns", "sip", "media"],
    &["gatekeeper", "proxy", "relay", "ua"],
    &["member"],
    &["ops"],
    &["lab"],
    &["cli"],
    &["bin"],
];

/// Crates that only one layer may name.
const DOORS: [(&str, &[&str]); 3] = [
    ("overlay", &["libp2p", "libp2p_stream", "libp2p_kad", "libp2p_identity"]),
    ("dns", &["hickory_proto", "hickory_resolver", "hickory_server"]),
    ("cli", &["clap", "comfy_table", "colored", "indicatif", "anyhow", "rustyline", "tracing_subscriber"]),
];

fn step(module: &str) -> Option<usize> {
    STEPS.iter().position(|step| step.contains(&module))
}

#[test]
fn every_path_in_the_crate_points_down() {
    let mut wrong = Vec::new();
    for (file, module, code) in sources() {
        let Some(own) = step(&module) else {
            wrong.push(format!("{file}: module '{module}' has no step; give it one in tests/layers.rs"));
            continue;
        };
        for used in imports(&code, depth(&file)) {
            match step(&used) {
                _ if used == module => {}
                Some(step) if step < own => {}
                Some(_) => wrong.push(format!("{file}: {module} may not import {used}")),
                None => wrong.push(format!("{file}: imports '{used}', which is no module")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_outside_world_has_one_door() {
    let mut wrong = Vec::new();
    for (file, module, code) in sources() {
        for (owner, crates) in DOORS {
            for name in crates.iter().filter(|name| module != owner && names_crate(&code, name)) {
                wrong.push(format!("{file}: only {owner}/ may name {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn binaries_only_call_their_tool() {
    for (file, _, code) in sources().into_iter().filter(|(_, module, _)| module == "bin") {
        let tool = Path::new(&file).file_stem().unwrap().to_string_lossy().replace("p2p-", "");
        assert!(code.contains(&format!("p2psip::cli::{tool}::main()")), "{file} does not call its tool's main");
        // A binary's allocator is its own affair: two lines.
        let allocator = code.matches("#[global_allocator]\nstatic ALLOCATOR: ").count();
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 3 + 2 * allocator, "{file} does more than that");
    }
}

/// Every source as (path, top module, code without comments and strings).
fn sources() -> Vec<(String, String, String)> {
    let src = root().join("src");
    let mut sources = Vec::new();
    for path in files_below(&src, ".rs") {
        let relative = path.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if module != "lib" {
            let code = blank(&std::fs::read_to_string(&path).unwrap());
            sources.push((format!("src/{}", relative.display()), module, code));
        }
    }
    assert!(!sources.is_empty());
    sources
}

/// How many modules below the crate's root a file's own module is.
fn depth(file: &str) -> usize {
    let parts = file.trim_start_matches("src/").split('/').count();
    if file.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// The top modules that code names through `crate::`, or through enough `super::` to reach the root.
fn imports(code: &str, depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if !code[..at].ends_with(['_', '$']) && !code[..at].ends_with(char::is_alphanumeric) {
            found.extend(heads(&code[at + "crate::".len()..]));
        }
    }
    let chain = "super::".repeat(depth);
    for (at, _) in code.match_indices(&chain) {
        let rest = code[at + chain.len()..].trim_start_matches("super::");
        found.extend(heads(rest).into_iter().filter(|head| step(head).is_some()));
    }
    found
}

/// The first names after a `::`: one, or those of a `{…}` group.
fn heads(rest: &str) -> Vec<String> {
    let identifier = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![identifier(rest)].into_iter().filter(|name| !name.is_empty()).collect();
    };
    let (mut level, mut names, mut expecting) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' => level -= 1,
            ',' if level == 1 => expecting = true,
            c if expecting && level == 1 && !c.is_whitespace() => {
                names.push(identifier(&group[at..]));
                expecting = false;
            }
            _ => {}
        }
        if level == 0 {
            break;
        }
    }
    names
}

/// Whether code has a path that begins with the crate.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let after = &code[at + name.len()..];
        !before.is_alphanumeric() && before != '_' && !code[..at].ends_with("::") && after.starts_with("::")
    })
}

/// The code with comments, strings and characters replaced by spaces.
fn blank(source: &str) -> String {
    let chars = source.chars().collect::<Vec<_>>();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"' | '#', ..] if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            ['"', ..] => quoted(rest, '"'),
            // A lifetime has no closing quote close by.
            ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted(rest, '\''),
            _ => 0,
        };
        if length == 0 {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(rest[..length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    code
}

fn block_comment(rest: &[char]) -> usize {
    let mut level = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (level, at) = (level + 1, at + 2),
            ['*', '/', ..] => (level, at) = (level - 1, at + 2),
            _ => at += 1,
        }
        if level == 0 {
            break;
        }
    }
    at
}

/// A raw string's length; 0 for a raw identifier.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut at = 2 + hashes;
    while at < rest.len() {
        let closes = rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    rest.len()
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

#[test]
fn the_reader_sees_what_a_compiler_would() {
    let code = blank(
        "use crate::{name::{Aor, OverlayId}, kind::Kind}; // crate::cli\n/* crate::lab /* */ crate::ops */\n\
         let a = \"crate::member \\\" crate::member\"; let b = r#\"crate::ua\"#; let c: &'static str; let d = '\"';\n\
         fn f() -> crate::record::Refusal { $crate::sip::x(); super::super::dns::y() } let r#type = 1;",
    );
    let seen = imports(&code, 2).into_iter().collect::<Vec<_>>();
    assert_eq!(seen, ["dns", "kind", "name", "record"]);
    assert!(!imports("super::super::dns", 3).contains("dns"));
    assert!(names_crate("use libp2p::kad;", "libp2p"));
    assert!(!names_crate("use libp2p_kad::x; a::libp2p::b; my_libp2p::c", "libp2p"));
}
