//! The dataset changed under a run: the run reads the version that it started with, and going on with it either gives
//! what would have come anyway, or says what differs.

use std::path::Path;
use std::process::Output;

use arrow::array::RecordBatchIterator;
use lance::Dataset;
use lance::dataset::cleanup::CleanupPolicyBuilder;
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance_index::IndexType;
use lance_linalg::distance::MetricType;

use crate::common::*;

const RUN: &str = "seed = 3\n[database]\npath = \"items.lance\"\nk = 6\n[queries]\nsample = 4\n[stop]\niterations = 5\n[score]\nsql = \"weight\"\n";

/// A library with an index, what a search of it finds in five iterations, and a run of two that may go on.
fn started() -> TempDir {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(600, 8, 9, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance", "--index", "ivf-flat", "--partitions", "6"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "whole"], folder.path());
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=2"], folder.path());
    folder
}

fn resume(folder: &TempDir) -> Output {
    uphill(&["search", "run.toml", "--out", "run", "--resume"], folder.path())
}

fn assert_goes_on_as_if_nothing_had_happened(folder: &TempDir) {
    let output = resume(folder);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("uphill:"), "a warning: {}", stderr(&output));
    let of = |run: &str| uphill_ok(&["trajectories", run, "--format", "json"], folder.path());
    assert_eq!(of("run"), of("whole"));
    let of = |run: &str| uphill_ok(&["results", run, "--format", "json"], folder.path());
    assert_eq!(of("run"), of("whole"));
}

fn assert_refused(folder: &TempDir, expected: &[&str]) {
    let output = resume(folder);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for expected in expected {
        assert!(said.contains(expected), "`{expected}` is not in {said}");
    }
}

/// Changes a dataset by Lance itself, as another program would.
fn change<F: Future<Output = ()>>(folder: &TempDir, change: impl FnOnce(Dataset) -> F) {
    let uri = folder.path().join("items.lance").to_string_lossy().into_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { change(Dataset::open(&uri).await.expect("opened")).await });
}

fn append(folder: &TempDir, rows: usize) {
    let frame = items(&normal(rows, 8, &mut rng(2)));
    let batch = uphill::to_arrow(&frame.select(["name", "embedding", "weight"]).expect("columns")).expect("a batch");
    change(folder, async |mut dataset| {
        let schema = arrow::datatypes::Schema::from(dataset.schema());
        let columns = schema.fields().iter().map(|field| {
            arrow::compute::cast(batch.column_by_name(field.name()).expect("a column"), field.data_type())
                .expect("cast")
        });
        let batch = arrow::array::RecordBatch::try_new(schema.clone().into(), columns.collect()).expect("a batch");
        dataset.append(RecordBatchIterator::new([Ok(batch)], schema.into()), None).await.expect("appended");
    });
}

async fn rebuild_index(dataset: &mut Dataset) {
    let params = VectorIndexParams::ivf_flat(3, MetricType::L2);
    let name = Some("embedding_idx".to_string());
    dataset.create_index(&["embedding"], IndexType::Vector, name, &params, true).await.expect("indexed");
}

#[test]
fn rows_appended_after_the_start_are_not_found() {
    let folder = started();
    append(&folder, 300);
    assert_goes_on_as_if_nothing_had_happened(&folder);
    // A new run does see them.
    uphill_ok(&["search", "run.toml", "--out", "new"], folder.path());
    assert_ne!(version(folder.path(), "new"), version(folder.path(), "run"));
}

fn version(folder: &Path, run: &str) -> serde_json::Value {
    let shown: serde_json::Value = serde_json::from_str(&uphill_ok(&["inspect", run, "--json"], folder)).expect("JSON");
    shown["dataset version"].clone()
}

#[test]
fn rows_deleted_after_the_start_are_still_found() {
    let folder = started();
    change(&folder, async |mut dataset| drop(dataset.delete("weight > 0.5").await.expect("deleted")));
    assert_goes_on_as_if_nothing_had_happened(&folder);
}

