//! `compose up`, `status` and `down`, and the holder between them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_compose::detached::{self, Addresses, Hold, State};
use manifold_compose::{Environment, Error, Result};
use serde::{Deserialize, Serialize};

use crate::interrupt;
use crate::options::{Brokers, Down, For, Status, Up};

/// The one line that a holder says to the command that started it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Up(State),
    Failed(String),
}

/// Starts a holder and returns when everything that it holds serves.
pub(crate) fn up(options: &Up) -> Result<()> {
    // What can be refused here is refused here, without a holder.
    options.brokers.request()?;
    detached::ensure_free(&options.name)?;
    let state = match start_holder(options) {
        Ok(Outcome::Up(state)) => state,
        Ok(Outcome::Failed(problem)) => return Err(Error::State(problem)),
        Err(source) => return Err(Error::Io { what: "the holder did not start".to_owned(), source }),
    };
    if options.json {
        println!("{}", to_json(&state.addresses.unwrap_or_default()));
    } else {
        print_state(&state);
    }
    Ok(())
}

fn start_holder(options: &Up) -> io::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("hold").args(arguments(options));
    // Through its environment rather than its command line, which everybody can read: a URL may carry a password.
    for (variable, given) in
        [("KAFKA_BOOTSTRAP", &options.brokers.kafka), ("REDIS_URL", &options.brokers.redis)]
    {
        match given {
            Some(address) => command.env(variable, address),
            None => command.env_remove(variable),
        };
    }
    // An open standard input tells the holder that this program still waits for it.
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let waiting = holder.stdin.take();
    let mut line = String::new();
    if let Some(output) = holder.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    drop(waiting);
    if line.is_empty() {
        let status = holder.wait()?;
        return Ok(Outcome::Failed(format!("the holder ended unexpectedly ({status})")));
    }
    Ok(serde_json::from_str(&line)?)
}

/// The options as the holder is to read them.
fn arguments(options: &Up) -> Vec<String> {
    let Up { brokers: Brokers { strategy, topology, purpose, .. }, name, .. } = options;
    let purpose = match purpose {
        For::Tests => "tests",
        For::Figures => "figures",
    };
    let mut pairs = vec![("--name", name.as_str()), ("--purpose", purpose)];
    pairs.extend(topology.iter().map(|topology| ("--topology", topology.as_str())));
    let flags = pairs.into_iter().map(|(flag, value)| format!("{flag}={value}"));
    flags.chain([strategy.clone()]).collect()
}

/// Owns an environment until a signal comes. Standard output carries one [`Outcome`].
pub(crate) fn hold(options: &Up) -> ExitCode {
    // Away from the terminal and its signals. It fails only where that is so already.
    rustix::process::setsid().ok();
    let ready = Arc::new(AtomicBool::new(false));
    end_with_the_waiter(Arc::clone(&ready));
    let interrupt = interrupt::watch();
    let (hold, environment) = match bring_up(options) {
        Ok(up) => up,
        Err(error) => {
            // If nobody listens any more, nobody wants to know.
            say(&Outcome::Failed(error.to_string())).ok();
            return ExitCode::FAILURE;
        }
    };
    ready.store(true, Ordering::SeqCst);
    interrupt.listen();
    if say(&Outcome::Up(hold.1)).and_then(|()| let_go_of_the_terminal()).is_err() {
        return ExitCode::FAILURE;
    }
    interrupt.wait();
    // The processes first, so that a free name means that they are gone.
    drop(environment);
    drop(hold.0);
    ExitCode::SUCCESS
}

fn bring_up(options: &Up) -> Result<((Hold, State), Environment)> {
    let request = options.brokers.request()?;
    let mut hold = Hold::new(&options.name, &options.brokers.strategy)?;
    let environment = Environment::start(&request)?;
    let state = hold.ready(&environment)?.clone();
    Ok(((hold, state), environment))
}

/// Ends this program if the one that waits for it ends before everything is ready.
fn end_with_the_waiter(ready: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        // Nothing is ever written to it: reading returns when the waiter is done, or gone.
        io::stdin().read_to_end(&mut Vec::new()).ok();
        if !ready.load(Ordering::SeqCst) {
            interrupt::end_now();
        }
    });
}

fn say(outcome: &Outcome) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{}", to_json(outcome))?;
    output.flush()
}

/// Closes what connects this program to whoever started it; a pipeline would wait for it forever.
fn let_go_of_the_terminal() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/")
}

/// Prints what is up.
pub(crate) fn status(options: &Status) -> Result<()> {
    let states = match &options.name {
        Some(name) => detached::find(name)?.into_iter().collect(),
        None => detached::list()?,
    };
    if states.is_empty() {
        let under = options.name.as_ref().map(|name| format!(" under the name `{name}`")).unwrap_or_default();
        return Err(Error::State(format!("nothing is up{under}")));
    }
    for state in &states {
        if options.json {
            println!("{}", to_json(state));
        } else {
            print_state(state);
        }
    }
    Ok(())
}

/// Ends what is up.
pub(crate) fn down(options: &Down) -> Result<()> {
    let state = detached::down(&options.name)?;
    println!("{}: {} processes ended", state.name, state.processes.len());
    Ok(())
}

fn print_state(state: &State) {
    println!("{}: {} (holder: pid {})", state.name, state.strategy, state.holder_pid);
    let Some(Addresses { kafka, redis }) = &state.addresses else {
        println!("  starting");
        return;
    };
    for (name, address) in [("KAFKA_BOOTSTRAP", kafka), ("REDIS_URL", redis)] {
        if let Some(address) = address {
            println!("  {name}={address}");
        }
    }
    for process in &state.processes {
        println!("  {}: pid {}, log {}", process.name, process.pid, process.log.display());
    }
}

fn to_json(value: &impl Serialize) -> String {
    // Strings, numbers and lists only: their serialization has no way to fail.
    serde_json::to_string(value).unwrap_or_default()
}
