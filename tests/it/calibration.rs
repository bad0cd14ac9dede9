//! Tests of the calibration of predictions, in `uphill inspect` and in the report: its numbers against DuckDB.

use std::path::Path;
use std::process::Command;

use polars::prelude::*;
use serde_json::Value;

use crate::common::*;
use crate::python::{python, succeeds};

/// The calibration of a run, from its Parquet files alone. A batch belongs to the hundred of its first score.
const DUCKDB: &str = r#"
import duckdb, json, sys
duckdb.sql(f"""
create view results as
  select * from read_parquet('{sys.argv[1]}/results/*/*.parquet', hive_partitioning = true, file_row_number = true);
create view batches as
  select iteration, sum(count(score) filter (chosen_by is not null)) over (order by iteration) as last,
    last - count(score) filter (chosen_by is not null) as before, count(predicted) > 0 as has_predictions,
    (select count(score) from results r where r.iteration < q.iteration) >= 100 as has_threshold,
    (select score from results r where r.iteration < q.iteration and score is not null order by score desc limit 1 offset 99) as threshold
  from results q group by iteration;
create view predictions as
  select results.*, before // 100 as hundred, row_number() over (order by iteration desc, file_row_number desc) as position,
    (select avg(score) from results where iteration < (select min(iteration) from results where predicted is not null)) as mean
  from results join batches using (iteration) where score is not null and predicted is not null;
create macro agreement(source) as table
  with ranked as (
    select *, rank() over (order by predicted) + (count(*) over (partition by predicted) - 1) / 2 as a,
      rank() over (order by score) + (count(*) over (partition by score) - 1) / 2 as b from query_table(source))
  select count(*) as predictions, avg((abs(score - predicted) <= 1.2816 * deviation)::int) as coverage, corr(a, b) as rank_correlation,
    sqrt(avg((score - predicted) ** 2)) as error, sqrt(avg((score - mean) ** 2)) as error_of_mean from ranked;
create view latest as select * from predictions where position <= 100;
""")
def rows(query):
    table = duckdb.sql(query)
    return [dict(zip(table.columns, row)) for row in table.fetchall()]
hundreds = rows("""
  select before // 100 as hundred, min(before) + 1 as first, max(last) as last,
    sum((select count(*) from results r where r.iteration = batches.iteration and score > threshold)) filter (has_predictions and has_threshold) as entries
  from batches group by all having max(last) > min(before) order by hundred""")
for hundred in hundreds:
    duckdb.sql(f"create or replace view one as select * from predictions where hundred = {hundred.pop('hundred')}")
    hundred.update(rows("from agreement('one')")[0])
calibration = {"all": rows("from agreement('predictions')")[0], "last_hundred": rows("from agreement('latest')")[0], "by_hundred": hundreds}
print(json.dumps(calibration, default=float))
"#;

/// A library with a column that the embedding determines, and one of chance; and a run that scores each of them.
fn runs(set: &[&str]) -> TempDir {
    let folder = folder();
    let embeddings = normal(1500, 4, &mut rng(1));
    let noise = normal(1500, 2, &mut rng(2));
    let height = embeddings
        .rows()
        .into_iter()
        .zip(noise.column(0))
        .map(|(item, noise)| f64::from(item[0] - 0.5 * item[1] * item[1] + 0.2 * noise));
    let height: Vec<f64> = height.collect();
    let chance: Vec<f64> = noise.column(1).iter().map(|value| f64::from(*value)).collect();
    let columns = [
        uphill::embedding_column(embeddings.view()).expect("an embedding column"),
        Column::new("height".into(), height),
        Column::new("chance".into(), chance),
    ];
    write(&folder.path().join("items.parquet"), &DataFrame::new(1500, columns.to_vec()).expect("items"));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    for (run, score) in [("informative", "height"), ("blind", "chance")] {
        let file = format!(
            "seed = 5\n[database]\npath = \"items.lance\"\n[score]\nsql = \"{score}\"\n[update]\nfeatures = []\n[stop]\nevaluations = 450\n"
        );
        std::fs::write(folder.path().join("run.toml"), file).expect("written");
        let mut arguments = vec!["search", "run.toml", "--out", run];
        set.iter().for_each(|change| arguments.extend(["--set", *change]));
        uphill_ok(&arguments, folder.path());
    }
    folder
}

fn inspect(folder: &Path, run: &str) -> Value {
    serde_json::from_str(&uphill_ok(&["inspect", run, "--json"], folder)).expect("JSON")
}

fn report(folder: &Path, runs: &[&str]) -> String {
    uphill_ok(&[&["report"], runs, &["-o", "report.html"]].concat(), folder);
    std::fs::read_to_string(folder.join("report.html")).expect("a report")
}

/// Compares the values of `expected` with those of the same name.
fn assert_same(found: &Value, expected: &Value, at: &str) {
    match expected {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| assert_same(&found[name], value, &format!("{at}.{name}")));
        }
        Value::Array(values) => {
            assert_eq!(found.as_array().map(Vec::len), Some(values.len()), "{at}");
            values.iter().enumerate().for_each(|(i, value)| assert_same(&found[i], value, &format!("{at}[{i}]")));
        }
        Value::Null => assert!(found.is_null(), "{at}: {found}"),
        _ => {
            let (found, expected) = (found.as_f64().expect(at), expected.as_f64().expect(at));
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{at}: {found} is not {expected}");
        }
    }
}