#[test]
fn an_index_rebuilt_after_the_start_is_not_used() {
    let folder = started();
    let library = || {
        let shown = uphill_ok(&["inspect", "items.lance", "--json"], folder.path());
        serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")["library id"].clone()
    };
    let before = library();
    change(&folder, async |mut dataset| rebuild_index(&mut dataset).await);
    assert_eq!(library(), before, "the rows are the same");
    assert_goes_on_as_if_nothing_had_happened(&folder);
}

/// Every version but the latest and those that are tagged.
async fn clean_up(dataset: &mut Dataset) {
    let old = (1..dataset.version().version).collect();
    let policy = CleanupPolicyBuilder::default().versions(old).expect("versions").delete_unverified(true);
    dataset.cleanup_with_policy(policy.error_if_tagged_old_versions(false).build()).await.expect("cleaned up");
}

/// The tags of the dataset and the versions that they keep, by name.
fn tags(folder: &TempDir) -> Vec<(String, u64)> {
    let (sender, receiver) = std::sync::mpsc::channel();
    change(folder, async move |dataset| {
        let tags = dataset.tags().list().await.expect("tags");
        sender.send(tags.into_iter().map(|(name, tag)| (name, tag.version)).collect()).expect("sent");
    });
    let mut tags: Vec<_> = receiver.recv().expect("tags");
    tags.sort();
    tags
}

fn tag(folder: &TempDir, run: &str) -> String {
    let log = uphill::SearchLog::open(folder.path().join(run)).expect("a run");
    log.manifest().version_tag.clone().expect("a tag")
}

#[test]
fn the_dataset_version_of_a_run_is_kept_by_clean_ups_until_the_run_is_removed() {
    let folder = started();
    let mut expected =
        ["run", "whole"].map(|run| (tag(&folder, run), version(folder.path(), run).as_u64().expect("a number")));
    expected.sort();
    assert_eq!(tags(&folder), expected);
    assert!(expected[0].0.starts_with("uphill-run-") && expected[0].0 != expected[1].0, "{expected:?}");
    append(&folder, 300);
    change(&folder, async |mut dataset| clean_up(&mut dataset).await);
    assert_goes_on_as_if_nothing_had_happened(&folder);

    // The other run reads the same version, which stays while either is there.
    let gone = tag(&folder, "whole");
    let said = uphill(&["remove", "whole"], folder.path());
    assert_eq!((stderr(&said).as_str(), said.status.code()), ("whole: removed\n", Some(0)));
    assert!(tags(&folder).len() == 1 && tags(&folder)[0].0 != gone);
    change(&folder, async |mut dataset| clean_up(&mut dataset).await);
    uphill_ok(&["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=6"], folder.path());

    std::fs::rename(folder.path().join("run"), folder.path().join("moved")).expect("moved");
    uphill_ok(&["search", "run.toml", "--out", "new"], folder.path());
    uphill_ok(&["remove", "moved"], folder.path());
    assert_eq!(tags(&folder), [(tag(&folder, "new"), version(folder.path(), "new").as_u64().expect("a number"))]);
    let lost = expected[0].1.to_string();
    change(&folder, async |mut dataset| clean_up(&mut dataset).await);
    let uri = folder.path().join("items.lance").to_string_lossy().into_owned();
    let options = uphill::OpenOptions::new().version(expected[0].1);
    let error = uphill::LanceDatabase::open_with(uri, &options).err().expect("cleaned up").to_string();
    assert!(error.contains(&format!("version {lost} does not exist")), "{error}");
}

