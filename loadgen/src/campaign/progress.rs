//! What a person sees while a campaign runs, and what a program reads.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;

use super::plan::Cell;
use crate::record::{Live, Phase, Role, RunRecord};
use crate::report::Style;
use crate::report::text::{count, ms, per_s};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// One line that is rewritten, for terminals.
    Line,
    /// A line per event, for logs.
    Log,
    /// One JSON object per event on standard output, for programs.
    Json,
    /// Nothing but errors.
    Quiet,
}

impl Show {
    /// Chooses by flags and by whether standard error is a terminal.
    pub fn choose(json: bool, quiet: bool, no_tui: bool) -> Self {
        match () {
            () if json => Self::Json,
            () if quiet => Self::Quiet,
            () if no_tui || !io::stderr().is_terminal() => Self::Log,
            () => Self::Line,
        }
    }
}

/// Whether colour may be used on a stream: never with `NO_COLOR` set, never off a terminal.
pub fn style(stream_is_terminal: bool) -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style { colour: stream_is_terminal && !refused && !dumb }
}

/// Shows the progress of one campaign. Shared by the campaign's thread and the engine's.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    style: Style,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: usize,
    done: usize,
    planned_s: f64,
    done_planned_s: f64,
    spent_s: f64,
    now: String,
}

impl Progress {
    /// Progress over a number of runs that are planned to take so long in all.
    pub fn new(show: Show) -> Self {
        let style = style(io::stderr().is_terminal());
        Self { show, style, started: Instant::now(), state: Mutex::default() }
    }

    /// More runs are ahead.
    pub fn expect(&self, runs: usize, planned_s: f64) {
        let mut state = self.state();
        state.runs += runs;
        state.planned_s += planned_s;
    }

