//! The commands that make pictures of runs: `report` and `plot`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::evaluate::GroundTruth;
use crate::report::ReportOptions;

use super::output::{extension, say, to_file, warn};

#[derive(clap::Args)]
pub struct Report {
    /// The run folder; several are compared.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, short, default_value = "report.html")]
    output: PathBuf,
    /// Show it in the browser.
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    known: Known,
    /// Draw the structures of this column of SMILES [default: one whose name has `smiles` in it].
    #[arg(long, value_name = "COLUMN")]
    smiles: Option<String>,
    /// Show the SVG text of this column as an image.
    #[arg(long, value_name = "COLUMN")]
    picture: Option<String>,
    /// Where the dataset of the run is now, if it was moved.
    #[arg(long, value_name = "DATASET")]
    library: Option<String>,
}

#[derive(clap::Args)]
pub struct Plot {
    /// The run folder; several are compared.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, short, default_value = "curve.svg")]
    output: PathBuf,
    #[command(flatten)]
    known: Known,
}

/// What is known of the best.
#[derive(clap::Args)]
struct Known {
    /// The items that were indexed, with their true scores: shows the share of the best that was found.
    #[arg(long, value_name = "ITEMS.parquet", requires = "score_column")]
    truth: Option<PathBuf>,
    /// The column of the true score.
    #[arg(long, requires = "truth")]
    score_column: Option<String>,
    /// How many items are the best [default: 100, or fewer where there are fewer].
    #[arg(long)]
    top: Option<usize>,
    /// Match items with the truth by this column, which both have, instead of by row number.
    #[arg(long, value_name = "COLUMN", requires = "truth")]
    key: Option<String>,
}

impl Known {
    fn options(self) -> ReportOptions {
        let Known { truth, score_column, top, key } = self;
        let truth = truth.zip(score_column).map(|(items, score_column)| GroundTruth { items, score_column, key });
        ReportOptions { truth, top, ..Default::default() }
    }
}

pub fn report(arguments: Report) -> anyhow::Result<()> {
    extension(&arguments.output, &["html", "htm"], "")?;
    let Report { smiles, picture, library, .. } = arguments;
    let options = ReportOptions { smiles, picture, library, ..arguments.known.options() };
    write(&arguments.output, crate::report::report(&arguments.runs, &options)?)?;
    if arguments.open {
        open(&arguments.output);
    }
    Ok(())
}

pub fn plot(arguments: Plot) -> anyhow::Result<()> {
    extension(&arguments.output, &["svg"], "")?;
    write(&arguments.output, crate::report::plot(&arguments.runs, &arguments.known.options())?)
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    to_file(path, |mut out| Ok(out.write_all(text.as_bytes())?))?;
    say(format_args!("{}: {} kB", path.display(), text.len().div_ceil(1000)));
    Ok(())
}

/// Shows a file in whatever the desktop shows such files in. It is written all the same if there is no desktop.
fn open(path: &Path) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    if let Err(error) = command.arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        warn(format_args!("uphill: --open: {program}: {error}; open {} yourself", path.display()));
    }
}
