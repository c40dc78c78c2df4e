//! `weft sim`: the simulator for whoever plans a cluster.

mod plot;
mod spark;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    args::SimArgs,
    error::CliError,
    output::{Listing, Output, Tone},
};
use crate::{
    api::http::Exit,
    config::Profile,
    sim::{Delays, Load, Outcome, Settings},
};

/// How many characters the picture in the terminal is wide.
const SPARK_WIDTH: usize = 48;

/// What `weft sim` answers.
#[derive(Debug, Serialize)]
struct Answer {
    nodes: u16,
    entries: u32,
    events: u64,
    rate: f64,
    loss_pct: f64,
    seed: u64,
    /// Virtual time from the first event to the last arrival.
    seconds: f64,
    /// Until a node shows an event of another.
    each_ms: Quantiles,
    /// Until all nodes show it.
    all_ms: Quantiles,
    /// Without headers of UDP, TCP and IP, and beyond what is sent all the time.
    bytes_per_node_per_event: f64,
    bytes_per_node_per_second: f64,
    idle_bytes_per_node_per_second: f64,
    /// How often a node received each dot that it lacked.
    copies_per_node: Option<f64>,
    datagrams_lost: u64,
    datagrams_overrun: u64,
    missing: usize,
    diverged: usize,
}

/// Which share took how many milliseconds at most.
#[derive(Debug, Serialize)]
struct Quantiles {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

impl Quantiles {
    fn of(delays: &Delays) -> Self {
        let millis = |share| {
            let delay: Duration = delays.quantile(share)?;
            Some((delay.as_secs_f64() * 1e6).round() / 1e3)
        };
        Self {
            p50: millis(0.5),
            p90: millis(0.9),
            p99: millis(0.99),
            p999: millis(0.999),
            max: millis(1.0),
        }
    }

    fn cells(&self) -> impl Iterator<Item = String> {
        let all = [self.p50, self.p90, self.p99, self.p999, self.max];
        all.into_iter()
            .map(|millis| millis.map_or("-".to_owned(), |millis| format!("{millis:.2} ms")))
    }
}

pub(super) async fn run(args: SimArgs, output: Output) -> Result<(), CliError> {
    let load = load(&args);
    // It takes one core for as long as it lasts.
    let simulated = tokio::task::spawn_blocking(move || simulate(&load)).await;
    let outcome = simulated.map_err(anyhow::Error::from)?;
    if let Some(path) = &args.plot {
        plot::draw(&title(&args), &outcome, path)?;
    }
    let answer = answer(&args, &outcome);
    output.answer(&answer, |answer| show(&args, answer, &outcome))?;
    if outcome.missing + outcome.diverged > 0 {
        return Err(CliError::Told(Exit::Failed));
    }
    Ok(())
}

fn load(args: &SimArgs) -> Load {
    Load {
        nodes: usize::from(args.nodes),
        entries: usize::try_from(args.entries).unwrap_or(usize::MAX),
        events: args.events,
        rate: args.rate,
        loss: args.loss / 100.0,
        delay: args.delay.clone(),
        seed: args.seed,
        settings: match args.profile {
            Profile::Lan => Settings::lan(),
            Profile::Wan => Settings::wan(),
            Profile::Local => Settings::local(),
        },
    }
}

fn simulate(load: &Load) -> Outcome {
    // indicatif draws nothing where standard error is no terminal.
    let progress = ProgressBar::new(load.events);
    let template = "{bar:32} {pos} of {len} events, {elapsed} gone, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.set_style(style);
    }
    let outcome = load.run(|events| progress.set_position(events));
    progress.finish_and_clear();
    outcome
}

fn answer(args: &SimArgs, outcome: &Outcome) -> Answer {
    let nodes = f64::from(args.nodes);
    let seconds = outcome.lasted.as_secs_f64();
    let bytes = outcome.tally.bytes as f64;
    let beyond_idle = (bytes - outcome.idle_bytes * seconds).max(0.0);
    let rounded = |number: f64| (number * 100.0).round() / 100.0;
    Answer {
        nodes: args.nodes,
        entries: args.entries,
        events: args.events,
        rate: args.rate,
        loss_pct: args.loss,
        seed: args.seed,
        seconds: rounded(seconds),
        each_ms: Quantiles::of(&outcome.each),
        all_ms: Quantiles::of(&outcome.all),
        bytes_per_node_per_event: rounded(beyond_idle / nodes / args.events as f64),
        bytes_per_node_per_second: rounded(bytes / nodes / seconds),
        idle_bytes_per_node_per_second: rounded(outcome.idle_bytes / nodes),
        copies_per_node: outcome.tally.copies(args.events).map(rounded),
        datagrams_lost: outcome.counts.lost,
        datagrams_overrun: outcome.counts.overrun,
        missing: outcome.missing,
        diverged: outcome.diverged,
    }
}

fn title(args: &SimArgs) -> String {
    format!(
        "{} nodes, {} events at {} a second, {} % loss",
        args.nodes, args.events, args.rate, args.loss
    )
}

fn show(args: &SimArgs, answer: &Answer, outcome: &Outcome) -> String {
    let mut delays = Listing::new(&["UNTIL", "P50", "P90", "P99", "P99.9", "MAX"]);
    for (until, quantiles) in [
        ("a node shows it", &answer.each_ms),
        ("all nodes show it", &answer.all_ms),
    ] {
        let cells = std::iter::once(until.to_owned()).chain(quantiles.cells());
        delays.row(Tone::Plain, cells.collect());
    }
    let copies = answer.copies_per_node.unwrap_or(0.0);
    let mut text = format!("{}, seed {}\n\n", title(args), args.seed);
    text += &delays.render();
    text += &format!("\n{}\n", spark::draw(&outcome.all, SPARK_WIDTH));
    text += &format!(
        "\na node sends    {:.0} B an event, {:.0} B/s under this load, {:.0} B/s while nothing happens\n",
        answer.bytes_per_node_per_event,
        answer.bytes_per_node_per_second,
        answer.idle_bytes_per_node_per_second
    );
    text += &format!("and receives    each change {copies:.2} times\n");
    text += &format!(
        "datagrams       {} lost, {} found the receive buffer full\n",
        answer.datagrams_lost, answer.datagrams_overrun
    );
    let verdict = if answer.missing + answer.diverged == 0 {
        Tone::Good.paint("all events reached all nodes, which agree")
    } else {
        let what = format!(
            "{} events did not reach all nodes, {} nodes do not agree with the first",
            answer.missing, answer.diverged
        );
        Tone::Bad.paint(&what)
    };
    text + &verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> SimArgs {
        SimArgs {
            nodes: 5,
            loss: 0.0,
            events: 20,
            rate: 100.0,
            entries: 10,
            delay: Duration::from_micros(200)..Duration::from_millis(1),
            profile: Profile::Lan,
            seed: 7,
            plot: None,
        }
    }

    #[test]
    fn the_answer_says_what_was_asked_and_what_was_seen() {
        let outcome = simulate(&load(&args()));

        let answer = answer(&args(), &outcome);

        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(json["nodes"], 5);
        assert_eq!((answer.missing, answer.diverged), (0, 0));
        assert!(answer.all_ms.p50 >= answer.each_ms.p50);
        let text = show(&args(), &answer, &outcome);
        assert!(text.contains("all events reached all nodes"), "{text}");
    }
}