    /// Something that takes a while and is no run: starting brokers, warming.
    pub fn note(&self, text: &str) {
        match self.show {
            Show::Line => self.rewrite(text),
            Show::Log => self.say(text),
            Show::Json => emit(&json!({ "event": "note", "text": text })),
            Show::Quiet => {}
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        if matches!(self.show, Show::Line | Show::Log) {
            let clear = if self.show == Show::Line { "\r\u{1b}[2K" } else { "" };
            // Nobody to tell: a closed standard error is no reason to stop measuring.
            let _ = writeln!(io::stderr(), "{clear}{text}");
        }
    }

    /// A run begins.
    pub fn begin(&self, cell: &Cell) {
        let mut state = self.state();
        let block = if cell.block > 0 { format!("block {} · ", cell.block) } else { String::new() };
        let again = if cell.attempt > 1 { " (again)" } else { "" };
        let rate = match cell.role {
            Role::Capacity => format!(" · does {} hold?", per_s(cell.scenario.traffic.rate_per_s)),
            Role::Knee => format!(" · knee at {}", per_s(cell.scenario.traffic.rate_per_s)),
            _ => String::new(),
        };
        let block = if rate.is_empty() { block } else { String::new() };
        state.now = format!("{block}{} · {}{rate}{again}", cell.scenario.name, cell.entrant.label());
        let text = format!("[{}/{}] {}", state.done + 1, state.runs, state.now);
        drop(state);
        match self.show {
            Show::Line => self.rewrite(&text),
            Show::Json => emit(&json!({
                "event": "begin", "block": cell.block, "scenario": cell.scenario.name, "strategy": cell.entrant.label(), "role": cell.role,
            })),
            Show::Log | Show::Quiet => {}
        }
    }

    /// A glance at the run.
    pub fn live(&self, live: &Live) {
        match self.show {
            Show::Json => emit(&json!({ "event": "live", "live": live })),
            Show::Line => {
                let state = self.state();
                let phase = match live.phase {
                    Phase::Connect => format!("connecting {}", count(live.connections)),
                    Phase::WarmUp => "warm-up".to_owned(),
                    Phase::Window => "counting".to_owned(),
                    Phase::Drain => "draining".to_owned(),
                };
                let p99 = live.delivery_us_p99.map_or("–".to_owned(), |us| ms(us as f64 / 1e3));
                let lost =
                    if live.lost > 0 { format!(" · missing {}", count(live.lost)) } else { String::new() };
                let text = format!(
                    "[{}/{}] {} · {phase} {:.0}/{:.0} s · {}/s out · {}/s in · p99 {p99}{lost} · {}",
                    state.done + 1,
                    state.runs,
                    state.now,
                    live.elapsed_s.max(0.0),
                    live.total_s,
                    count(live.sent_per_s.round() as u64),
                    count(live.delivered_per_s.round() as u64),
                    self.clock(&state)
                );
                drop(state);
                self.rewrite(&text);
            }
            Show::Log | Show::Quiet => {}
        }
    }

    /// A run is over.
    pub fn end(&self, cell: &Cell, record: &RunRecord, spent_s: f64) {
        let mut state = self.state();
        state.done += 1;
        state.done_planned_s += cell.planned_s();
        state.spent_s += spent_s;
        let place = format!("[{}/{}]", state.done, state.runs);
        let (now, clock) = (state.now.clone(), self.clock(&state));
        drop(state);
        match self.show {
            Show::Json => emit(&json!({
                "event": "end", "block": record.block, "scenario": record.scenario.name, "strategy": record.contender.label,
                "role": record.role, "valid": record.validity.valid, "kept": record.verdict.kept, "lost": record.measured.audit.lost(),
                "delivery_us_p99": record.measured.latencies.delivery.quantile_us(0.99), "recoveries": record.measured.recoveries,
            })),
            Show::Line | Show::Log => {
                self.say(&format!("{place} {now:<58} {} {}", self.outcome(record), self.soft(&clock)))
            }
            Show::Quiet => {}
        }
    }

    /// A run could not be made.
    pub fn failed(&self, cell: &Cell, error: &str) {
        let mut state = self.state();
        state.done += 1;
        state.done_planned_s += cell.planned_s();
        let text = format!("[{}/{}] {} could not run: {error}", state.done, state.runs, state.now);
        drop(state);
        match self.show {
            Show::Json => emit(
                &json!({ "event": "failed", "scenario": cell.scenario.name, "strategy": cell.entrant.label(), "error": error }),
            ),
            Show::Quiet => {
                let _ = writeln!(io::stderr(), "{text}");
            }
            Show::Line | Show::Log => self.say(&self.style.paint("31", &text)),
        }
    }

    /// Takes runs that were done earlier off the list.
    pub fn skip(&self, cells: usize, planned_s: f64) {
        let mut state = self.state();
        state.runs -= cells.min(state.runs);
        state.planned_s -= planned_s;
    }

    fn outcome(&self, record: &RunRecord) -> String {
        let audit = &record.measured.audit;
        let p99 = record
            .measured
            .latencies
            .delivery
            .quantile_us(0.99)
            .map_or("–".to_owned(), |us| ms(us as f64 / 1e3));
        let verdict = match () {
            () if !record.validity.valid => {
                let first = record.validity.objections.first();
                self.style
                    .paint("33", &format!("invalid: {}", first.map_or("", |objection| &objection.found)))
            }
            () if record.verdict.clean => self.style.paint("32", "clean"),
            () if record.verdict.kept => format!("as promised, {} lost", count(audit.lost())),
            () if record.contender.counter_example => {
                self.style.paint("31", &format!("fails, as declared: {} lost", count(audit.lost())))
            }
            () => {
                let broken = record.verdict.promises.iter().find(|promise| !promise.kept);
                let text = broken
                    .map_or(String::new(), |promise| format!("{}: {}", promise.about, promise.observed));
                self.style.paint("31", &format!("PROMISE BROKEN — {text}"))
            }
        };
        let recoveries = record.measured.recoveries.filter(|recoveries| recoveries.answered() > 0);
        let recovered = recoveries.map_or(String::new(), |recoveries| {
            format!(" · {} of {} recovered", count(recoveries.complete), count(recoveries.answered()))
        });
        format!("p99 {p99:>9}  {verdict}{recovered}")
    }

    fn soft(&self, text: &str) -> String {
        self.style.paint("2", text)
    }

    /// Elapsed and remaining, from what planned seconds have really cost so far.
    fn clock(&self, state: &State) -> String {
        let rate = if state.done_planned_s > 0.0 && state.spent_s > 0.0 {
            state.spent_s / state.done_planned_s
        } else {
            1.0
        };
        let left_s = (state.planned_s - state.done_planned_s).max(0.0) * rate;
        format!("{} gone, {} left", clock(self.started.elapsed().as_secs_f64()), clock(left_s))
    }

    fn rewrite(&self, text: &str) {
        let width = terminal_width();
        let text: String = text.chars().take(width.saturating_sub(1)).collect();
        let mut stream = io::stderr();
        let _ = write!(stream, "\r\u{1b}[2K{text}");
        let _ = stream.flush();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn emit(event: &serde_json::Value) {
    // A reader that went away is no reason to stop measuring.
    let _ = writeln!(io::stdout(), "{event}");
}

fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 20).unwrap_or(120)
}

/// `m:ss`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0) as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        assert_eq!(clock(0.0), "0:00");
        assert_eq!(clock(125.4), "2:05");
    }

    #[test]
    fn what_is_left_follows_what_planned_seconds_really_cost() {
        let progress = Progress::new(Show::Quiet);
        progress.expect(10, 100.0);
        let mut state = progress.state();
        state.done_planned_s = 50.0;
        state.spent_s = 100.0;
        assert!(progress.clock(&state).ends_with("1:40 left"));
    }
}
