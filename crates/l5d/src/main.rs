//! `l5d`: a service-mesh proxy whose heart is its telemetry, the drop-in successor of Linkerd 1.x.
//!
//! This file turns the command line into one of three things (check a configuration, run it, run the demo) and their
//! results into exit statuses. What a process is made of is in `linker.rs`.

mod alloc;
mod args;
mod config_json;
mod demo;
mod linker;
mod linker_config;
mod log;
mod pages;
mod process;
mod runtime;

use std::process::ExitCode;

use args::{Args, Exit, Source};
use demo::Demo;
use linker::{Linker, Options, StartError, say};
use log::Log;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(Exit { text, status: 0 }) => {
            say(&text);
            return ExitCode::SUCCESS;
        }
        Err(Exit { text, status }) => {
            eprint!("{text}");
            return ExitCode::from(status);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError(format!("cannot start: {e}")))?;
    let cannot = |e: std::io::Error| StartError(format!("cannot start the demo: {e}"));
    let demo = match args.source {
        Source::Demo => Some(runtime.block_on(Demo::bind()).map_err(cannot)?),
        Source::Stdin | Source::File(_) => None,
    };
    let built_in = demo.as_ref().map(Demo::config).unwrap_or_default();
    let text = args.source.read(&built_in).map_err(StartError)?;
    let file = args.source.name();
    let config = linker::load(&text).map_err(|errors| linker::mistakes(&errors, &file))?;
    if args.validate {
        for warning in &config.warnings {
            eprintln!("warning: {}", warning.in_file(&file));
        }
        let _context = runtime.enter();
        linker::check(config, &file)?;
        say(&format!("{file}: no mistakes found\n"));
        return Ok(());
    }

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options =
        Options { snapshot_interval: args.snapshot_interval, workers: args.workers.map_or(cores, usize::from) };
    // The log has the first thread beside this one.
    alloc::share_arena(options.workers);
    let log = Log::start(args.log_level, args.log_output.as_deref())
        .map_err(|e| StartError(format!("cannot open the log: {e}")))?;
    tracing::info!("l5d {}", env!("CARGO_PKG_VERSION"));
    for note in &args.notes {
        tracing::warn!("{note}");
    }
    for warning in &config.warnings {
        tracing::warn!("{}", warning.in_file(&file));
    }
    let result = runtime.block_on(async {
        let linker = Linker::build(config, &options, &log, &file)?;
        let mut running = None;
        linker
            .run(|| {
                if let Some(demo) = demo {
                    say(&demo.greeting());
                    running = Some(demo.start());
                }
            })
            .await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    drop(log);
    result
}
