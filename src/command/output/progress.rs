//! How far a search is, on standard error, while it goes on: a block that is drawn anew on a terminal, a line every ten
//! seconds elsewhere, or an object for each iteration.

use std::fmt::Write;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::screen::columns_of_stderr;
use super::standing::{Standing, cut};
use super::voice::{Voice, draw_below, report, say};
use crate::config::StopConfig;
use crate::panics::lock;
use crate::runner::IterationSummary;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often a line is written where nothing can be drawn.
const EVERY: Duration = Duration::from_secs(10);
/// How often the block is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Shows how far a search is until it is dropped.
pub struct Progress {
    state: Arc<Mutex<Standing>>,
    shown: Shown,
}

enum Shown {
    Nothing,
    Block(ProgressBar),
    /// Written by a thread until its sender is dropped.
    Lines(Option<(Sender<()>, JoinHandle<()>)>),
}

impl Progress {
    /// Of a search that stops so; a smaller score is better, or a larger one.
    pub fn new(stop: &StopConfig, minimize: bool) -> Self {
        let voice = Voice::now();
        let state = Arc::new(Mutex::new(Standing::new(stop, minimize)));
        let shown = match voice {
            voice if voice.draws() => Shown::Block(block(&state)),
            voice if voice.is_quiet() || voice.is_json() || voice.is_verbose() => Shown::Nothing,
            _ => Shown::Lines(lines(&state)),
        };
        if let Shown::Block(bar) = &shown {
            draw_below(Some(bar.clone()));
            bar.enable_steady_tick(TICK);
        }
        Progress { state, shown }
    }

    /// Where the number of items is to be kept that were asked and have no answer yet.
    pub fn waiting(&self) -> Arc<AtomicUsize> {
        lock(&self.state).waiting.clone()
    }

    /// Is told of each iteration.
    pub fn observer(&self) -> impl FnMut(&IterationSummary) + 'static {
        let (state, voice) = (self.state.clone(), Voice::now());
        move |summary| {
            let (event, line) = {
                let mut state = lock(&state);
                state.take(summary);
                (state.event(summary), state.verbose_line(summary))
            };
            match voice {
                voice if voice.is_json() => report(&event),
                voice if voice.is_verbose() => say(line),
                _ => {}
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Block(bar) => {
                draw_below(None);
                bar.finish_and_clear();
            }
            Shown::Lines(lines) => {
                let thread = lines.take().map(|(sender, thread)| {
                    drop(sender);
                    thread
                });
                let _ = thread.map(JoinHandle::join);
            }
        }
    }
}

/// The block: what was found above, what it takes below.
fn block(state: &Arc<Mutex<Standing>>) -> ProgressBar {
    type Draw = fn(&Standing, usize) -> String;
    let keys: [(&'static str, Draw); 5] = [
        ("best", |state, _| state.best()),
        ("found", |state, width| cut(&state.found(), width.saturating_sub(2 + state.best().chars().count()))),
        ("done", |state, width| "━".repeat(state.bar(width).0)),
        ("rest", |state, width| "─".repeat(state.bar(width).1)),
        ("costs", |state, width| state.costs(width)),
    ];
    let template = "  {best:.bold}{found}\n  {done:.green}{rest:.dim}{costs}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let style = keys.into_iter().fold(style, |style, (key, draw)| {
        let state = state.clone();
        style.with_key(key, move |_: &ProgressState, out: &mut dyn Write| {
            let width = columns_of_stderr().unwrap_or(80).saturating_sub(3);
            let _ = out.write_str(&draw(&lock(&state), width));
        })
    });
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

/// A thread that writes a line now and then.
fn lines(state: &Arc<Mutex<Standing>>) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (sender, ended) = channel::<()>();
    let state = state.clone();
    let write = move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
            let line = lock(&state).line();
            say(line);
        }
    };
    // Without a thread the search goes on all the same.
    let thread = std::thread::Builder::new().name("progress".into()).spawn(write).ok()?;
    Some((sender, thread))
}
