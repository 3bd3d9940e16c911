//! House rules that neither Cargo nor clippy can see; each breach is reported as `file:line: what`.
//!
//! - The cores (`protocol`, `storage` but for RocksDB, `cluster`) take the time and everything else from outside: no
//!   task, socket, thread, clock, file, environment, randomness or printing. Their tests may use what they need.
//! - Crates depend in one direction.
//! - Every file begins with a module doc, has one concern (600 lines at most), and leaves nothing to do later.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a breach or a bad checkout fails the test")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Sources of the pure cores, and of the simulation, which must be a function of its seed.
const CORES: &[&str] = &["protocol/src", "storage/src", "cluster/src", "tests/simulation/src"];
/// What in them is a shell: it talks to the disk, or runs seeds on threads and shows what came of them.
const SHELLS_IN_CORES: &[&str] = &[
    "storage/src/engine/rocks.rs",
    "storage/src/engine/rocks",
    "tests/simulation/src/main.rs",
    "tests/simulation/src/runner.rs",
];
/// All sources.
const SOURCES: &[&str] =
    &["protocol", "storage", "cluster", "src", "tests", "benches", "compat/rust", "scripts"];
/// Never looked into.
const SKIPPED_DIRECTORIES: &[&str] = &["target", "node_modules", ".venv"];

const LINES_MAX: usize = 600;
/// Longer files, and why.
const LONG_FILES: &[(&str, &str)] = &[];

/// Names that a core must not use, wherever they stand.
const FORBIDDEN_NAMES: &[(&str, &str)] = &[
    ("tokio", "a core knows no tasks"),
    ("Instant", "a core is told the time"),
    ("SystemTime", "a core is told the time"),
    ("rand", "a core is given its randomness"),
    ("getrandom", "a core is given its randomness"),
    ("RandomState", "a core is given its randomness"),
    ("println", "a core does not print"),
    ("eprintln", "a core does not print"),
    ("print", "a core does not print"),
    ("eprint", "a core does not print"),
    ("dbg", "a core does not print"),
];
/// Modules of `std` that a core must not use.
const FORBIDDEN_MODULES: &[(&str, &str)] = &[
    ("net", "a core owns no socket"),
    ("thread", "a core owns no thread"),
    ("fs", "a core owns no file"),
    ("env", "a core is told its settings"),
    ("process", "a core does not know the process"),
];
/// Crate and what its manifest must not mention.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("protocol", &["gyre-storage", "gyre-cluster", "tokio", "rand ="]),
    ("storage", &["gyre-protocol", "gyre-cluster", "tokio"]),
    ("cluster", &["gyre-protocol", "tokio", "rand ="]),
    ("tests/simulation", &["gyre-protocol", "tokio", "rand ="]),
];

