//! Tests of `--help`, whose examples must run unchanged, of the manual pages and of the shell completions.

use std::path::Path;
use std::process::Command;

use polars::prelude::*;

use crate::common::*;
use crate::python::succeeds;

/// Runs a command line in a shell with `uphill` on PATH. It must succeed.
fn shell(line: &str, folder: &Path) -> String {
    let uphill = Path::new(env!("CARGO_BIN_EXE_uphill")).parent().expect("a folder");
    let path = format!("{}:{}", uphill.display(), std::env::var("PATH").expect("a path"));
    succeeds(Command::new("bash").args(["-ec", line]).current_dir(folder).env("PATH", path))
}

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = uphill_ok(&["--help"], Path::new("."));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next().filter(|_| !line.starts_with("   ")));
    names.filter(|name| *name != "help").map(str::to_string).collect()
}

fn examples(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

#[test]
fn the_examples_of_every_command_run_unchanged() {
    let folder = folder();
    let frame = items(&clustered(400, 8, 8, &mut rng(1)));
    write(&folder.path().join("items.parquet"), &frame);
    std::fs::create_dir(folder.path().join("parts")).expect("a folder");
    for part in 0..2 {
        write(&folder.path().join(format!("parts/{part}.parquet")), &frame.slice(part * 200, 200));
    }
    let hand = "[database]\npath = \"items.lance\"\n[score]\nby_hand = true\n[stop]\nevaluations = 40\n";
    std::fs::write(folder.path().join("hand.toml"), hand).expect("written");
    let commands = commands();
    assert!(commands.len() > 10 && commands.contains(&"search".to_string()), "{commands:?}");
    for command in commands {
        let help = uphill_ok(&[&command, "--help"], folder.path());
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{command} has no example");
        for example in examples {
            assert!(example.starts_with(&format!("uphill {command} ")), "{example}");
            if example.contains("tell") {
                let items = read(&folder.path().join("next.parquet"));
                let scores = items.lazy().select([col("db_idx"), col("weight").alias("score")]).collect();
                write(&folder.path().join("scores.parquet"), &scores.expect("scores"));
            }
            println!("{example}");
            shell(example, folder.path());
        }
    }
    // The examples of the program itself, from an empty folder.
    let fresh = crate::common::folder();
    write(&fresh.path().join("items.parquet"), &frame);
    let help = uphill_ok(&["--help"], fresh.path());
    assert_eq!(examples(&help).len(), 5, "{help}");
    examples(&help).iter().for_each(|example| drop(shell(example, fresh.path())));
    assert!(fresh.path().join("report.html").exists());
}

#[test]
fn the_error_for_a_typo_suggests_the_right_name() {
    let folder = folder();
    for (arguments, meant) in [
        (&["serach", "run.toml"][..], "'search'"),
        (&["results", "run", "--formt", "csv"], "'--format'"),
        (&["index", "a", "b", "--metric", "cosin"], "expected l2, cosine or dot, found `cosin`"),
        (&["generate", "bsh"], "'bash'"),
    ] {
        let output = uphill(arguments, folder.path());
        assert!(stderr(&output).contains(meant), "{arguments:?}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = folder();
    uphill_ok(&["generate", "man", "-o", "man"], folder.path());
    let page = |name: &str| std::fs::read_to_string(folder.path().join("man").join(name)).expect("a page");
    let whole = uphill_ok(&["generate", "man"], folder.path());
    assert!(whole.contains(&page("uphill.1")));
    for command in commands() {
        let page = page(&format!("uphill-{command}.1"));
        assert!(page.contains(&format!(".TH uphill-{command} 1")), "{page}");
        assert!(page.contains("Examples:") && whole.contains(&page), "{page}");
        assert!(page.contains(&format!("uphill {command}")), "the full name of the command: {page}");
    }
}

#[test]
fn shells_complete_commands_and_options() {
    let folder = folder();
    let bash = uphill_ok(&["generate", "bash"], folder.path());
    std::fs::write(folder.path().join("uphill.bash"), bash).expect("written");
    let completed = |words: &str, at: usize| {
        let line = format!(
            "source uphill.bash; COMP_WORDS=({words}); COMP_CWORD={at}; COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}; \
            _uphill uphill \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[@]}}\"",
            at - 1
        );
        shell(&line, folder.path()).trim().to_string()
    };
    assert_eq!(completed("uphill sea", 1), "search");
    assert_eq!(completed("uphill search --dry", 2), "--dry-run");
    assert_eq!(completed("uphill results run --format pa", 4), "parquet");
    assert!(uphill_ok(&["generate", "zsh"], folder.path()).starts_with("#compdef uphill"));
    uphill_ok(&["generate", "fish", "-o", "uphill.fish"], folder.path());
    let fish = std::fs::read_to_string(folder.path().join("uphill.fish")).expect("a file");
    assert!(fish.lines().any(|line| line.contains("complete -c uphill") && line.contains("search")), "{fish}");
}