#[test]
fn the_calibration_is_what_duckdb_computes_from_the_log() {
    for set in [&[][..], &["score.direction=\"minimize\"", "update.behind=1"]] {
        let folder = runs(set);
        for run in ["informative", "blind"] {
            let found = &inspect(folder.path(), run)["predictions"];
            let script = folder.path().join("calibration.py");
            std::fs::write(&script, DUCKDB).expect("a script");
            let expected = succeeds(Command::new(python()).arg(&script).arg(folder.path().join(run)));
            let mut expected: Value = serde_json::from_str(&expected).expect("JSON");
            for hundred in expected["by_hundred"].as_array_mut().expect("hundreds") {
                // Fewer than ten predictions have no rank correlation.
                if hundred["predictions"].as_u64() < Some(10) {
                    hundred["rank_correlation"] = Value::Null;
                }
            }
            assert_same(found, &expected, run);
            let hundreds = found["by_hundred"].as_array().expect("hundreds");
            assert!(hundreds.len() >= 4 && hundreds.last().expect("a hundred")["last"] == 450, "{hundreds:?}");
            assert!(
                hundreds.iter().all(|hundred| hundred["entries"].is_null() == hundred["expected_entries"].is_null())
            );
            assert!(hundreds.iter().any(|hundred| hundred["expected_entries"].as_f64() > Some(0.0)), "{hundreds:?}");
            assert_eq!(found["is_uninformative"], run == "blind", "{found}");
        }
    }
}

#[test]
fn the_report_shows_predictions_and_warns_of_a_model_that_is_no_better_than_the_mean() {
    let folder = runs(&[]);
    for run in ["informative", "blind"] {
        let calibration = &inspect(folder.path(), run)["predictions"];
        let page = report(folder.path(), &[run]);
        let section = page.split("<h2 id=\"predictions\">").nth(1).expect("a section");
        let section = section.split("</section>").next().expect("an end");
        let warning =
            "<p class=\"warning\">The columns and the embedding say nothing about this score so far: the last 100";
        assert_eq!(section.contains(warning), run == "blind", "{section}");
        // The forecast of run.json.
        let log = uphill::SearchLog::open(folder.path().join(run)).expect("a run");
        let forecast = log.manifest().ended.as_ref().and_then(|ended| ended.forecast).expect("a forecast");
        assert!(section.contains(&format!("<p>Forecast at the end of the run: {forecast}.</p>")), "{section}");
        let share = 100.0 * calibration["all"]["coverage"].as_f64().expect("a share");
        let count = calibration["all"]["predictions"].as_u64().expect("a count");
        assert!(section.contains(&format!("<p>{share:.0} % of the {count} predicted scores are within")), "{section}");
        // Each item is a dot or a cross, and the lines have a point for each hundred.
        for title in
            ["Predicted and scored", "Scores within the interval", "Order of the predictions", "Entries into the best"]
        {
            assert!(section.contains(&format!("<h3>{title}</h3>")), "{title}");
        }
        let data = page.split("<script type=\"application/json\" id=\"data\">").nth(1).expect("data");
        let data: Value = serde_json::from_str(data.split("</script>").next().expect("an end")).expect("JSON");
        let charts: Vec<&Value> = data["charts"].as_array().expect("charts").iter().rev().take(4).rev().collect();
        let dots = charts[0]["dots"].as_array().expect("dots");
        assert_eq!(dots.len() as u64, count);
        let results = uphill::collect(log.compile_results().expect("a query")).expect("results");
        let random = results.column("chosen_by").expect("chosen_by").str().expect("text").iter();
        let random =
            random.zip(f64_options(&results, "predicted")).filter(|(by, mean)| *by == Some("random") && mean.is_some());
        assert_eq!(section.matches("m-3-3l6 6m0-6l-6 6").count(), random.count());
        let (hundreds, last) =
            (calibration["by_hundred"].as_array().expect("hundreds"), &charts[1]["lines"][0]["points"]);
        for (position, hundred) in hundreds.iter().filter(|hundred| !hundred["coverage"].is_null()).enumerate() {
            let value = |name: &str| uphill::format_number(hundred[name].as_f64().expect(name));
            assert_eq!(last[position][2], value("last"));
            assert_eq!(last[position][3], value("coverage"));
        }
    }
    // Several runs have a row each, without those that predict nothing.
    let rl = ["search", "run.toml", "--out", "rl", "--set", "update={rule=\"rl\"}", "--set", "stop.evaluations=50"];
    uphill_ok(&rl, folder.path());
    let page = report(folder.path(), &["informative", "rl", "blind"]);
    let table =
        page.split("<h2 id=\"predictions\">").nth(1).expect("a table").split("</table>").next().expect("an end");
    let names: Vec<&str> = table.split("<th scope=\"row\">").skip(1).filter_map(|row| row.split('<').next()).collect();
    assert_eq!(names, ["informative", "blind"]);

    // Runs without predictions have neither section nor name.
    for run in ["rl", &*root().join("tests/format-1/run").to_string_lossy()] {
        assert!(!report(folder.path(), &[run]).contains("id=\"predictions\""), "{run}");
        assert!(inspect(folder.path(), run).get("predictions").is_none(), "{run}");
    }
    let lines = uphill_ok(&["inspect", "blind"], folder.path());
    assert!(lines.contains("\nmodel             the columns and the embedding say nothing"), "{lines}");
    assert!(lines.contains("\npredictions       ") && lines.contains(" predicted scores are within"), "{lines}");
}

fn f64_options(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
    frame.column(name).expect(name).f64().expect("f64").iter().collect()
}