#[test]
fn cores_are_pure() {
    let mut breaches = Vec::new();
    for file in CORES.iter().flat_map(|core| rust_files(&root().join(core))) {
        let name = relative(&file);
        if SHELLS_IN_CORES.iter().any(|shell| name == *shell || name.starts_with(&format!("{shell}/")))
            || is_test_file(&file)
        {
            continue;
        }
        let code = without_tests(&without_comments_and_strings(&fs::read_to_string(&file).unwrap()));
        breaches.extend(impurities(&code).into_iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn crates_depend_in_one_direction() {
    for (crate_dir, forbidden) in FORBIDDEN_DEPENDENCIES {
        let manifest = fs::read_to_string(root().join(crate_dir).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for name in *forbidden {
            let breach = dependencies.lines().position(|line| line.starts_with(name));
            assert!(
                breach.is_none(),
                "{crate_dir}/Cargo.toml:{}: depends on {name}",
                breach.unwrap_or(0) + 1
            );
        }
    }
}

#[test]
fn every_file_is_documented_short_and_finished() {
    let mut breaches = Vec::new();
    for file in SOURCES.iter().flat_map(|dir| rust_files(&root().join(dir))) {
        let name = relative(&file);
        let text = fs::read_to_string(&file).unwrap();
        let is_allowed = LONG_FILES.iter().any(|(long, _)| *long == name);
        breaches.extend(
            shape(&text, is_allowed).into_iter().map(|(line, what)| format!("{name}:{line}: {what}")),
        );
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn exceptions_are_still_needed() {
    for (name, reason) in LONG_FILES {
        let lines = fs::read_to_string(root().join(name)).unwrap_or_default().lines().count();
        assert!(lines > LINES_MAX, "{name} has {lines} lines: take it off the list ({reason})");
    }
    for shell in SHELLS_IN_CORES {
        assert!(root().join(shell).exists(), "{shell} is gone: take it off the list");
    }
}

/// Breaches of the purity of a core: line and what. Comments, strings and tests are taken out before.
fn impurities(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let words = words(text);
        for (at, word) in words.iter().enumerate() {
            let is_path = words.get(at + 1).is_some_and(|next| next == "::");
            let of_std = at >= 2 && words[at - 1] == "::" && words[at - 2] == "std";
            let name = FORBIDDEN_NAMES.iter().find(|(name, _)| name == word);
            let module = FORBIDDEN_MODULES.iter().find(|(name, _)| name == word && (is_path || of_std));
            if let Some((name, why)) = name.or(module) {
                found.push((line + 1, format!("{name}: {why}")));
            }
        }
    }
    found
}

/// Breaches of the shape of a file: line and what.
fn shape(text: &str, may_be_long: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push((1, "no module doc (//!) at the top".to_string()));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !may_be_long {
        found.push((lines, format!("{lines} lines, more than {LINES_MAX}: what second thing lives here?")));
    }
    // In two halves, so that this file does not find itself.
    let unfinished =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimplemented", "!("), concat!("todo", "!(")];
    for (line, text) in text.lines().enumerate() {
        if let Some(word) = unfinished.iter().find(|word| text.contains(**word)) {
            found.push((line + 1, format!("{word}: finish it, or write an issue")));
        }
    }
    found
}

/// Identifiers and `::` of a line, in order.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            rest = &rest[first.len_utf8()..];
            continue;
        };
        words.push(rest[..length].to_string());
        rest = &rest[length..];
    }
    words
}

/// `text` with every comment and the inside of every literal blanked; lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment_end(&chars, at),
            '"' => string_end(&chars, at + 1),
            'r' if is_raw_string(&chars, at) => raw_string_end(&chars, at),
            '\'' => char_literal_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn line_end(chars: &[char], from: usize) -> usize {
    (from..chars.len()).find(|at| chars[*at] == '\n').unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    (from + 2..chars.len())
        .find(|at| chars[at - 1] == '*' && chars[*at] == '/')
        .map_or(chars.len(), |at| at + 1)
}

/// The end of the string whose inside begins at `from`.
fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn is_raw_string(chars: &[char], at: usize) -> bool {
    let continues_a_name =
        at > 0 && (chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b' || chars[at - 1] == '_');
    let after_hashes = chars[at + 1..].iter().find(|c| **c != '#');
    !continues_a_name && after_hashes == Some(&'"')
}

fn raw_string_end(chars: &[char], from: usize) -> usize {
    let hashes = chars[from + 1..].iter().take_while(|c| **c == '#').count();
    let is_end = |at: &usize| {
        chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (from + hashes + 2..chars.len()).find(is_end).map_or(chars.len(), |at| at + 1 + hashes)
}

/// The end of a character literal; `None` for a lifetime.
fn char_literal_end(chars: &[char], at: usize) -> Option<usize> {
    let last = if chars.get(at + 1) == Some(&'\\') {
        (at + 3..chars.len()).find(|at| chars[*at] == '\'')?
    } else {
        at + 2
    };
    (chars.get(last) == Some(&'\'')).then_some(last + 1)
}

/// `code` with the items under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (before, item) = rest.split_at(start);
        let end = item_end(item);
        out.push_str(before);
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out + rest
}

/// Where the first item of `code` ends: at its `;`, or at the brace that closes its first.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether `file` is a module that its parent declares under `#[cfg(test)]`, or lies in one.
fn is_test_file(file: &Path) -> bool {
    let mut at = file.to_path_buf();
    while let (Some(dir), Some(name)) = (at.parent(), at.file_stem().and_then(|stem| stem.to_str())) {
        let parents = [dir.join("mod.rs"), dir.join("lib.rs"), dir.with_extension("rs")];
        let declaration = format!("mod {name};");
        let is_declared_for_tests =
            parents.iter().filter_map(|parent| fs::read_to_string(parent).ok()).any(|text| {
                let code = without_comments_and_strings(&text);
                code.contains(&declaration) && !without_tests(&code).contains(&declaration)
            });
        if is_declared_for_tests {
            return true;
        }
        if name == "src" {
            return false;
        }
        at = dir.to_path_buf();
    }
    false
}

/// The checkout that this is run in: with a target directory shared between checkouts, the program may have been built
/// from another.
fn root() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// All `.rs` files below `dir`, in order.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let is_skipped = |path: &Path| SKIPPED_DIRECTORIES.iter().any(|name| path.ends_with(name));
    paths
        .into_iter()
        .flat_map(|path| match path.is_dir() {
            true if is_skipped(&path) => Vec::new(),
            true => rust_files(&path),
            false => Vec::from_iter((path.extension().is_some_and(|end| end == "rs")).then_some(path)),
        })
        .collect()
}

mod the_rules_themselves {
    //! A rule that finds nothing must be one that could.
    use super::*;

    fn lines_found(code: &str) -> Vec<usize> {
        let code = without_tests(&without_comments_and_strings(code));
        impurities(&code).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn impure_names_are_found_where_they_stand() {
        assert_eq!(lines_found("use std::time::{Duration, Instant};\n"), [1]);
        assert_eq!(lines_found("fn f() {\n    let now = SystemTime::now();\n}\n"), [2]);
        assert_eq!(lines_found("use std::thread;\n\nfn f() { thread::spawn(g); }"), [1, 3]);
        assert_eq!(
            lines_found("let s = std::net::TcpStream::connect(a);\nlet n: u64 = rand::random();"),
            [1, 2]
        );
        assert_eq!(lines_found("use tokio::task;\nprintln!(\"x\");\nlet x = std::env::var(y);"), [1, 2, 3]);
    }

    #[test]
    fn words_in_comments_strings_and_longer_names_are_no_breach() {
        assert!(
            lines_found("// tokio\n/* Instant::now() */ let random_tokio = \"tokio \\\" rand::random\";")
                .is_empty()
        );
        assert!(
            lines_found(
                "let a = r#\"std::thread \" \"#; let thread = 1; let c = '\"'; let net_share = b\"rand\";"
            )
            .is_empty()
        );
        assert!(lines_found("fn f<'a>(x: &'a str) -> &'a str { x } // Instant\n").is_empty());
        assert_eq!(lines_found("let quote = '\\''; let now = Instant::now();"), [1]);
    }

    #[test]
    fn tests_are_exempt_and_what_follows_them_is_not() {
        let code =
            "#[cfg(test)]\nmod tests {\n    use std::thread;\n    fn f() { if x {} }\n}\nuse std::thread;\n";
        assert_eq!(lines_found(code), [6]);
        assert_eq!(lines_found("#[cfg(test)]\nmod tests;\nuse tokio::net;\n"), [3]);
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_known() {
        assert!(is_test_file(&root().join("cluster/src/ring/tests.rs")));
        assert!(!is_test_file(&root().join("cluster/src/ring.rs")));
    }

    #[test]
    fn bad_shapes_are_found() {
        assert_eq!(shape("fn f() {}\n", false), [(1, "no module doc (//!) at the top".to_string())]);
        let long = format!("//! Doc.\n{}", "x\n".repeat(LINES_MAX));
        assert_eq!(shape(&long, false)[0].0, LINES_MAX + 1);
        assert!(shape(&long, true).is_empty());
        assert_eq!(shape(concat!("//! Doc.\n// TO", "DO later\n"), false)[0].0, 2);
    }
}
