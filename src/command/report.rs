//! `uphill report` and `uphill plot`: HTML pages and SVG curves of runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::evaluate::GroundTruth;
use crate::report::ReportOptions;

use super::output::{extension, info, to_file, warn};

#[derive(clap::Args)]
pub struct Report {
    /// Run folders. Several are compared.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
    /// Open the report in the browser.
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    truth: TruthOptions,
    /// Draw the molecules of this column of SMILES [default: a column with `smiles` in its name].
    #[arg(long, value_name = "COLUMN")]
    smiles: Option<String>,
    /// Show the SVG texts of this column as images.
    #[arg(long, value_name = "COLUMN")]
    picture: Option<String>,
    /// The new path of the dataset, if it was moved.
    #[arg(long, value_name = "DATASET")]
    library: Option<String>,
}

#[derive(clap::Args)]
pub struct Plot {
    /// Run folders. Several are compared.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "curve.svg")]
    output: PathBuf,
    #[command(flatten)]
    truth: TruthOptions,
}

/// The true scores, for the curve of recall.
#[derive(clap::Args)]
struct TruthOptions {
    /// The indexed items with their true scores. Adds the share of the best items that was found.
    #[arg(long, value_name = "ITEMS.parquet", requires = "score_column")]
    truth: Option<PathBuf>,
    /// The column of the true score.
    #[arg(long, requires = "truth")]
    score_column: Option<String>,
    /// Number of best items [default: 100, or fewer if there are fewer].
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Match items by this column, which the run and the truth have. Default: `db_idx` if the truth has it, or else the row number.
    #[arg(long, value_name = "COLUMN", requires = "truth")]
    key: Option<String>,
}

impl TruthOptions {
    fn options(self) -> ReportOptions {
        let TruthOptions { truth, score_column, top, key } = self;
        let truth = truth.zip(score_column).map(|(items, score_column)| GroundTruth { items, score_column, key });
        ReportOptions { truth, top, ..Default::default() }
    }
}

pub fn report(arguments: Report) -> anyhow::Result<()> {
    extension(&arguments.output, &["html", "htm"], "")?;
    let Report { smiles, picture, library, .. } = arguments;
    let options = ReportOptions { smiles, picture, library, ..arguments.truth.options() };
    write(&arguments.output, crate::report::report(&arguments.runs, &options)?)?;
    if arguments.open {
        open(&arguments.output);
    }
    Ok(())
}

pub fn plot(arguments: Plot) -> anyhow::Result<()> {
    extension(&arguments.output, &["svg"], "")?;
    write(&arguments.output, crate::report::plot(&arguments.runs, &arguments.truth.options())?)
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    to_file(path, |mut out| Ok(out.write_all(text.as_bytes())?))?;
    info(format_args!("{}: {} kB", path.display(), text.len().div_ceil(1000)));
    Ok(())
}

/// Opens a file in the default program of the desktop. A failure is only a warning, because the file is written.
fn open(path: &Path) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    if let Err(error) = command.arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        warn(format_args!("uphill: --open: {program}: {error}; open {} manually", path.display()));
    }
}
