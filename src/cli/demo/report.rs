//! What the demo tells: for people a line a step and a spinner while it waits, for programs an object a step.

use std::{io, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::output::{Output, Tone, tell};

/// A step of the story, as programs read it.
#[derive(Debug, Serialize)]
struct Told<'a> {
    step: &'a str,
    ok: bool,
    ms: f64,
}

/// Tells the story while it happens.
pub(super) struct Report {
    output: Output,
    spinner: Option<ProgressBar>,
    current: Option<(&'static str, Instant)>,
    began: Instant,
    steps: usize,
}

impl Report {
    /// Begins.
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            spinner: None,
            current: None,
            began: Instant::now(),
            steps: 0,
        }
    }

    /// Says what is about to happen.
    pub(super) fn title(&self, nodes: u8) -> io::Result<()> {
        let title = "nodes of weft on this machine, each a process with an address of its own";
        self.output.say(&format!("{nodes} {title}\n"))
    }

    /// Begins a step. The clock starts when [`Self::act`] says so, or here.
    pub(super) fn begin(&mut self, step: &'static str, doing: &str) {
        self.current = Some((step, Instant::now()));
        // indicatif draws nothing where standard error is no terminal.
        let spinner = ProgressBar::new_spinner().with_message(doing.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        self.spinner = Some(spinner);
    }

    /// Starts the step's clock anew: what came before was preparation.
    pub(super) fn act(&mut self) -> Instant {
        let now = Instant::now();
        if let Some((_, since)) = &mut self.current {
            *since = now;
        }
        now
    }

    /// Ends a step that was observed.
    pub(super) fn seen(&mut self, what: &str) -> io::Result<()> {
        self.end(true, what)
    }

    /// Ends the story.
    pub(super) fn done(&mut self) -> io::Result<()> {
        self.clear();
        let took = self.began.elapsed().as_secs_f64();
        let done = format!("\nall {} steps observed, in {took:.1} s", self.steps);
        self.output.say(&Tone::Good.paint(&done))
    }

    /// Ends the story where it went wrong.
    pub(super) fn failed(&mut self, why: &str, logs: &[(String, String)]) -> io::Result<()> {
        let step = self.current.map_or("start", |(step, _)| step);
        self.end(false, why)?;
        if self.output.is_json() {
            tell(&crate::cli::error::in_json(
                "demo_failed",
                &format!("{step}: {why}"),
            ));
        }
        for (node, tail) in logs {
            tell(&format!(
                "\n{}\n{tail}",
                Tone::Heading.paint(&format!("last lines of {node}'s log:"))
            ));
        }
        Ok(())
    }

    /// Takes the spinner away.
    pub(super) fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    fn end(&mut self, ok: bool, what: &str) -> io::Result<()> {
        self.clear();
        let Some((step, since)) = self.current.take() else {
            return Ok(());
        };
        self.steps += 1;
        let ms = since.elapsed().as_secs_f64() * 1_000.0;
        let told = Told {
            step,
            ok,
            ms: (ms * 100.0).round() / 100.0,
        };
        self.output.each(&told, |told| {
            let (mark, tone) = if ok {
                ("ok", Tone::Good)
            } else {
                ("FAILED", Tone::Bad)
            };
            format!(
                "{}  {:<22}{:>10.1} ms  {what}",
                tone.paint(&format!("{mark:<6}")),
                told.step,
                told.ms
            )
        })
    }
}
