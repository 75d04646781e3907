//! The command line: `l5d [FLAGS] CONFIG`.
//!
//! Linkerd's flags are Twitter's: one dash, dotted names, `-name=value`. [`twitter_form`] turns them into clap's form before
//! clap reads them, so that an old start script works as it is. What a flag did to the JVM or to Finagle's insides has no
//! meaning here; those are accepted, and told of in [`Args::notes`] for the log.
//!
//! Contract with Linkerd: exactly one positional argument, else usage on stderr and exit status 1; the same for an unknown
//! flag. Other than Linkerd, asking for help is a success.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use l5d_config::LogLevel;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// Where the configuration is.
    pub(crate) source: Source,
    /// Only check the configuration.
    pub(crate) validate: bool,
    /// What is logged.
    pub(crate) log_level: LogLevel,
    /// Where to; `None` is stderr.
    pub(crate) log_output: Option<PathBuf>,
    /// How often the windows of stats roll.
    pub(crate) snapshot_interval: Duration,
    /// How many worker threads; `None` leaves it to the runtime.
    pub(crate) workers: Option<NonZeroUsize>,
    /// What the log should say about the flags that were given.
    pub(crate) notes: Vec<String>,
}

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `-`: standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// `demo`: the built-in demonstration.
    Demo,
}

impl Source {
    /// What it is called in an error: `linkerd.yaml:12:9: …`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Demo => "demo".to_owned(),
        }
    }

    /// Reads the text of a file or of standard input; `demo` is the text of the demonstration.
    pub(crate) fn read(&self, demo: &str) -> Result<String, String> {
        let text = match self {
            Self::Demo => return Ok(demo.to_owned()),
            Self::Stdin => {
                let mut bytes = Vec::new();
                std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
            }
            Self::File(path) if !path.is_file() => return Err(format!("config is not a file: {}", path.display())),
            Self::File(path) => fs::read(path),
        };
        let bytes = text.map_err(|error| format!("can't read {}: {error}", self.name()))?;
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", self.name()))
    }
}

/// The process ends here: what to print, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// To stdout when the status is 0, else to stderr.
    pub(crate) text: String,
    /// 0 after help and version, 1 after a mistake.
    pub(crate) status: u8,
}

impl Args {
    /// Reads the arguments, the program's name first.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        let TwitterForm { args, notes, workers } =
            twitter_form(args).map_err(|text| Exit { text: format!("{text}\n{USAGE}\n"), status: 1 })?;
        let cli = Cli::try_parse_from(args).map_err(|error| Exit {
            text: error.render().to_string(),
            status: if error.use_stderr() { 1 } else { 0 },
        })?;
        let [source] =
            <[OsString; 1]>::try_from(cli.config).map_err(|_| Exit { text: format!("{USAGE}\n"), status: 1 })?;
        let source = match source.to_str() {
            Some("-") => Source::Stdin,
            Some("demo") => Source::Demo,
            _ => Source::File(source.into()),
        };
        Ok(Self {
            source,
            validate: cli.validate,
            log_level: cli.log_level,
            log_output: cli.log_output.filter(|path| path != Path::new("/dev/stderr")),
            snapshot_interval: cli.snapshot_interval,
            workers,
            notes,
        })
    }
}

const USAGE: &str = "usage: l5d [FLAGS] path/to/config\n\nFor all flags, try 'l5d --help'.";

/// A service-mesh proxy, the drop-in successor of Linkerd 1.x
#[derive(Debug, Parser)]
#[command(
    name = "l5d",
    version,
    override_usage = "l5d [FLAGS] CONFIG",
    args_override_self = true,
    after_help = "All flags may be written with one dash, as Linkerd has them: -log.level=DEBUG.\n\
                  Flags of Finagle (-com.twitter.finagle.…) are accepted; most have no effect."
)]
struct Cli {
    /// The configuration, YAML or JSON: a file, - for standard input, or the word demo
    #[arg(value_name = "CONFIG")]
    config: Vec<OsString>,

    /// Check the configuration and end
    #[arg(
        long,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_possible_values = true,
        hide_default_value = true,
        value_name = "BOOL"
    )]
    validate: bool,

    /// What is logged: ALL, TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL or OFF
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "INFO")]
    log_level: LogLevel,

    /// Where the log goes, instead of stderr
    #[arg(long = "log.output", value_name = "FILE")]
    log_output: Option<PathBuf>,

    /// How often the summaries of stats are made anew
    #[arg(
        long = "io.buoyant.telemetry.admin.histogramSnapshotInterval",
        value_name = "DURATION",
        default_value = "1.minutes",
        value_parser = interval
    )]
    snapshot_interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    match l5d_config::duration(text)? {
        Duration::ZERO => Err("the interval must be greater than 0".to_owned()),
        interval => Ok(interval),
    }
}

