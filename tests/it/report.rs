//! Tests of reports and plots: their values against independent counts, their size, and escaping of hostile text.

use std::path::Path;
use std::process::{Command, Stdio};

use polars::prelude::*;

use crate::common::*;
use crate::python::succeeds;

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\nk = 5\n[queries]\nsample = 4\n[update]\nrule = \"rl\"\n[stop]\niterations = 4\n[score]\nsql = \"weight\"\n";

/// A library of so many items, and a run of it.
fn library(rows: usize) -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(rows, 4, 8, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    folder
}

fn search(folder: &TempDir, run: &str, set: &[&str]) {
    let mut arguments = vec!["search", "run.toml", "--out", run];
    set.iter().for_each(|change| arguments.extend(["--set", *change]));
    uphill_ok(&arguments, folder.path());
}

/// The page of runs.
fn report(folder: &TempDir, arguments: &[&str]) -> String {
    uphill_ok(&[&["report"], arguments, &["-o", "report.html"]].concat(), folder.path());
    std::fs::read_to_string(folder.path().join("report.html")).expect("a report")
}

fn plot(folder: &TempDir, arguments: &[&str]) -> String {
    uphill_ok(&[&["plot"], arguments, &["-o", "curve.svg"]].concat(), folder.path());
    std::fs::read_to_string(folder.path().join("curve.svg")).expect("a plot")
}

/// What stands between two texts, each time.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    text.split(start).skip(1).filter_map(|rest| rest.split_once(end)).map(|(found, _)| found).collect()
}

/// The points of a chart's first line, as they are read off: across and up.
fn data_of(page: &str, chart: usize) -> (Vec<String>, Vec<String>) {
    let data = between(page, "<script type=\"application/json\" id=\"data\">", "</script>")[0];
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let points = data["charts"][chart]["lines"][0]["points"].as_array().expect("points");
    let told = |at: usize| points.iter().map(|point| point[at].as_str().expect("text").to_string()).collect();
    (told(2), told(3))
}

/// The page as it is without scripts.
fn without_scripts(page: &str) -> String {
    let mut shown = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("<script") {
        shown.push_str(before);
        rest = after.split_once("</script>").expect("an end").1;
    }
    shown + rest
}

