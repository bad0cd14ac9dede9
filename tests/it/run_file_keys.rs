//! Compares `docs/run-file.md` with the code: the keys of a run file, their types and defaults.

use std::collections::BTreeSet;

use serde_json::Value;
use uphill::Config;

use crate::common::root;

/// The smallest run file: every other key has its default.
const LEAST: &str = "[database]\npath = \"items.lance\"\n[score]\n";

/// A name that is neither a key nor a value.
const UNKNOWN: &str = "qzqzqzqz";

/// For each section: the headings of its tables on the page, its name, and the settings that it requires.
const SECTIONS: [(&[&str], &str, &[&str]); 15] = [
    (&["Top level"], "", &[]),
    (&["[database]"], "database", &[]),
    (&["[queries]"], "queries", &[]),
    (&["[filter]"], "filter", &[]),
    (&["[score]", "[[score.sum]]"], "score", &[]),
    (&["[update]"], "update", &[]),
    (&["rule = \"surrogate\""], "update", &["update.rule=surrogate"]),
    (&["update.features"], "update.features", &[]),
    (&["rule = \"rl\""], "update", &["update.rule=rl"]),
    (&["rule = \"top-k\""], "update", &["update.rule=top-k"]),
    (&["rule = \"top-k-discrete\""], "update", &["update.rule=top-k-discrete"]),
    (&["[prune]"], "prune", &["prune.k=1"]),
    (&["[restart]"], "restart", &["restart={}"]),
    (&["[gradient]"], "gradient", &["gradient.scales=[0]"]),
    (&["[stop]"], "stop", &[]),
];

/// A row of a table of keys.
struct Row {
    heading: String,
    key: String,
    kind: String,
    default: String,
}

/// The rows of all tables of keys.
fn rows() -> Vec<Row> {
    let page = std::fs::read_to_string(root().join("docs/run-file.md")).expect("the page");
    let (mut heading, mut rows) = (String::new(), Vec::new());
    for line in page.lines() {
        if line.starts_with("## ") || line.starts_with("### ") {
            heading = line.trim_start_matches('#').trim().trim_matches('`').to_string();
        } else if let Some(cells) = line.strip_prefix("| `") {
            let cells: Vec<&str> = cells.split(" | ").collect();
            assert_eq!(cells.len(), 4, "{line}");
            let key = cells[0].trim_end_matches('`').to_string();
            let (kind, default) = (cells[1].to_string(), cells[2].to_string());
            rows.push(Row { heading: heading.clone(), key, kind, default });
        }
    }
    rows
}

/// The argument of `--set` for a key.
fn setting(section: &str, key: &str, value: &str) -> String {
    match (section, key) {
        ("", _) => format!("{key}={value}"),
        ("update.features", "column") => format!("update.features=[{{ column = {value} }}]"),
        ("update.features", _) => format!("update.features=[{{ column = \"a\", {key} = {value} }}]"),
        _ => format!("{section}.{key}={value}"),
    }
}

fn parse(settings: &[&str]) -> Result<Value, String> {
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let config = Config::parse(LEAST, &settings).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(config).expect("JSON"))
}

/// The valid names that the error about an unknown name lists, separated by commas at its end.
fn listed(error: &str) -> BTreeSet<String> {
    assert!(error.contains(UNKNOWN), "{error}");
    let (_, list) = error.rsplit_once(UNKNOWN).expect("the unknown name");
    list.split(',')
        .filter_map(|part| part.split_whitespace().last())
        .map(|name| name.trim_matches('`').into())
        .collect()
}

/// The code spans of a cell.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The code span of a cell that has nothing else.
fn literal(cell: &str) -> Option<&str> {
    let inside = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inside.contains('`')).then_some(inside)
}

/// A TOML value for each alternative of a type.
fn samples(kind: &str) -> Vec<&str> {
    const WORDS: [(&str, &str); 9] = [
        ("integer", "1"),
        ("number", "0.5"),
        ("text", "\"a\""),
        ("boolean", "true"),
        ("list of text", "[\"a\"]"),
        ("list of columns", "[\"a\"]"),
        ("list of numbers", "[0.5]"),
        ("list of tables", "[]"),
        ("table of text", "{ a = \"b\" }"),
    ];
    let value = |kind| match literal(kind) {
        Some(value) => value,
        None => WORDS.iter().find(|(word, _)| *word == kind).unwrap_or_else(|| panic!("no type: {kind}")).1,
    };
    kind.split(" or ").flat_map(|kind| kind.split(", ")).map(|kind| value(kind.trim_start_matches("a "))).collect()
}

fn as_json(toml: &str) -> Value {
    let table: toml::Table = format!("value = {toml}").parse().unwrap_or_else(|error| panic!("{toml}: {error}"));
    serde_json::to_value(&table["value"]).expect("JSON")
}

