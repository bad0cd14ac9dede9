//! The files in which a dataset keeps what the model reads: no more of them than are needed, and none is believed that is
//! damaged.

use std::fs::File;
use std::path::{Path, PathBuf};

use uphill::{IndexKind, IndexOptions};

use crate::common::*;
use crate::database::append;
use crate::faults::files;

const RUN: &str = "seed = 2\n[database]\npath = 'items.lance'\n[score]\nsql = 'weight'\n[stop]\nevaluations = 12\n";

fn library() -> TempDir {
    let folder = folder();
    dataset(&folder, &clustered(400, 4, 8, &mut rng(61)), &IndexOptions::new().index(IndexKind::None));
    std::fs::write(folder.path().join("run.toml"), RUN).expect("written");
    folder
}

fn kept(folder: &TempDir) -> Vec<PathBuf> {
    files(&folder.path().join("items.lance/_uphill"))
}

fn search(folder: &TempDir, run: &str, more: &[&str]) -> String {
    let arguments = [&["search", "run.toml", "--out", run, "-o", "/dev/null"], more].concat();
    let output = uphill(&arguments, folder.path());
    assert!(output.status.success(), "{run}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn features_of_states_that_no_run_and_no_search_reads_are_deleted() {
    let folder = library();
    let dataset = folder.path().join("items.lance");
    assert_eq!(kept(&folder).len(), 2, "name and weight");
    let night = |night: u64| append(&dataset, &clustered(20, 4, 8, &mut rng(70 + night)));

    // The first night's run stays; those that follow are removed.
    night(0);
    search(&folder, "first", &[]);
    let of_first = kept(&folder);
    assert_eq!(of_first.len(), 1, "name; the state that the index left is the latest no more");
    // Left by a process that was killed, and by somebody else.
    std::fs::write(dataset.join("_uphill/.tmpKilled"), "half").expect("written");
    std::fs::write(dataset.join("_uphill/notes.txt"), "mine").expect("written");
    for number in 1..4 {
        night(number);
        search(&folder, "later", &[]);
        let names: Vec<_> = kept(&folder).iter().map(|file| file.file_name().expect("a name").to_owned()).collect();
        assert_eq!(names.len(), 3, "of the first run, of the latest state, and notes: {names:?}");
        assert!(names.contains(&"notes.txt".into()) && kept(&folder).contains(&of_first[0]), "{names:?}");
        uphill_ok(&["remove", "later"], folder.path());
    }
    // It goes on with what was kept for it.
    let before = std::fs::metadata(&of_first[0]).expect("a file").modified().expect("a time");
    search(&folder, "first", &["--resume", "--set", "stop.evaluations=20"]);
    assert_eq!(std::fs::metadata(&of_first[0]).expect("a file").modified().expect("a time"), before);
    uphill_ok(&["remove", "first"], folder.path());
    assert!(!of_first[0].exists(), "nobody reads that version any more");
    assert_eq!(kept(&folder).len(), 2);
}

#[test]
fn no_features_are_deleted_while_another_search_computes_them() {
    let folder = library();
    let dataset = folder.path().join("items.lance");
    append(&dataset, &clustered(20, 4, 8, &mut rng(81)));
    let before = kept(&folder);
    std::fs::write(dataset.join("_uphill/.tmpOther"), "half").expect("written");
    let lock = File::create(dataset.join("_uphill/lock")).expect("a file");
    lock.lock().expect("locked");
    search(&folder, "beside", &[]);
    assert!(before.iter().all(|file| file.exists()) && dataset.join("_uphill/.tmpOther").exists());
    drop(lock);
    search(&folder, "after", &[]);
    assert!(!before.iter().any(|file| file.exists()) && !dataset.join("_uphill/.tmpOther").exists());
    let results = |run: &str| uphill_ok(&["results", run, "--format", "csv"], folder.path());
    assert_eq!(results("beside"), results("after"));
}

/// Damages of a file: what, and what is there then.
fn damages(bytes: &[u8], other: &[u8]) -> Vec<(String, Vec<u8>)> {
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a header");
    let header = std::str::from_utf8(&bytes[..end]).expect("text");
    let (before, after) = header.split_once("\"width\":").expect("a width");
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    let mut damages: Vec<(String, Vec<u8>)> =
        ["0", "1", "65", "100000", "1000000000000", "18446744073709551615", "-1", "1e99"]
            .iter()
            .map(|width| {
                let header = format!("{before}\"width\":{width}{after}");
                (format!("width {width}"), [header.as_bytes(), &bytes[end..]].concat())
            })
            .collect();
    let mut not_text = bytes.to_vec();
    not_text[1] = 0xff;
    damages.push(("not text".into(), not_text));
    damages.push(("empty".into(), Vec::new()));
    damages.push(("the header alone".into(), bytes[..=end].to_vec()));
    damages.push(("no line".into(), vec![b'{'; 3 << 20]));
    damages.push(("cut".into(), bytes[..bytes.len() - 1].to_vec()));
    damages.push(("longer".into(), [bytes, b"x"].concat()));
    damages.push(("another column".into(), other.to_vec()));
    let mut bit = bytes.to_vec();
    bit[end + 5] ^= 1;
    damages.push(("one bit".into(), bit));
    // Nothing to say, and that as it should be written.
    let mut nothing = bytes.to_vec();
    nothing.truncate(end + 1);
    nothing.extend([0; 32]);
    damages.push(("other numbers".into(), nothing));
    damages
}

#[test]
fn damaged_features_are_reported_and_computed_again_whatever_size_they_declare() {
    let folder = library();
    let file_of = |column: &str| -> PathBuf {
        let is_it = |file: &PathBuf| {
            let bytes = std::fs::read(file).expect("a file");
            String::from_utf8_lossy(&bytes[..200.min(bytes.len())]).contains(&format!("\"{column}\""))
        };
        kept(&folder).into_iter().find(is_it).expect("a file")
    };
    let (file, other) = (file_of("name"), file_of("weight"));
    let (bytes, other) = (std::fs::read(&file).expect("a file"), std::fs::read(other).expect("a file"));
    search(&folder, "whole", &[]);
    let results = |run: &str| uphill_ok(&["results", run, "--format", "csv"], folder.path());
    let whole = results("whole");
    for (damage, damaged) in damages(&bytes, &other) {
        std::fs::write(&file, damaged).expect("written");
        let said = search(&folder, "run", &[]);
        let name = file.file_name().expect("a name").to_string_lossy();
        assert!(said.contains(&*name) && said.contains("it is computed again"), "{damage}: {said}");
        assert_eq!(results("run"), whole, "{damage}");
        assert!(std::fs::read(&file).expect("a file") == bytes, "{damage}: not computed again");
        std::fs::remove_dir_all(folder.path().join("run")).expect("removed");
    }
    read_only(&folder, &file, &whole);
}

/// Where it cannot be made anew in its place, it is made beside.
fn read_only(folder: &TempDir, file: &Path, whole: &str) {
    std::fs::remove_file(file).expect("removed");
    std::fs::create_dir(file).expect("a folder in its place");
    search(folder, "beside", &[]);
    assert_eq!(uphill_ok(&["results", "beside", "--format", "csv"], folder.path()), whole);
}
