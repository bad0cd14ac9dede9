//! A run file means the same as TOML and as JSON, which is what Python writes and what run.json keeps.

use uphill::Config;

const HEAD: [(&str, &str); 2] = [("database", r#"{"path": "items.lance"}"#), ("score", r#"{"sql": "weight"}"#)];

/// A run file of these sections, as JSON and as TOML.
fn both(sections: &[(&str, &str)]) -> [Result<Config, uphill::Error>; 2] {
    let given = |name: &&(&str, &str)| !sections.iter().any(|(other, _)| other == &name.0);
    let sections: Vec<&(&str, &str)> = HEAD.iter().filter(given).chain(sections).collect();
    let json: Vec<String> = sections.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    // JSON's `{"a": 1}` is TOML's `{"a" = 1}`.
    let toml: Vec<String> =
        sections.iter().map(|(name, value)| format!("{name} = {}", value.replace("\":", "\" ="))).collect();
    // What is set says nothing: with it, messages name keys in place of lines.
    [Config::from_json(&format!("{{{}}}", json.join(", "))), Config::parse(&toml.join("\n"), &["seed=0".into()])]
}

#[test]
fn json_accepts_the_same_run_files_as_toml() {
    for sections in [
        &[("update", r#"{"batch": 8}"#)][..],
        &[("update", r#"{"features": []}"#)],
        &[("update", r#"{"features": ["name", {"column": "weight", "role": "category"}], "behind": 1}"#)],
        &[("update", "{}")],
        &[("update", r#"{"rule": "rl", "lr": [1, 2]}"#), ("prune", r#"{"k": 2}"#), ("restart", "{}")],
        &[("update", r#"{"rule": "top-k"}"#), ("gradient", r#"{"scales": [0, 1]}"#)],
        &[("score", r#"{"sum": [{"name": "a", "sql": "x"}, {"name": "b", "sql": "y", "weight": 2, "at_least": 0}]}"#)],
        &[("stop", r#"{"evaluations": 20, "seconds": 3}"#), ("queries", "{}"), ("filter", "{}")],
    ] {
        let [json, toml] = both(sections).map(|config| config.unwrap_or_else(|error| panic!("{sections:?}: {error}")));
        let text = |config: &Config| serde_json::to_string(config).expect("JSON");
        assert_eq!(text(&json), text(&toml));
    }
}

#[test]
fn null_in_json_is_a_missing_key() {
    let nothing = Config::from_json(r#"{"database": {"path": "a"}, "score": {"sql": "x"}}"#).expect("a run file");
    let nulls = r#"{"seed": null, "database": {"path": "a", "k": null, "exact": null, "recall": null},
        "score": {"sql": "x", "url": null, "reuse": null, "direction": null, "on_error": null, "sum": null},
        "queries": {"sample": null}, "filter": null, "update": {"rule": null, "points": null, "features": null},
        "prune": null, "restart": null, "gradient": null, "stop": {"iterations": null, "failed_share": null}}"#;
    let text = |config: &Config| serde_json::to_string(config).expect("JSON");
    assert_eq!(text(&Config::from_json(nulls).expect("a run file")), text(&nothing));
}

#[test]
fn mistakes_in_json_are_reported_as_in_toml() {
    for (section, value, message) in [
        ("update", r#"{"bacth": 8}"#, "unknown key `bacth`; did you mean `batch`?"),
        ("update", r#"{"batch": "many"}"#, "expected a whole number, found string \"many\""),
        ("update", r#"{"rule": "r"}"#, "unknown value `r`; did you mean `rl`?"),
        ("update", "3", "expected a section"),
        ("prune", "{}", "missing key `k`"),
        ("prune", r#"{"k": 2, "worth": "most"}"#, "unknown value `most`"),
        ("prune", "3", "expected a section"),
        ("restart", r#"{"after": -1}"#, "expected a whole number"),
        ("gradient", r#"{"max_norm": 1.0}"#, "missing key `scales`"),
        ("gradient", r#"{"scales": 3}"#, "expected a list"),
        ("queries", r#"{"smaple": 3}"#, "did you mean `sample`?"),
        ("filter", r#"{"sql": 3}"#, "expected a string, found integer `3`"),
        ("stop", r#"{"evaluations": 1.5}"#, "expected a whole number"),
        ("stop", "[1]", "expected a section"),
        ("database", r#"{"k": 3}"#, "missing key `path`"),
        ("score", r#"{"sum": [{"sqk": "x"}]}"#, "did you mean `sql`?"),
        ("score", r#"{"sum": [{"sql": "x", "weight": "2"}]}"#, "expected a number"),
        ("score", r#"{"direction": "down"}"#, "unknown value `down`"),
    ] {
        let [json, toml] = both(&[(section, value)]).map(|config| config.expect_err(value).to_string());
        assert_eq!(json, toml, "{section} = {value}");
        assert!(json.starts_with(section) && json.contains(message), "{section} = {value}: {json}");
    }
}

#[test]
fn a_seed_may_exceed_the_integers_of_toml() {
    let config =
        |seed: u64| Config::from_json(&format!(r#"{{"seed": {seed}, "database": {{"path": "a"}}, "score": {{}}}}"#));
    assert_eq!(config(u64::MAX).expect("a run file").seed, u64::MAX);
}
