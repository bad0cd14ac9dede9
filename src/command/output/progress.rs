//! Progress on standard error: a block that is redrawn on a terminal, else a line every ten seconds or an event for each
//! iteration.

use std::fmt::Write;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::logger::{info, json_event, set_progress_bar, verbosity};
use super::progress_state::ProgressState;
use super::terminal::{stderr_width, truncate};
use crate::config::StopConfig;
use crate::panics::lock;
use crate::runner::IterationSummary;

/// How often a line is written where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the block is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Shows the progress of a search until it is dropped.
pub struct SearchProgress {
    state: Arc<Mutex<ProgressState>>,
    display: Display,
}

/// How progress is shown between iterations.
enum Display {
    None,
    Block(ProgressBar),
    /// Lines of a thread that ends when its sender is dropped.
    Lines(Option<(Sender<()>, JoinHandle<()>)>),
}

impl SearchProgress {
    /// The progress of a search with these limits. `minimize` says whether smaller scores are better.
    pub fn new(stop: &StopConfig, minimize: bool) -> Self {
        let state = Arc::new(Mutex::new(ProgressState::new(stop, minimize)));
        let display = match verbosity() {
            verbosity if verbosity.shows_progress() => Display::Block(block(&state)),
            verbosity if verbosity.is_quiet() || verbosity.is_json() || verbosity.is_verbose() => Display::None,
            _ => Display::Lines(start_lines(&state)),
        };
        if let Display::Block(bar) = &display {
            set_progress_bar(Some(bar.clone()));
            bar.enable_steady_tick(REDRAW_INTERVAL);
        }
        SearchProgress { state, display }
    }

    /// The counter of pending evaluations, for the runner to update.
    pub fn pending(&self) -> Arc<AtomicUsize> {
        lock(&self.state).pending.clone()
    }

    /// A callback for each batch before its scores are requested.
    pub fn submit_observer(&self) -> impl FnMut(&IterationSummary) + 'static {
        let state = self.state.clone();
        move |summary| lock(&state).forecast.submit(summary)
    }

    /// A callback for the summary of each iteration.
    pub fn observer(&self) -> impl FnMut(&IterationSummary) + 'static {
        let (state, verbosity) = (self.state.clone(), verbosity());
        move |summary| {
            let (event, line) = {
                let mut state = lock(&state);
                state.add(summary);
                (state.event(summary), state.verbose_line(summary))
            };
            if verbosity.is_json() {
                json_event(&event);
            } else if verbosity.is_verbose() {
                info(line);
            }
        }
    }
}

impl Drop for SearchProgress {
    fn drop(&mut self) {
        match &mut self.display {
            Display::None => {}
            Display::Block(bar) => {
                set_progress_bar(None);
                bar.finish_and_clear();
            }
            Display::Lines(lines) => {
                let thread = lines.take().map(|(sender, thread)| {
                    drop(sender);
                    thread
                });
                let _ = thread.map(JoinHandle::join);
            }
        }
    }
}

/// The block: scores above, the bar and the cost below, and hits and a forecast between them if there are any.
fn block(state: &Arc<Mutex<ProgressState>>) -> ProgressBar {
    type Draw = fn(&ProgressState, usize) -> String;
    let keys: [(&'static str, Draw); 7] = [
        ("best", |state, _| state.best()),
        ("scores", |state, width| truncate(&state.scores(), width.saturating_sub(2 + state.best().chars().count()))),
        ("hits", |state, width| state.hits().map_or(String::new(), |text| format!("\n  {}", truncate(&text, width)))),
        ("forecast", |state, width| {
            let text = state.forecast.text(width);
            text.map_or(String::new(), |text| format!("\n  {}", truncate(&text, width)))
        }),
        ("done", |state, width| "━".repeat(state.bar(width).0)),
        ("rest", |state, width| "─".repeat(state.bar(width).1)),
        ("cost", |state, width| state.cost(width)),
    ];
    let template = "  {best:.bold}{scores}{hits}{forecast}\n  {done:.green}{rest:.dim}{cost}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let style = keys.into_iter().fold(style, |style, (key, draw)| {
        let state = state.clone();
        style.with_key(key, move |_: &indicatif::ProgressState, out: &mut dyn Write| {
            let width = stderr_width().unwrap_or(80).saturating_sub(3);
            let _ = out.write_str(&draw(&lock(&state), width));
        })
    });
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

/// Starts a thread that writes a line at intervals. If it cannot be started, the search continues without.
fn start_lines(state: &Arc<Mutex<ProgressState>>) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (sender, stopped) = channel::<()>();
    let state = state.clone();
    let write = move || {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LINE_INTERVAL) {
            let line = lock(&state).line();
            info(line);
        }
    };
    let thread = std::thread::Builder::new().name("progress".into()).spawn(write).ok()?;
    Some((sender, thread))
}

/// A bar that counts rows. It is hidden where progress is not shown.
pub fn row_progress_bar() -> ProgressBar {
    if !verbosity().shows_progress() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} rows  {per_sec}  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