/// As the page writes it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#x27;"),
            '/' => escaped.push_str("&#x2f;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The scores of a run in the order in which they were paid for.
fn paid(run: &Path) -> Vec<f64> {
    let log = uphill::SearchLog::open(run).expect("a run");
    let results = uphill::collect(log.compile_results().expect("a query")).expect("results");
    let evaluations = results.column("evaluation").expect("evaluations").u64().expect("u64").iter();
    let mut paid: Vec<(Option<u64>, f64)> = evaluations.zip(f64s(&results, "score")).collect();
    paid.sort_by_key(|(evaluation, _)| *evaluation);
    paid.into_iter().map(|(_, score)| score).collect()
}

/// What Python's XML parser says of it.
fn parse_xml(folder: &TempDir, svg: &str) {
    let file = folder.path().join("parsed.svg");
    std::fs::write(&file, svg).expect("written");
    let parse = "import sys, xml.etree.ElementTree as tree; tree.parse(sys.argv[1])";
    succeeds(Command::new("python3").args(["-c", parse]).arg(&file));
}

#[test]
fn the_curves_match_an_independent_count() {
    let folder = library(300);
    search(&folder, "run", &[]);
    let scores = paid(&folder.path().join("run"));
    let mut best = scores.clone();
    best.sort_by(|a, b| b.total_cmp(a));
    let truth = ["--truth", "items.parquet", "--score-column", "weight", "--top", "20"];
    let page = report(&folder, &[&["run"][..], &truth].concat());
    let evaluated = ["evaluate", "run", "--truth", "items.parquet", "--score-column", "weight", "--top", "20"];
    let evaluated = uphill_ok(&[&evaluated[..], &["-o", "evaluated.parquet"]].concat(), folder.path());
    assert_eq!(evaluated, "");
    let share = *f64s(&read(&folder.path().join("evaluated.parquet")), "recall").last().expect("a row");
    let sum: f64 = best.iter().take(20).sum();
    let number = uphill::format_number;
    let at = scores.len();
    for says in [
        format!("Best score, weight against items scored. run: {} at {at}", number(best[0])),
        format!("Sum of the best, sum of the best 20 against items scored. run: {} at {at}", number(sum)),
        format!("share of the true best 20 against items scored. run: {} at {at}", number(share)),
    ] {
        assert!(page.contains(&says), "`{says}` is not in {:?}", between(&page, "aria-label=\"", "\""));
        assert!(plot(&folder, &[&["run"][..], &truth].concat()).contains(&says));
    }
    // The sum is that of 20 from where there are so many.
    let (_, sums) = data_of(&page, 1);
    assert_eq!((sums.len(), &*sums[0]), (at - 19, &*number(scores[..20].iter().sum())));
    // Each of the points, too.
    let (costs, bests) = data_of(&page, 0);
    assert_eq!(bests.len(), at);
    for (paid, (cost, best)) in costs.iter().zip(&bests).enumerate() {
        assert_eq!(*cost, number(paid as f64 + 1.0));
        assert_eq!(*best, number(scores[..=paid].iter().copied().fold(f64::MIN, f64::max)));
    }
    // And the best items, in order.
    let rows = between(&page, "<table id=\"items\">", "</table>")[0].matches("<tr>\n<td").count();
    assert_eq!(rows, scores.len().min(200));
}

#[test]
fn a_minimized_score_is_shown_in_the_direction_of_the_scorer() {
    let folder = library(200);
    search(&folder, "run", &["score.direction=minimize", "score.sql=weight + 1.0"]);
    let best = paid(&folder.path().join("run")).into_iter().fold(f64::MIN, f64::max);
    let page = report(&folder, &["run"]);
    assert!(page.contains("smaller is better"));
    let says = format!("items scored. run: {}", uphill::format_number(-best));
    assert!(page.contains(&says), "`{says}` is not in {:?}", between(&page, "aria-label=\"", "\""));
    assert!(!page.contains(&format!(">{}<", uphill::format_number(best))), "{best}");
    // Compared with one that maximises.
    search(&folder, "other", &["score.sql=weight + 1.0"]);
    let output = uphill(&["report", "run", "other"], folder.path());
    assert_eq!(stderr(&output), "uphill: other: maximizes the score, but run minimizes it; they cannot be compared\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_report_is_one_file_that_needs_neither_a_network_nor_scripts() {
    let folder = library(300);
    search(&folder, "run", &[]);
    let page = report(&folder, &["run"]);
    // The same run, the same page.
    assert!(page == report(&folder, &["run"]));
    let shown = without_scripts(&page);
    for heading in ["Best score", "Sum of the best", "Scores of each iteration"] {
        assert!(shown.contains(&format!("<h3>{heading}</h3>")), "{heading}");
    }
    assert_eq!(between(&shown, "<svg class=\"chart\"", "</svg>").len(), 3);
    let map = between(&shown, "<svg class=\"map\"", "</svg>")[0].to_string();
    // All of the library, which is smaller than a sample.
    assert_eq!(between(&map, "class=\"sample\" d=\"", "\"")[0].matches('M').count(), 300);
    assert_eq!(between(&map, "class=\"query-path\"", "/path").len(), 4, "{map}");
    let scored = paid(&folder.path().join("run")).len();
    assert_eq!(
        between(&map, "class=\"mark v", "/>").iter().map(|dots| dots.matches('M').count()).sum::<usize>(),
        scored
    );
    for said in ["uphill search run.toml --out again", "rule = &quot;rl&quot;", "<h2 id=\"times\">", "vector search"] {
        assert!(shown.contains(said), "{said}");
    }
    // The configuration reproduces the run.
    let file = between(&shown, "<pre class=\"file\" tabindex=\"0\"><code>", "</code>")[0];
    let file = file.replace("&quot;", "\"").replace("&#x2f;", "/");
    std::fs::write(folder.path().join("again.toml"), file).expect("written");
    uphill_ok(&["search", "again.toml", "--out", "again"], folder.path());
    assert_eq!(paid(&folder.path().join("run")), paid(&folder.path().join("again")));

    assert!(page.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src &#x27;none&#x27;;"));
    for attribute in [" src=\"", " href=\"", "url(", "@import", "<link", "<iframe", "<object", "<form"] {
        assert!(!shown.contains(attribute), "{attribute}");
    }
    parse_xml(&folder, &plot(&folder, &["run"]));
    assert!(!plot(&folder, &["run"]).contains("var("));
}

#[test]
fn the_policy_allows_only_the_scripts_whose_hash_it_has() {
    let folder = folder();
    let embeddings = normal(30, 3, &mut rng(2));
    let smiles = Column::new("smiles".into(), vec!["CCO"; 30]);
    let items = items(&embeddings).hstack(&[smiles]).expect("a frame");
    write(&folder.path().join("items.parquet"), &items);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    search(&folder, "run", &[]);
    let page = report(&folder, &["run"]);
    let scripts = between(&page, "<script>", "</script>");
    assert_eq!(scripts.len(), 2, "the one that draws structures, and ours");
    for script in scripts {
        std::fs::write(folder.path().join("script.js"), script).expect("written");
        let hash = "import base64, hashlib, sys; print(base64.b64encode(hashlib.sha256(sys.stdin.buffer.read()).digest()).decode())";
        let input = std::fs::File::open(folder.path().join("script.js")).expect("a file");
        let hash = succeeds(Command::new("python3").args(["-c", hash]).stdin(Stdio::from(input)));
        let expected = escaped(&format!("'sha256-{}'", hash.trim()));
        assert!(page.contains(&expected), "{expected} is not in {:?}", between(&page, "Policy\" content=\"", "\""));
    }
    for licence in ["Copyright (c) 2017 GDB", "Copyright (c) 2011-2024, Gregor Aisch"] {
        assert!(page.contains(licence), "{licence}");
    }
    // Nothing of it where nothing is to be drawn.
    let without = library(50);
    search(&without, "run", &[]);
    assert!(report(&without, &["run"]).len() < page.len() - 190_000);
}

#[test]
fn a_report_of_5000_scored_items_has_less_than_600_kilobytes_and_200_more_with_structures() {
    for structures in [false, true] {
        let folder = folder();
        let frame = items(&clustered(12_000, 16, 40, &mut rng(1)));
        let smiles = format!("CC(C)(C)c1nnc(NS(=O)(=O)c2ccccc2)s1{}", "C".repeat(40));
        let smiles = Column::new(if structures { "smiles" } else { "text" }.into(), vec![smiles; 12_000]);
        write(&folder.path().join("items.parquet"), &frame.hstack(&[smiles]).expect("a frame"));
        uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
        let run = RUN.replace("sample = 4", "sample = 200").replace("k = 5", "k = 30");
        let run = run.replace("iterations = 4", "iterations = 60\nevaluations = 5000");
        std::fs::write(folder.path().join("run.toml"), run).expect("written");
        search(&folder, "run", &["update.rule=top-k-discrete", "prune.k=100"]);
        assert_eq!(paid(&folder.path().join("run")).len(), 5000);
        let page = report(&folder, &["run", "--truth", "items.parquet", "--score-column", "weight"]);
        println!("{} bytes", page.len());
        assert!(page.len() < if structures { 800_000 } else { 600_000 }, "{}", page.len());
        assert!(page.contains("(3000 are not shown)"), "not all are marked");
    }
}

/// What may not be there as it is, in whatever text it stood.
const HOSTILE: [&str; 4] = [
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>",
    "<!--",
    "'--></style><svg onload=alert(3)>",
];

#[test]
fn hostile_names_texts_and_settings_are_text_in_reports_and_plots() {
    let folder = folder();
    let all = HOSTILE.concat();
    let rows = 60;
    let texts: Vec<String> = (0..rows).map(|row| format!("{}{row}", HOSTILE[row % HOSTILE.len()])).collect();
    let columns = [
        Column::new("smiles".into(), texts.clone()),
        Column::new(all.as_str().into(), texts),
        Column::new("</title><b>".into(), (0..rows).map(|row| row as f64).collect::<Vec<_>>()),
    ];
    let frame = items(&normal(rows, 3, &mut rng(5))).hstack(&columns).expect("a frame");
    write(&folder.path().join("items.parquet"), &frame);
    let dataset = "<img src=x onerror=alert(4)>.lance";
    uphill_ok(&["index", "items.parquet", dataset], folder.path());
    // A name of the run, of the score, of the dataset; settings; reasons that a scorer gives.
    let run = "<script>alert(5)<\u{2044}script>&\"'";
    let text = RUN.replace("items.lance", dataset).replace("sql = \"weight\"", "by_hand = true");
    std::fs::write(folder.path().join("run.toml"), format!("{text}version = '''{all}'''\n")).expect("written");
    uphill_ok(&["ask", "run.toml", "--out", run, "-o", "asked.parquet"], folder.path());
    let asked = u64s(&read(&folder.path().join("asked.parquet")), "db_idx");
    let scores: Vec<Option<f64>> = asked.iter().map(|item| (item % 3 > 0).then_some(*item as f64)).collect();
    let reasons = vec![all.clone(); asked.len()];
    let columns = vec![
        Column::new("db_idx".into(), asked.clone()),
        Column::new("score".into(), scores),
        Column::new("reason".into(), reasons),
    ];
    write(&folder.path().join("told.parquet"), &DataFrame::new(asked.len(), columns).expect("a frame"));
    uphill_ok(&["tell", run, "told.parquet"], folder.path());
    let sql = format!("\"{}\"", "</title><b>");
    let text = RUN.replace("items.lance", dataset).replace("\"weight\"", &format!("'{sql}'"));
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
    search(&folder, "<b>other", &[]);

    let picture = ["--picture", all.as_str()];
    let one = report(&folder, &[&[run][..], &picture].concat());
    let several = report(&folder, &[run, "<b>other"]);
    let curves = plot(&folder, &[run, "<b>other"]);
    let named = report(&folder, &["<b>other"]);
    for (page, has) in [
        (&one, &[&all, dataset, run, HOSTILE[1]][..]),
        (&several, &[all.as_str(), run, "<b>other"]),
        (&named, &["\"</title><b>\"", "<b>other"]),
        (&curves, &[run, "<b>other"]),
    ] {
        for text in HOSTILE.iter().copied().chain([run, dataset, "<b>", "</title><b>"]) {
            assert!(!page.contains(text), "{text} is there as it is");
        }
        for text in has {
            assert!(page.contains(&escaped(text)), "{} is not there", escaped(text));
        }
    }
    parse_xml(&folder, &curves);
    // One title, and the scripts that are ours.
    for page in [&one, &several, &named] {
        assert_eq!(between(page, "<head>", "</head>")[0].matches("<title>").count(), 1);
        assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (3, 3));
        serde_json::from_str::<serde_json::Value>(between(page, "id=\"data\">", "</script>")[0]).expect("JSON");
    }
}

#[test]
fn svg_columns_are_shown_as_images_only() {
    let folder = folder();
    let picture = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    let texts: Vec<String> =
        (0..40).map(|row| if row % 2 == 0 { picture.into() } else { format!("text {row}") }).collect();
    let frame = items(&normal(40, 3, &mut rng(5))).hstack(&[Column::new("drawn".into(), texts)]).expect("a frame");
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    search(&folder, "run", &[]);
    let page = report(&folder, &["run", "--picture", "drawn"]);
    assert!(!page.contains("alert(1)"));
    let images = between(&page, "<img src=\"data:image/svg+xml;base64,", "\"");
    use base64::Engine;
    assert!(!images.is_empty());
    for image in images {
        assert_eq!(base64::prelude::BASE64_STANDARD.decode(image).expect("base64"), picture.as_bytes());
    }
    assert!(page.contains("<td>text "));
    let output = uphill(&["report", "run", "--picture", "nothing"], folder.path());
    let said = "uphill: --picture: no column `nothing` of text among the items (there are: name, drawn)\n";
    assert_eq!((stderr(&output).as_str(), output.status.code()), (said, Some(2)));
}

#[test]
fn runs_that_differ_only_in_their_seeds_are_one_line_with_a_band() {
    let folder = library(300);
    for (run, seed) in [("a", "seed=1"), ("b", "seed=2"), ("c", "seed=3")] {
        search(&folder, run, &[seed]);
    }
    search(&folder, "other", &["update.lr=3.0"]);
    let page = report(&folder, &["a", "b", "c", "other"]);
    let chart = between(&page, "<svg class=\"chart\"", "</svg>")[0];
    assert_eq!(chart.matches("class=\"band ").count(), 1, "{chart}");
    assert_eq!(chart.matches("class=\"line ").count(), 2, "{chart}");
    // In the end, the median of the three.
    let runs: Vec<Vec<f64>> = ["a", "b", "c"].iter().map(|run| paid(&folder.path().join(run))).collect();
    let mut best: Vec<f64> = runs.iter().map(|scores| scores.iter().copied().fold(f64::MIN, f64::max)).collect();
    best.sort_by(f64::total_cmp);
    let (costs, bests) = data_of(&page, 0);
    assert_eq!(costs.last(), Some(&uphill::format_number(runs.iter().map(Vec::len).max().expect("a run") as f64)));
    assert_eq!(bests.last(), Some(&uphill::format_number(best[1])));
    let differences = between(&page, "<h2 id=\"differences\">", "</table>")[0];
    let learning_rates = "<th scope=\"row\">update.lr</th><td>0.5</td><td>0.5</td><td>0.5</td><td>3.0</td>";
    assert!(differences.contains(learning_rates), "{differences}");
    assert!(page.contains("The other runs have the seeds 2, 3."));
}

#[test]
fn the_map_shows_its_explained_variance() {
    // On a grid whose variances are 4 to 1, turned by an eighth; the third component is always the same.
    let rows = 400;
    let point = |row: usize| (2.0 * ((row % 20) as f32 - 9.5), (row / 20) as f32 - 9.5);
    let turned = ndarray::Array2::from_shape_fn((rows, 3), |(row, component)| {
        let (x, y) = point(row);
        [x - y, x + y, 7.0][component]
    });
    let line = ndarray::Array2::from_shape_fn((rows, 1), |(row, _)| row as f32);
    for (embeddings, shares) in [(turned, "80 % and 20 %"), (line, "100 % and 0 %")] {
        let folder = folder();
        dataset(&folder, &embeddings, &Default::default());
        std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
        search(&folder, "run", &[]);
        let page = report(&folder, &["run"]);
        assert!(page.contains(&format!("which explain {shares} of its variance")), "{shares}");
    }
}

#[test]
fn killed_empty_and_manual_runs_of_every_format_have_a_report_even_without_their_dataset() {
    let folder = library(200);
    search(&folder, "run", &[]);
    let file = folder.path().join("run/run.json");
    let whole = std::fs::read_to_string(&file).expect("run.json");
    // Killed: no end, the queries are ahead of the results, a line of the times is cut.
    let mut manifest: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    manifest["ended"] = serde_json::Value::Null;
    std::fs::write(&file, manifest.to_string()).expect("written");
    std::fs::remove_dir_all(folder.path().join("run/results/iteration=000003")).expect("removed");
    let times = std::fs::read_to_string(folder.path().join("run/times.jsonl")).expect("times");
    std::fs::write(folder.path().join("run/times.jsonl"), &times[..times.len() - 20]).expect("written");
    let page = report(&folder, &["run"]);
    assert!(page.contains("Not ended: it is running, or was killed") && page.contains("<h2 id=\"times\">"));
    assert!(page.contains("<svg class=\"map\""));

    // By hand, and nothing told yet.
    let by_hand = RUN.replace("sql = \"weight\"", "by_hand = true").replace("[stop]", "[stop]\nfailed_share = 1");
    std::fs::write(folder.path().join("run.toml"), by_hand).expect("written");
    uphill_ok(&["ask", "run.toml", "--out", "asked", "-o", "asked.parquet"], folder.path());
    let page = report(&folder, &["asked"]);
    assert!(page.contains("No curves: no item has a score.") && page.contains("uphill ask run.toml --out again"));
    assert!(page.contains("<p>No item has a score.</p>"));
    let output = uphill(&["plot", "asked"], folder.path());
    assert_eq!(stderr(&output), "uphill: asked: nothing to draw: no item has a score\n");
    // Both compared.
    assert!(report(&folder, &["run", "asked"]).contains("<h2 id=\"differences\">"));
    // All failed.
    let asked = u64s(&read(&folder.path().join("asked.parquet")), "db_idx");
    let nothing = Column::full_null("score".into(), asked.len(), &DataType::Float64);
    let told =
        DataFrame::new(asked.len(), vec![Column::new("db_idx".into(), asked.clone()), nothing]).expect("a frame");
    write(&folder.path().join("told.parquet"), &told);
    uphill_ok(&["tell", "asked", "told.parquet"], folder.path());
    let page = report(&folder, &["asked"]);
    assert!(page.contains("<h2 id=\"reasons\">") && page.contains("<p>No item has a score.</p>"));

    std::fs::remove_dir_all(folder.path().join("items.lance")).expect("removed");
    let page = report(&folder, &["run"]);
    assert!(page.contains("The map cannot be drawn, as the dataset cannot be read: "));
    assert!(
        page.contains("<td>item ") && page.contains("<svg class=\"chart\"") && !page.contains("<svg class=\"map\"")
    );

    let old = root().join("tests/format-1/run");
    uphill_ok(&["report", &old.to_string_lossy(), "-o", "report.html"], folder.path());
    let page = std::fs::read_to_string(folder.path().join("report.html")).expect("a report");
    assert!(page.contains("<svg class=\"chart\"") && page.contains("<th scope=\"row\">run folder format</th>"));
}

#[test]
fn scores_that_are_all_equal_or_extremely_large_are_drawn() {
    let folder = library(100);
    for (run, score) in
        [("alike", "0.0 * weight"), ("large", "(weight - 0.5) * 1.7e308 * 2.0"), ("small", "weight / 1.7e308")]
    {
        search(&folder, run, &[&format!("score.sql={score}")]);
        let page = report(&folder, &[run]);
        assert_eq!(page.matches("<svg class=\"chart\"").count(), 3, "{run}");
        for text in ["NaN", "inf "] {
            assert!(!between(&page, "<svg class=\"", "</svg>").iter().any(|svg| svg.contains(text)), "{run}: {text}");
        }
        parse_xml(&folder, &plot(&folder, &[run]));
    }
}

#[test]
fn the_times_of_stages_are_recorded_and_removed_with_the_run() {
    let folder = library(100);
    search(&folder, "run", &[]);
    let times = uphill::SearchLog::open(folder.path().join("run")).expect("a run").times().expect("times");
    assert!(times.query > 0.0 && times.log > 0.0 && times.query + times.log < 600.0, "{times:?}");
    let lines = std::fs::read_to_string(folder.path().join("run/times.jsonl")).expect("times");
    assert_eq!(lines.lines().count(), 4);
    uphill_ok(&["remove", "run"], folder.path());
    assert!(!folder.path().join("run").exists());
}

/// The charts of a page: what each says, its lines (class and path), and the labels below it.
type Drawn<'a> = (&'a str, Vec<(&'a str, &'a str)>, Vec<&'a str>);

fn charts(page: &str) -> Vec<Drawn<'_>> {
    let chart = |svg| {
        let lines = between(svg, "<path class=\"line ", "/path>").into_iter();
        let lines = lines.map(|line| (line.split('"').next().expect("a class"), between(line, " d=\"", "\"")[0]));
        let below = between(svg, "<text class=\"tick middle\"", "</text>").into_iter();
        let below = below.map(|tick| tick.split_once('>').expect("a text").1);
        (between(svg, "aria-label=\"", "\"")[0], lines.collect(), below.collect())
    };
    between(page, "<svg class=\"chart\"", "</svg>").into_iter().map(chart).collect()
}

#[test]
fn no_chart_is_empty_and_labels_are_right_even_with_few_scores() {
    let folder = library(300);
    for (scored, summed) in [(1, None), (2, None), (3, Some(2)), (15, Some(8)), (40, Some(20)), (150, Some(75))] {
        let run = format!("run-{scored}");
        let more = [&format!("stop.evaluations={scored}"), "stop.iterations=1000", "update.rule=surrogate"];
        std::fs::write(folder.path().join("run.toml"), RUN.replace("rule = \"rl\"\n", "")).expect("written");
        search(&folder, &run, &more);
        assert_eq!(paid(&folder.path().join(&run)).len(), scored);
        let page = report(&folder, &[&run]);
        let charts = charts(&page);
        for (says, lines, below) in &charts {
            let is_seen = |(class, d): &(&str, &str)| d.contains('L') || class.ends_with(" single") && d.contains("h0");
            assert!(!lines.is_empty() && lines.iter().all(is_seen), "{scored}: {says}: {lines:?}");
            // Items and iterations are counted, predictions are not.
            let is_count = !says.starts_with("Predicted");
            assert!(!is_count || below.iter().all(|tick| tick.parse::<u32>().is_ok()), "{scored}: {says}: {below:?}");
        }
        let sums: Vec<&str> = charts.iter().map(|chart| chart.0).filter(|says| says.starts_with("Sum of")).collect();
        match summed {
            Some(summed) => assert!(sums[0].contains(&format!("sum of the best {summed} against")), "{sums:?}"),
            None => assert!(sums.is_empty(), "{sums:?}"),
        }
        assert!(!page.contains("sum of the best 100") && page.contains("<svg class=\"map\""));
    }
    // Of runs that are compared, what each of them has: two of the first three.
    let page = report(&folder, &["run-150", "run-3"]);
    assert!(page.contains("sum of the best 2 against"), "{:?}", charts(&page));
    assert!(charts(&page)[1].1.len() == 2);

    // More than there are, if that is asked for, is said.
    let page = report(&folder, &["run-15", "--top", "50"]);
    assert!(page.contains("There is no sum of the best 50: no run has 50 scores."));
    assert!(!charts(&page).iter().any(|chart| chart.0.starts_with("Sum of")));
    // In a table, too: where there are fewer, their sum is another.
    let page = report(&folder, &["run-150", "run-15", "--top", "50"]);
    let row = between(&page, "<th scope=\"row\">sum of the best 50</th>", "</tr>")[0];
    assert!(row.contains("<td>none</td>"), "{row}");
}

#[test]
fn evaluations_without_a_score_are_not_counted_as_scored() {
    let folder = library(300);
    let score = "score.sql=CASE WHEN weight > 0.5 THEN weight END";
    let set = ["--set", score, "--set", "stop.failed_share=1", "--set", "score.direction=minimize"];
    let output = uphill(&[&["search", "run.toml", "--out", "run"][..], &set].concat(), folder.path());
    let results = read_results(&folder.path().join("run"));
    let (all, failed) = (results.height(), results.column("score").expect("scores").null_count());
    let scored = all - failed;
    assert!(failed > 0 && scored > 0);
    let says = format!("4 iterations, {all} evaluations: {scored} items scored, {failed} failed (as many");
    assert!(stderr(&output).contains(&says), "{}", stderr(&output));
    let shown = uphill(&["results", "run", "-n", "3"], folder.path());
    assert!(stderr(&shown).starts_with(&says), "{}", stderr(&shown));
    let facts = uphill_ok(&["inspect", "run", "--json"], folder.path());
    let facts: serde_json::Value = serde_json::from_str(&facts).expect("JSON");
    for (fact, number) in [("evaluations", all), ("items scored", scored), ("items failed", failed)] {
        assert_eq!(facts[fact], number, "{fact}");
    }
    // The lowest, as the scorer gave it.
    assert_eq!(facts["best score"], f64s(&results, "raw_score")[0]);
    let page = report(&folder, &["run"]);
    for (label, number) in [("Evaluations", all), ("Items scored", scored), ("Failed", failed)] {
        assert!(page.contains(&format!("<dt>{label}</dt><dd>{number}<")), "{label}: {number}");
    }
    let says = format!("against evaluations. run: {}", uphill::format_number(f64s(&results, "raw_score")[0]));
    assert!(page.contains(&says) && !page.contains("against items scored"), "{:?}", charts(&page));
    // A line for each iteration says it too.
    let set = [&set[..], &["--log-format", "json"]].concat();
    let output = uphill(&[&["search", "run.toml", "--out", "again"][..], &set].concat(), folder.path());
    let events = stderr(&output);
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let events: Vec<serde_json::Value> = events.collect();
    let last = events.iter().rfind(|event| event["event"] == "iteration").expect("an iteration");
    assert!(last["evaluations"] == all && last["scored"].is_null(), "{last}");
    let ended = events.iter().find(|event| event["event"] == "ended").expect("an end");
    assert!(ended["evaluations"] == all && ended["scored"] == scored, "{ended}");
}

fn read_results(run: &Path) -> DataFrame {
    let log = uphill::SearchLog::open(run).expect("a run");
    uphill::collect(log.compile_results().expect("a query")).expect("results")
}

/// The rows of the table of reasons.
fn reasons(page: &str) -> Vec<String> {
    let table = between(page, "<h2 id=\"reasons\">", "</table>")[0];
    let body = between(table, "<tbody>", "</tbody>")[0];
    let text = |row: &str| {
        let cells = between(row, ">", "<").into_iter().filter(|cell| !cell.trim().is_empty());
        cells.collect::<Vec<_>>().join(" | ")
    };
    between(body, "<tr>", "</tr>").into_iter().map(text).collect()
}

#[test]
fn reasons_that_differ_only_in_numbers_ids_and_names_are_one_row() {
    let folder = library(300);
    let by_hand = RUN.replace("sql = \"weight\"", "by_hand = true").replace("[stop]", "[stop]\nfailed_share = 1");
    std::fs::write(folder.path().join("run.toml"), by_hand).expect("written");
    uphill_ok(&["ask", "run.toml", "--out", "run", "-o", "asked.parquet"], folder.path());
    let asked = u64s(&read(&folder.path().join("asked.parquet")), "db_idx");
    assert_eq!(asked.len(), 20);
    // Five kinds, of four items each.
    let reason = |at: usize| match at % 5 {
        0 => format!("item {}: no answer within {} s", 100 + at, [60.5, 9.5, 120.0, 30.0][at / 5]),
        1 => format!("no pose of mol-{at:06} (job 550e8400-e29b-41d4-a716-{at:012})"),
        2 => format!("cannot read \"C{}(=O)N\"", "C".repeat(at)),
        3 => format!("exit code {}", 1 + at / 10),
        _ => "out of licences".to_string(),
    };
    let columns = vec![
        Column::new("db_idx".into(), asked.clone()),
        Column::full_null("score".into(), asked.len(), &DataType::Float64),
        Column::new("reason".into(), (0..asked.len()).map(reason).collect::<Vec<_>>()),
    ];
    write(&folder.path().join("told.parquet"), &DataFrame::new(asked.len(), columns).expect("a frame"));
    uphill_ok(&["tell", "run", "told.parquet"], folder.path());
    let mut found = reasons(&report(&folder, &["run"]));
    found.sort();
    let expected = [
        "failed | cannot read &quot;CCC(=O)N, …&quot; | 4",
        "failed | exit code 1, 2 | 4",
        "failed | item 100 to 115: no answer within 9.5 to 120 s | 4",
        "failed | no pose of mol-000001, … (job 550e8400-e29b-41d4-a716-000000000001, …) | 4",
        "failed | out of licences | 4",
    ];
    for (found, expected) in found.iter().zip(expected) {
        let expected = expected.replace("mol-000001, …", "mol-000001 to 000016");
        assert_eq!(*found, expected);
    }
    assert_eq!(found.len(), expected.len(), "{found:?}");
}

#[test]
fn each_gate_of_a_sum_is_one_row_of_the_reasons_whatever_it_is_named() {
    let folder = library(300);
    let gate = |name: &str, sql: &str, least: f64| {
        format!("[[score.sum]]\nname = \"{name}\"\nsql = \"{sql}\"\nat_least = {least}\n")
    };
    let sum = [gate("gate 1", "weight", 0.3), gate("gate 2", "1 - weight", 0.3), gate("g3", "weight", 0.5)].concat();
    let run = RUN.replace("[score]\nsql = \"weight\"\n", "").replace("iterations = 4", "iterations = 8") + &sum;
    std::fs::write(folder.path().join("run.toml"), run).expect("written");
    search(&folder, "run", &["database.k=20"]);
    let rows = reasons(&report(&folder, &["run"]));
    assert_eq!(rows.len(), 3, "{rows:?}");
    for (gate, limit) in [("gate 1", "0.3"), ("gate 2", "0.3"), ("g3", "0.5")] {
        let row = rows.iter().find(|row| row.starts_with(&format!("rejected | {gate}: "))).expect("a row");
        assert!(row.contains(" to ") && row.contains(&format!(" is below {limit} | ")), "{row}");
    }
    let rejected: u64 =
        rows.iter().map(|row| row.rsplit(' ').next().expect("a count").parse::<u64>().expect("n")).sum();
    let results = read_results(&folder.path().join("run"));
    assert_eq!(rejected as usize, results.column("score").expect("scores").null_count(), "each item is counted");
}

#[test]
fn a_function_is_shown_by_its_own_name() {
    let folder = library(100);
    search(&folder, "run", &[]);
    let file = folder.path().join("run/run.json");
    let whole = std::fs::read_to_string(&file).expect("run.json");
    for (call, name) in [
        ("__main__.score", "score"),
        ("package.module.Docking.energy", "energy"),
        ("__main__.make.<locals>.likeness", "likeness"),
        ("__main__.<lambda>", "score"),
    ] {
        let mut manifest: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
        manifest["config"]["score"] = serde_json::json!({ "call": call });
        std::fs::write(&file, manifest.to_string()).expect("written");
        let page = report(&folder, &["run"]);
        assert!(page.contains(&format!("Best score, {name} against")), "{:?}", charts(&page));
        assert!(page.contains(&format!("Score: {name} (larger is better)")), "{call}");
        let before_configuration = page.split("<h2 id=\"configuration\">").next().expect("a page");
        assert!(!before_configuration.contains("__main__") && !before_configuration.contains("lambda"), "{call}");
        assert!(!plot(&folder, &["run"]).contains("__main__"));
    }
}

#[test]
fn the_alt_text_of_an_image_names_its_item() {
    let folder = folder();
    let drawn: Vec<&str> = vec!["<svg xmlns=\"http://www.w3.org/2000/svg\"/>"; 40];
    let frame = items(&normal(40, 3, &mut rng(5))).hstack(&[Column::new("drawn".into(), drawn)]).expect("a frame");
    write(&folder.path().join("items.parquet"), &frame);
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    search(&folder, "run", &[]);
    search(&folder, "other", &["seed=4"]);
    for runs in [&["run"][..], &["run", "other"]] {
        let page = report(&folder, &[runs, &["--picture", "drawn"]].concat());
        let table = between(&page, "<table id=\"items\">", "</table>")[0];
        let column = if runs.len() > 1 { 2 } else { 1 };
        let rows = between(between(table, "<tbody>", "</tbody>")[0], "<tr>", "</tr>");
        assert!(!rows.is_empty());
        for row in rows {
            let item = between(row, "<td", "</td>")[column].rsplit('>').next().expect("a text");
            assert!(row.contains(&format!("alt=\"picture of item {item}, item {item}\"")), "{item}: {row}");
        }
    }
}

#[test]
fn the_map_has_no_colour_scale_if_all_scores_are_equal() {
    let folder = library(100);
    search(&folder, "alike", &["score.sql=0.0 * weight + 0.5"]);
    search(&folder, "nothing", &["score.sql=CASE WHEN weight > 5 THEN weight END", "stop.failed_share=1"]);
    search(&folder, "ties", &["score.sql=CASE WHEN weight > 0.98 THEN 2.0 ELSE 1.0 END", "database.k=40"]);
    let page = report(&folder, &["alike"]);
    assert!(!page.contains("<div class=\"scale\">") && page.contains("<svg class=\"map\""));
    let page = report(&folder, &["nothing"]);
    assert!(!page.contains("<div class=\"scale\">") && page.contains("Coloured: none, as no item has a score"));
    assert!(page.contains("No curves: no item has a score."));
    // All but few are alike: from the one to the other.
    let results = read_results(&folder.path().join("ties"));
    assert_eq!(f64s(&results, "score")[0], 2.0);
    let page = report(&folder, &["ties"]);
    let scale = between(&page, "<div class=\"scale\">", "</div>")[0];
    let scale = between(scale, "<span>", "</span>").join(" ");
    let ends: Vec<f64> = scale.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(ends[0] < 1.2 && ends.last() > Some(&1.8), "{scale}");
}

#[test]
fn tick_labels_are_distinct_and_a_small_share_is_not_zero() {
    let folder = library(3000);
    search(&folder, "run", &["score.sql=1000000 + weight / 1000", "stop.evaluations=2"]);
    let page = report(&folder, &["run"]);
    for svg in between(&page, "<svg class=\"chart\"", "</svg>") {
        let ticks: Vec<&str> = between(svg, "<text class=\"tick end\"", "</text>");
        let mut labels: Vec<&str> = ticks.iter().map(|tick| tick.split_once('>').expect("a text").1).collect();
        let all = labels.len();
        labels.dedup();
        assert!(labels.len() == all && all > 1, "{labels:?}");
    }
    assert!(page.contains("0.07 % of 3000"), "{:?}", between(&page, "<small>", "</small>"));
}
