//! Tests of the README and the pages in `docs/`: links, commands, options, run files, and the output that they show.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use uphill::Config;

use crate::common::*;
use crate::python::succeeds;
use crate::screen::Screen;

/// The paths of all pages.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    pages.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    assert!(pages.len() > 12, "{pages:?}");
    pages
}

fn text(page: &Path) -> String {
    std::fs::read_to_string(page).expect("a page")
}

/// The code blocks of a page, with their languages.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((kind.to_string(), block.join("\n")));
        }
    }
    blocks
}

/// The text of a page without its code blocks.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect()
}

/// The targets of the links and images of a page.
fn links(text: &str) -> Vec<String> {
    let ends = [("](", ')'), ("src=\"", '"')];
    let found = |(begin, end): (&str, char)| -> Vec<String> {
        text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_string())).collect()
    };
    ends.into_iter().flat_map(found).collect()
}

/// The anchors of the headings of a page, as GitHub generates them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_has_a_target() {
    for page in pages() {
        let text = text(&page);
        for link in links(&prose(&text)).into_iter().filter(|link| !link.starts_with("https://")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("a folder").join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if let Some(anchor) = anchor {
                let found = anchors(&std::fs::read_to_string(&target).expect("a page"));
                assert!(found.contains(anchor), "{}: {link}: there are {found:?}", page.display());
            }
        }
    }
}

#[test]
fn the_list_of_pages_has_all_of_them() {
    let docs = root().join("docs");
    let list = text(&docs.join("README.md"));
    let listed: BTreeSet<PathBuf> = links(&list).into_iter().map(|link| docs.join(link)).collect();
    for page in pages().into_iter().filter(|page| page.starts_with(&docs) && !page.ends_with("README.md")) {
        assert!(listed.contains(&page), "docs/README.md lacks {}", page.display());
    }
}

/// The pages show parts of run files. The test adds `[database]` and `[score]` if they are missing.
#[test]
fn the_run_files_of_the_pages_are_valid() {
    let mut read = 0;
    for page in pages() {
        for (_, block) in blocks(&text(&page)).into_iter().filter(|(kind, _)| kind.split(' ').next() == Some("toml")) {
            let has = |section: &str| block.lines().any(|line| line.trim_start_matches('[').starts_with(section));
            let least = [("database]", "[database]\npath = \"items.lance\"\n"), ("score", "[score]\nsql = \"mw\"\n")];
            let lacking = least.into_iter().filter(|(section, _)| !has(section)).map(|(_, lines)| lines);
            let file = format!("{block}\n{}", lacking.collect::<String>());
            Config::parse(&file, &[]).unwrap_or_else(|error| panic!("{}: {error}:\n{file}", page.display()));
            read += 1;
        }
    }
    assert!(read > 8, "{read} run files");
}

/// Appends `--help` to each command, so that it only parses its arguments: an unknown option is an error.
#[test]
fn the_commands_of_the_pages_have_valid_options() {
    let mut parsed = 0;
    for page in pages() {
        for (_, block) in
            blocks(&text(&page)).into_iter().filter(|(kind, _)| ["sh", "console"].contains(&kind.as_str()))
        {
            for line in
                block.lines().map(|line| line.trim_start_matches("$ ")).filter(|line| line.starts_with("uphill "))
            {
                let command = line.split([';', '|', '>']).next().expect("a command");
                let command = command.split(" #").next().expect("a command").trim();
                let uphill = Path::new(env!("CARGO_BIN_EXE_uphill")).parent().expect("a folder");
                let path = format!("{}:{}", uphill.display(), std::env::var("PATH").expect("a path"));
                let line = format!("{command} --help");
                succeeds(std::process::Command::new("bash").args(["-ec", &line]).env("PATH", path));
                parsed += 1;
            }
        }
    }
    assert!(parsed > 20, "{parsed} commands");
}

/// A line without what differs between machines: rows of tables, numbers, widths of columns.
fn normalized(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_some_and(|word| line.starts_with("  ") && word.starts_with(|c: char| c.is_ascii_digit())) {
        return "a row of a table".into();
    }
    let mut normalized = String::new();
    for character in words.join(" ").chars().map(|c| if c.is_ascii_digit() { '0' } else { c }) {
        if !(['0', '─'].contains(&character) && normalized.ends_with(character)) {
            normalized.push(character);
        }
    }
    normalized
}

/// Whether the lines match, where an expected `…` matches any number of lines.
fn matches(expected: &[&str], found: &[String]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((&"…", rest)) => (0..=found.len()).any(|skipped| matches(rest, &found[skipped..])),
        Some((line, rest)) => {
            found.first().is_some_and(|found| *found == normalized(line)) && matches(rest, &found[1..])
        }
    }
}

#[test]
fn the_readme_shows_what_its_commands_print() {
    let folder = folder();
    std::os::unix::fs::symlink(root().join("data"), folder.path().join("data")).expect("a link");
    // A copy, because the run file has a path relative to itself.
    std::fs::create_dir(folder.path().join("examples")).expect("a folder");
    std::fs::copy(root().join("examples/run.toml"), folder.path().join("examples/run.toml")).expect("copied");
    let readme = text(&root().join("README.md"));
    let (_, shown) = blocks(&readme).into_iter().find(|(kind, _)| kind == "console").expect("a session");
    for command in shown.split("$ uphill ").skip(1) {
        let (command, expected) = command.split_once('\n').expect("what it prints");
        let screen = Screen::of(&command.split_whitespace().collect::<Vec<_>>(), folder.path(), 100);
        let found: Vec<String> = screen.lines().filter(|line| !line.is_empty()).map(normalized).collect();
        let expected: Vec<&str> = expected.lines().collect();
        assert!(
            matches(&expected, &found),
            "uphill {command} prints\n{screen}\nand the README has\n{}",
            expected.join("\n")
        );
    }
}

#[test]
fn the_picture_of_the_report_is_not_older_than_its_templates() {
    succeeds(std::process::Command::new("python3").arg(root().join("scripts/report-picture")).arg("--check"));
}