/// What is left for clap.
struct TwitterForm {
    args: Vec<OsString>,
    notes: Vec<String>,
    workers: Option<NonZeroUsize>,
}

/// Turns `-name=value` into `--name=value`, and takes out the flags of Finagle, whose value may also follow as an argument
/// of its own.
fn twitter_form(args: impl IntoIterator<Item = OsString>) -> Result<TwitterForm, String> {
    let mut form = TwitterForm { args: Vec::new(), notes: Vec::new(), workers: None };
    let mut args = args.into_iter();
    form.args.extend(args.next());
    while let Some(arg) = args.next() {
        let flag =
            arg.to_str().and_then(|text| text.strip_prefix('-')).map(|text| text.strip_prefix('-').unwrap_or(text));
        let Some(flag) = flag.filter(|flag| !flag.is_empty()) else {
            // A name, `-`, or the `--` behind which there are only names.
            let only_names = arg == "--";
            form.args.push(arg);
            if only_names {
                form.args.extend(args);
                break;
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let Some((_, wants)) = FINAGLE_FLAGS.iter().find(|(known, _)| *known == name) else {
            let short = flag.chars().count() == 1;
            form.args.push(if short { arg } else { OsString::from(format!("--{flag}")) });
            continue;
        };
        let value = match (wants, value) {
            (Wants::Bool, value) => value.unwrap_or_else(|| "true".to_owned()),
            (_, Some(value)) => value,
            (_, None) => args
                .next()
                .and_then(|value| value.into_string().ok())
                .ok_or_else(|| format!("the flag -{name} needs a value"))?,
        };
        if *wants == Wants::Workers {
            let workers = value.parse().map_err(|_| format!("-{name}: \"{value}\" is not a number of threads"))?;
            form.workers = Some(workers);
        } else {
            form.notes.push(format!("the flag -{name}={value} has no effect in l5d"));
        }
    }
    Ok(form)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// May stand without a value, and never takes the next argument as one.
    Bool,
    /// Takes a value.
    Value,
    /// Takes the number of worker threads, the one flag of these that means something here.
    Workers,
}

/// The global flags of the libraries that Linkerd 1.7.5 was made of, as far as start scripts are known to use them.
const FINAGLE_FLAGS: &[(&str, Wants)] = &[
    ("com.twitter.finagle.client.useNackAdmissionFilter", Wants::Bool),
    ("com.twitter.finagle.http.serverErrorsAsFailures", Wants::Bool),
    ("com.twitter.finagle.loadbalancer.defaultBalancer", Wants::Value),
    ("com.twitter.finagle.loadbalancer.exp.apertureEagerConnections", Wants::Value),
    ("com.twitter.finagle.loadbalancer.perHostStats", Wants::Bool),
    ("com.twitter.finagle.naming.namerMaxDepth", Wants::Value),
    ("com.twitter.finagle.netty4.numWorkers", Wants::Workers),
    ("com.twitter.finagle.netty4.timerTickDuration", Wants::Value),
    ("com.twitter.finagle.netty4.timerTicksPerWheel", Wants::Value),
    ("com.twitter.finagle.offload.numWorkers", Wants::Value),
    ("com.twitter.finagle.offload.queueSize", Wants::Value),
    ("com.twitter.finagle.toggle.flag.overrides", Wants::Value),
    ("com.twitter.finagle.tracing.debugTrace", Wants::Bool),
    ("com.twitter.finagle.tracing.enabled", Wants::Bool),
    ("com.twitter.jvm.numProcs", Wants::Value),
    ("log.async", Wants::Bool),
    ("log.async.maxsize", Wants::Value),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, Exit> {
        Args::parse(["l5d"].iter().chain(args).map(OsString::from))
    }

    fn file(path: &str) -> Source {
        Source::File(path.into())
    }

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn one_positional_argument_is_the_config() {
        let args = parse(&["linkerd.yaml"]).unwrap();
        let wanted = Args {
            source: file("linkerd.yaml"),
            validate: false,
            log_level: LogLevel::Info,
            log_output: None,
            snapshot_interval: Duration::from_secs(60),
            workers: None,
            notes: Vec::new(),
        };
        assert_eq!(args, wanted);
        assert_eq!(parse(&["-"]).unwrap().source, Source::Stdin);
        assert_eq!(parse(&["demo"]).unwrap().source, Source::Demo);
        assert_eq!(parse(&["./demo"]).unwrap().source, file("./demo"));
        assert_eq!(parse(&["--", "-x"]).unwrap().source, file("-x"));
    }

    #[test]
    fn none_or_two_of_them_print_the_usage() {
        for args in [&[][..], &["a", "b"], &["-validate"]] {
            let exit = parse(args).unwrap_err();
            assert_eq!(exit.status, 1);
            assert!(exit.text.contains("usage: l5d [FLAGS] path/to/config"), "{}", exit.text);
        }
    }

    #[test]
    fn validate_is_a_flag_with_one_or_two_dashes() {
        for flag in ["-validate", "--validate", "-validate=true", "--validate=true"] {
            let args = parse(&[flag, "a"]).unwrap();
            assert_eq!((args.validate, args.source), (true, file("a")), "{flag}");
        }
        assert!(!parse(&["-validate=false", "a"]).unwrap().validate);
    }

    #[test]
    fn linkerds_flags_are_understood() {
        let args = parse(&[
            "-log.level=debug",
            "-log.output=/tmp/log",
            "-io.buoyant.telemetry.admin.histogramSnapshotInterval=1.minute+30.seconds",
            "a",
        ])
        .unwrap();
        assert_eq!(args.log_level, LogLevel::Debug);
        assert_eq!(args.log_output, Some("/tmp/log".into()));
        assert_eq!(args.snapshot_interval, Duration::from_secs(90));
        let args = parse(&["-log.level", "OFF", "--log.output", "/dev/stderr", "a"]).unwrap();
        assert_eq!((args.log_level, args.log_output), (LogLevel::Off, None));
    }

    #[test]
    fn the_last_of_repeated_flags_counts() {
        assert_eq!(parse(&["-log.level=OFF", "-log.level=ERROR", "a"]).unwrap().log_level, LogLevel::Error);
    }

    #[test]
    fn bad_values_are_named() {
        let exit = parse(&["-log.level=loud", "a"]).unwrap_err();
        assert_eq!(exit.status, 1);
        assert!(exit.text.contains("Illegal log level: loud"), "{}", exit.text);
        for bad in ["1", "0.seconds"] {
            let flag = format!("-io.buoyant.telemetry.admin.histogramSnapshotInterval={bad}");
            assert_eq!(parse(&[&flag, "a"]).unwrap_err().status, 1, "{bad}");
        }
    }

    #[test]
    fn flags_of_finagle_are_noted_and_dropped() {
        let args = parse(&[
            "-com.twitter.finagle.tracing.debugTrace",
            "-com.twitter.finagle.naming.namerMaxDepth",
            "7",
            "-com.twitter.finagle.netty4.numWorkers=3",
            "-log.async=false",
            "a",
        ])
        .unwrap();
        assert_eq!(args.source, file("a"));
        assert_eq!(args.workers, NonZeroUsize::new(3));
        assert_eq!(
            args.notes,
            [
                "the flag -com.twitter.finagle.tracing.debugTrace=true has no effect in l5d",
                "the flag -com.twitter.finagle.naming.namerMaxDepth=7 has no effect in l5d",
                "the flag -log.async=false has no effect in l5d",
            ]
        );
        assert!(parse(&["-com.twitter.finagle.netty4.numWorkers=0", "a"]).unwrap_err().text.contains("\"0\" is not"));
        assert!(parse(&["-com.twitter.finagle.naming.namerMaxDepth"]).unwrap_err().text.contains("needs a value"));
    }

    #[test]
    fn an_unknown_flag_prints_the_usage() {
        for flag in ["-nope", "--nope=1", "-com.twitter.finagle.nope=1", "-x"] {
            let exit = parse(&[flag, "a"]).unwrap_err();
            assert_eq!(exit.status, 1);
            assert!(exit.text.contains("unexpected argument"), "{}", exit.text);
            assert!(exit.text.contains("Usage: l5d [FLAGS] CONFIG"), "{}", exit.text);
        }
    }

    #[test]
    fn help_and_version_are_successes() {
        for flag in ["-help", "--help", "-h"] {
            let exit = parse(&[flag]).unwrap_err();
            assert_eq!(exit.status, 0, "{}", exit.text);
            assert!(exit.text.contains("histogramSnapshotInterval"), "{}", exit.text);
        }
        assert_eq!(
            parse(&["--version"]).unwrap_err(),
            Exit { text: format!("l5d {}\n", env!("CARGO_PKG_VERSION")), status: 0 }
        );
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::File(dir.path().to_owned());
        assert_eq!(source.read(""), Err(format!("config is not a file: {}", dir.path().display())));
        let path = dir.path().join("a.yaml");
        fs::write(&path, "routers: []").unwrap();
        assert_eq!(Source::File(path.clone()).read(""), Ok("routers: []".to_owned()));
        fs::write(&path, [0xff]).unwrap();
        assert!(Source::File(path).read("").unwrap_err().ends_with("is not UTF-8 text"));
        assert_eq!(Source::Demo.read("demo: 1"), Ok("demo: 1".to_owned()));
    }
}