#[test]
fn a_dataset_version_is_tagged_in_folders_of_every_name() {
    let folder = folder();
    for name in ["josé", "100% [a] #1?", "a b", "~\"{x}|\\^`"] {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).expect("a folder");
        write(&place.join("items.parquet"), &items(&clustered(200, 4, 3, &mut rng(1))));
        uphill_ok(&["index", "items.parquet", "é%.lance"], &place);
        std::fs::write(place.join("run.toml"), RUN.replace("items.lance", "é%.lance")).expect("written");
        uphill_ok(&["search", "run.toml", "--out", "run"], &place);
        let tags = || std::fs::read_dir(place.join("é%.lance/_refs/tags")).expect("tags").count();
        assert_eq!(tags(), 1, "{name}");
        uphill_ok(&["remove", "run"], &place);
        assert_eq!(tags(), 0, "{name}");
        let mut left: Vec<_> =
            std::fs::read_dir(&place).expect("a folder").map(|entry| entry.expect("one").file_name()).collect();
        left.sort();
        assert_eq!(left, ["items.parquet", "run.toml", "é%.lance"], "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 4, "no folder of another name");
}

#[test]
fn a_moved_run_folder_can_be_resumed() {
    let folder = started();
    let moved = folder.path().join("moved");
    std::fs::create_dir(&moved).expect("a folder");
    for name in ["items.lance", "run.toml", "run"] {
        std::fs::rename(folder.path().join(name), moved.join(name)).expect("moved");
    }
    uphill_ok(&["search", "run.toml", "--out", "run", "--resume"], &moved);
    let of = |run: &str, place: &Path| uphill_ok(&["results", run, "--format", "json"], place);
    assert_eq!(of("run", &moved), of("whole", folder.path()));
}

/// As a kill leaves it that came after run.json was written and before the dataset was tagged.
#[test]
fn a_missing_tag_is_set_when_the_run_is_resumed() {
    let folder = started();
    let (name, all) = (tag(&folder, "run"), tags(&folder));
    let deleted = name.clone();
    change(&folder, async move |dataset| dataset.tags().delete(&deleted).await.expect("deleted"));
    assert!(!tags(&folder).iter().any(|(there, _)| *there == name));
    assert_goes_on_as_if_nothing_had_happened(&folder);
    assert_eq!(tags(&folder), all);
}

#[test]
fn the_dataset_of_a_gradient_search_is_tagged_but_not_for_a_temporary_log() {
    let folder = folder();
    let library = clustered(100, 4, 5, &mut rng(1));
    let database = exact_library(&folder, &library).k(3);
    let queries = uphill::queries_at(&database, &[3, 14]).expect("queries");
    let runner = || {
        let flat = |vectors: ndarray::ArrayView2<'_, f64>| ndarray::Array2::zeros(vectors.dim());
        let wrapped: Box<dyn uphill::VectorDatabase> =
            Box::new(uphill::GradientDatabase::new(database.clone(), flat, [0.0]));
        uphill::Runner::new(wrapped, uphill::SqlScore::new("weight"), uphill::RlUpdate::new(1.0))
    };
    let log = runner().search(&queries, 1).expect("a log");
    assert_eq!((log.manifest().version_tag.as_deref(), tags(&folder)), (None, vec![]));
    let log = runner().search_into(folder.path().join("run"), &queries, 1).expect("a log");
    assert_eq!(tags(&folder), [(log.manifest().version_tag.clone().expect("a tag"), 2)]);
    // run.json has no run file that says where the dataset is; its own name for it does.
    drop(log);
    uphill::remove(folder.path().join("run")).expect("removed");
    assert_eq!(tags(&folder), []);
}

#[test]
fn a_dataset_that_cannot_be_tagged_is_searched_with_a_warning() {
    let folder = folder();
    write(&folder.path().join("items.parquet"), &items(&clustered(300, 8, 9, &mut rng(1))));
    uphill_ok(&["index", "items.parquet", "items.lance"], folder.path());
    std::fs::write(folder.path().join("run.toml"), RUN.replace("k = 6\n", "")).expect("written");
    // Where Lance keeps tags is no folder.
    std::fs::write(folder.path().join("items.lance/_refs"), "").expect("written");
    let output = uphill(&["search", "run.toml", "--out", "run"], folder.path());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let warned = said.lines().next().expect("a line");
    assert!(warned.starts_with("uphill: ./items.lance: tagging version 2: "), "{said}");
    assert!(
        warned.ends_with("; the search continues, but it cannot be resumed after a clean-up of this dataset version"),
        "{said}"
    );
    let output = uphill(&["remove", "run"], folder.path());
    let said = stderr(&output);
    assert!(!folder.path().join("run").exists());
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.ends_with("run: removed\n"), "{said}");
}

