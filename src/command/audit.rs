//! `uphill audit`: scores random items that a run has not judged, to bound the hits that it has missed.

use std::path::PathBuf;

use polars::prelude::*;

use super::output::{OutputOptions, count, info, print_audit};
use super::signals::Signals;
use crate::config::Config;
use crate::frame::schema::{DB_IDX, OUTCOME, REASON, SCORE};
use crate::log::SearchLog;
use crate::runner::AuditState;
use crate::table::TableReader;

#[derive(clap::Args)]
pub struct Audit {
    /// The run folder.
    run: PathBuf,
    /// The number of items to draw. A larger number continues an earlier audit.
    #[arg(long, short = 'n', value_name = "N")]
    draws: u64,
    /// The threshold of a hit, in the scorer's own direction [default: stop.hit of the run].
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    hit: Option<f64>,
    /// For a run by hand: a Parquet, CSV or JSON file with the scores of the drawn items, as for `uphill tell`.
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Override a key of the run, for example --set score.workers=8 or --set database.path=moved.lance. Can be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: OutputOptions,
}

pub fn audit(arguments: Audit, signals: &Signals) -> anyhow::Result<u8> {
    let Audit { run, draws, hit, scores, set, output } = arguments;
    output.check()?;
    let mut config = Config::from_run(&SearchLog::open(&run)?, &set)?;
    config.stop.hit = hit.or(config.stop.hit);
    let (runner, _) = config.build(Some(&run))?;
    let mut runner = runner.interrupt(signals.flag());
    let state = match scores {
        Some(file) => {
            let table = TableReader::new(&file).ids(&[DB_IDX]).numbers(&[SCORE]).texts(&[OUTCOME, REASON]);
            runner.tell_audit(&run, draws, &table.read()?)?
        }
        None => {
            if !config.score.by_hand {
                info(format_args!("audit: scoring at most {} random items", count(draws)));
            }
            runner.audit(&run, draws)?
        }
    };
    let items = match state {
        AuditState::Pending(items) => {
            info(format_args!(
                "{} drawn items are waiting for scores; give them with: uphill audit {} -n {draws} --scores SCORES.parquet",
                items.height(),
                run.display()
            ));
            items
        }
        AuditState::Complete { audit, items } => {
            print_audit(&run, &audit);
            items
        }
    };
    output.write(items.lazy())?;
    Ok(0)
}