#[test]
fn the_page_has_a_row_for_every_key_and_no_other() {
    let rows = rows();
    let mut checked = 0;
    for (headings, section, needed) in SECTIONS {
        let rows = rows.iter().filter(|row| headings.contains(&row.heading.as_str()));
        let named: BTreeSet<String> = rows.map(|row| row.key.clone()).collect();
        checked += named.len();
        let unknown = match section {
            "update.features" => format!("update.features=[{{ {UNKNOWN} = 1 }}]"),
            section => setting(section, UNKNOWN, "1"),
        };
        let error = parse(&[needed, &[unknown.as_str()][..]].concat()).expect_err("an unknown key");
        let known = listed(&error);
        match (section, needed) {
            // Each rule has a table of its own for its keys.
            ("update", []) => assert_eq!(named, ["rule".to_string()].into(), "{headings:?}"),
            ("", _) => {
                let is_section = |name: &String| SECTIONS.iter().any(|(_, other, _)| other == name);
                let keys: BTreeSet<String> = known.into_iter().filter(|name| !is_section(name)).collect();
                assert_eq!(named, keys, "keys that stand above all sections, or a section that the page lacks");
            }
            _ => assert_eq!(named, known, "{headings:?}"),
        }
    }
    assert_eq!(checked, rows.len(), "a table stands below a heading that is no section, or has a key twice");
}

#[test]
fn the_page_has_the_type_of_every_key() {
    for Row { heading, key, kind, .. } in rows() {
        let (_, section, needed) =
            SECTIONS.into_iter().find(|(names, ..)| names.contains(&heading.as_str())).expect("a section");
        let with = |value: &str| parse(&[needed, &[setting(section, &key, value).as_str()][..]].concat());
        for value in samples(&kind) {
            with(value).unwrap_or_else(|error| panic!("{heading} {key} = {value}: {error}"));
        }
        let error = with(&format!("\"{UNKNOWN}\"")).err().filter(|error| error.contains("unknown"));
        if let Some(error) = error {
            let named: BTreeSet<String> = spans(&kind).iter().map(|value| value.trim_matches('"').into()).collect();
            assert_eq!(named, listed(&error), "{heading} {key}");
        }
    }
}

#[test]
fn the_page_has_the_default_of_every_key() {
    for Row { heading, key, default, .. } in rows() {
        let (_, section, needed) =
            SECTIONS.into_iter().find(|(names, ..)| names.contains(&heading.as_str())).expect("a section");
        let place = format!("{heading} {key}");
        if default == "required" {
            let without = match section {
                "database" => Config::parse("[database]\n[score]\n", &[]).map(drop).map_err(|error| error.to_string()),
                "update.features" => parse(&["update.features=[{}]"]).map(drop),
                section => parse(&[&format!("{section}={{}}")]).map(drop),
            };
            let error = without.expect_err(&place);
            assert!(error.contains(&key), "{place}: {error}");
            continue;
        }
        let pointer = format!("/{}/{key}", section.replace('.', "/")).replace("//", "/");
        let resolved = parse(needed).unwrap_or_else(|error| panic!("{place}: {error}"));
        let resolved = resolved.pointer(&pointer).filter(|value| !value.is_null());
        match (resolved, literal(&default)) {
            (Some(value), Some(default)) => assert_eq!(*value, as_json(default), "{place}"),
            (Some(value), None) => panic!("{place}: the default is {value}, not {default}"),
            // The default is in the code that uses the key. Here, check that it is a valid value.
            (None, Some(default)) => {
                let set = setting(section, &key, default);
                parse(&[needed, &[set.as_str()][..]].concat()).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            (None, None) => {}
        }
    }
}

/// Defaults that are not in `Config`, but in the code that uses the key.
#[test]
fn the_page_has_the_defaults_that_other_parts_of_the_program_know() {
    let rows = rows();
    let default = |heading: &str, key: &str| {
        let row = rows.iter().find(|row| row.heading == heading && row.key == key).expect("a row");
        as_json(literal(&row.default).expect("a value"))
    };
    let json = |value: Result<Value, serde_json::Error>| value.expect("JSON");
    assert_eq!(default("[score]", "mode"), json(serde_json::to_value(uphill::CommandMode::default())));
    assert_eq!(default("[score]", "format"), json(serde_json::to_value(uphill::CommandFormat::default())));
    assert_eq!(default("rule = \"rl\"", "norm"), json(serde_json::to_value(uphill::Norm::default())));
    assert_eq!(default("[gradient]", "norm"), json(serde_json::to_value(uphill::Norm::default())));
    let least = Config::parse(LEAST, &[]).expect("a run file");
    assert_eq!(default("[stop]", "iterations"), least.stop.max_iterations());
    let folder = crate::common::folder();
    let embeddings = crate::common::normal(40, 4, &mut crate::common::rng(1));
    let database = crate::common::exact_library(&folder, &embeddings);
    let start = least.queries(&database).expect("queries").height();
    assert_eq!(default("[queries]", "sample"), start);
}