#[test]
fn a_missing_dataset_version_is_reported_with_the_latest() {
    let folder = started();
    change(&folder, async |mut dataset| {
        dataset.delete("weight > 0.9").await.expect("deleted");
        rebuild_index(&mut dataset).await;
        // By hand, as docs/run-folder.md says.
        for tag in dataset.tags().list().await.expect("tags").keys() {
            dataset.tags().delete(tag).await.expect("deleted");
        }
        clean_up(&mut dataset).await;
    });
    let pinned = version(folder.path(), "run");
    let latest = pinned.as_u64().expect("a number") + 2;
    assert_refused(&folder, &[&format!("items.lance: version {pinned} does not exist (the latest is {latest})")]);
}

#[test]
fn a_missing_dataset_is_reported() {
    let folder = started();
    std::fs::remove_dir_all(folder.path().join("items.lance")).expect("removed");
    assert_refused(&folder, &["items.lance: cannot open it as a Lance dataset"]);
}

#[test]
fn another_dataset_at_the_same_path_is_rejected_with_the_differences() {
    let index = |folder: &TempDir, library: &ndarray::Array2<f32>, more: &[&str]| {
        write(&folder.path().join("items.parquet"), &items(library));
        let arguments = ["index", "items.parquet", "items.lance", "--overwrite"];
        uphill_ok(&[&arguments[..], more].concat(), folder.path());
    };
    let ivf = ["--index", "ivf-flat", "--partitions", "6"];
    let folder = started();
    index(&folder, &clustered(600, 8, 9, &mut rng(4)), &ivf);
    assert_refused(
        &folder,
        &["run: this is not the dataset that the run read", "library id was ", "; index was IVF_FLAT embedding_idx ("],
    );
    index(&folder, &clustered(500, 8, 9, &mut rng(4)), &ivf);
    assert_refused(&folder, &["rows was 600, is 500", "library id was "]);
    index(&folder, &clustered(600, 5, 9, &mut rng(4)), &ivf);
    assert_refused(&folder, &["dim was 8, is 5", "library id was "]);
    index(&folder, &clustered(600, 8, 9, &mut rng(1)), &[&ivf[..], &["--metric", "cosine"]].concat());
    assert_refused(&folder, &["metric was l2, is cosine"]);
    index(&folder, &clustered(600, 8, 9, &mut rng(1)), &["--index", "ivf-sq", "--partitions", "6"]);
    assert_refused(&folder, &["index was IVF_FLAT embedding_idx (", "), is IVF_SQ embedding_idx ("]);
    // Without an index there is one version less.
    index(&folder, &clustered(600, 8, 9, &mut rng(1)), &["--index", "none"]);
    assert_refused(&folder, &["items.lance: version 4 does not exist (the latest is 2)"]);
}

/// Of the same shape, without an index, and not by `uphill index`: only when it was written tells them apart.
#[test]
fn a_replaced_dataset_of_another_program_is_detected_by_its_commit_time() {
    let folder = folder();
    let theirs = |seed: u64| {
        let path = folder.path().join("items.lance");
        let _ = std::fs::remove_dir_all(&path);
        let batch = uphill::to_arrow(&items(&clustered(200, 8, 9, &mut rng(seed)))).expect("a batch");
        let uri = path.to_string_lossy().into_owned();
        tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
            let schema = batch.schema();
            let reader = RecordBatchIterator::new([Ok(batch)], schema);
            Dataset::write(reader, uri.as_str(), None).await.expect("written");
        });
    };
    theirs(1);
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    uphill_ok(&["search", "run.toml", "--out", "run", "--set", "stop.iterations=2"], folder.path());
    assert!(resume(&folder).status.success());
    theirs(2);
    let output =
        uphill(&["search", "run.toml", "--out", "run", "--resume", "--set", "stop.iterations=7"], folder.path());
    assert!(
        stderr(&output).contains("run: this is not the dataset that the run read: commit time was "),
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_moved_dataset_with_the_same_commit_time_is_the_same() {
    let folder = started();
    // As `cp -r` and `mv` do.
    std::fs::rename(folder.path().join("items.lance"), folder.path().join("aside")).expect("moved");
    let copied = std::process::Command::new("cp")
        .args(["-r", "aside", "items.lance"])
        .current_dir(folder.path())
        .status()
        .expect("cp runs");
    assert!(copied.success());
    assert_goes_on_as_if_nothing_had_happened(&folder);
}
