//! The command line: `gyre server`, `dev`, `status`, `ring`, `hints`, `repair`, `version`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::table::SETTINGS;
use crate::config::{Config, ConfigError};
use crate::server::Ended;
use crate::status::StatusError;
use crate::status::repair::Scope;
use crate::{dev, logging, server, status};

/// The most nodes `gyre dev` starts.
const DEV_NODES_MAX: u16 = 64;
/// The variable that redis-cli takes a password from, too.
const PASSWORD_VARIABLE: &str = "REDISCLI_AUTH";

/// Runs the program with the arguments and the environment of this process.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        Some(("server", matches)) => run_server(matches),
        Some(("dev", matches)) => dev::run(&dev_options(matches)).map_err(|error| error.to_string()),
        Some(("status", matches)) => {
            status::status(&target(matches), matches.get_flag("json")).map_err(|error| error.to_string())
        }
        Some(("ring", matches)) => {
            status::ring(&target(matches), matches.get_flag("json")).map_err(|error| error.to_string())
        }
        Some(("repair", matches)) => repair(matches).map_err(|error| error.to_string()),
        Some(("hints", matches)) => {
            status::hints(&target(matches), matches.get_flag("json")).map_err(|error| error.to_string())
        }
        _ => {
            println!("gyre {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gyre: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_server(matches: &ArgMatches) -> Result<(), String> {
    let config = config(matches, std::env::vars_os()).map_err(|error| error.to_string())?;
    logging::start(config.log_level, config.log_format);
    match server::run(config).map_err(|error| error.to_string())? {
        Ended::Stopped => Ok(()),
        Ended::Rejoining => Err(begin_anew()),
    }
}

/// Puts a fresh process of the same program, with the same arguments, in the place of this one. Answers why it could not.
fn begin_anew() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
    format!("this node must be started again, to rejoin empty: {error}")
}

/// The settings that the flags, `variables` and the file they name give.
fn config(
    matches: &ArgMatches,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let names = SETTINGS.iter().map(|setting| setting.name).chain(["config"]);
    let flags = names.filter_map(|name| {
        let values: Vec<&str> = matches.get_many::<String>(name)?.map(String::as_str).collect();
        Some((name.to_string(), values.join(",")))
    });
    // What is not UTF-8 is no value of any setting; it is refused with its name like other bad values.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    Config::load(flags, variables.into_iter().map(|(name, value)| (text(name), text(value))))
}

fn dev_options(matches: &ArgMatches) -> dev::Options {
    dev::Options {
        nodes: matches.get_one("nodes").copied().unwrap_or(3),
        port: matches.get_one("port").copied().unwrap_or(6379),
        dir: matches.get_one("dir").cloned().unwrap_or_else(|| PathBuf::from(".gyre/dev")),
        server_flags: matches.get_many("flags").into_iter().flatten().cloned().collect(),
    }
}

fn target(matches: &ArgMatches) -> status::Target {
    let password = matches.get_one::<String>("password").cloned();
    status::Target {
        host: matches.get_one("host").cloned().unwrap_or_else(|| "127.0.0.1".into()),
        port: matches.get_one("port").copied().unwrap_or(6379),
        password: password.or_else(|| std::env::var(PASSWORD_VARIABLE).ok()),
    }
}

/// The whole command line.
fn command() -> Command {
    Command::new("gyre")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A leaderless, always-writable, persistent key-value cluster that speaks the Redis protocol")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(server_command())
        .subcommand(dev_command())
        .subcommand(client_command(
            "status",
            "Show the nodes of a cluster: state, address, share of the ring",
        ))
        .subcommand(client_command("ring", "Show which nodes keep which slots"))
        .subcommand(client_command("hints", "Show what a node keeps for nodes that missed it"))
        .subcommand(repair_command())
        .subcommand(Command::new("version").about("Show the version"))
}

fn server_command() -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("TOML file of settings under the same names [env: GYRE_CONFIG]");
    let defaults = Config::default();
    let settings = SETTINGS.iter().map(|setting| {
        let default = match ((setting.read)(&defaults), setting.name) {
            (_, "workers") => " [default: one for each core]".to_string(),
            (_, "peer-port") => " [default: port + 10000]".to_string(),
            (text, _) if text.is_empty() => String::new(),
            (text, _) => format!(" [default: {}]", in_units(&text)),
        };
        let action = if setting.name == "seeds" { ArgAction::Append } else { ArgAction::Set };
        Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.value_name)
            .help(format!("{}{default}", setting.help))
            .allow_negative_numbers(true)
            .action(action)
    });
    Command::new("server")
        .about("Run one node")
        .arg(file)
        .args(settings)
        .after_help(
            "Every setting may also stand in the environment (--max-clock-drift as GYRE_MAX_CLOCK_DRIFT) and in the \
             TOML file. A flag wins over the environment, the environment over the file.\n\n\
             One node alone works like redis-server; for a cluster start every node with the same --seeds, and with \
             the same --cluster-secret when they are on different machines.",
        )
}

/// A size in the largest unit that shows it exactly; other texts as they are.
fn in_units(text: &str) -> String {
    let whole =
        |unit: u64| text.parse::<u64>().ok().filter(|n| *n >= unit && n % unit == 0).map(|n| n / unit);
    match (whole(1 << 30), whole(1 << 20)) {
        (Some(size), _) => format!("{size}gb"),
        (None, Some(size)) => format!("{size}mb"),
        (None, None) => text.to_string(),
    }
}

fn dev_command() -> Command {
    Command::new("dev")
        .about("Run a whole cluster on this machine, for trying things out")
        .arg(
            Arg::new("nodes")
                .long("nodes")
                .value_name("N")
                .default_value("3")
                .value_parser(value_parser!(u16).range(1..=i64::from(DEV_NODES_MAX)))
                .help("How many nodes"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .default_value("6379")
                .value_parser(value_parser!(u16).range(1..))
                .help("Port of the first node; the others follow. Peer ports are 10000 higher"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .default_value(".gyre/dev")
                .value_parser(value_parser!(PathBuf))
                .help("Where data and logs live; kept between runs"),
        )
        .arg(
            Arg::new("flags")
                .value_name("SERVER FLAGS")
                .last(true)
                .num_args(0..)
                .help("Further flags for every node, after --"),
        )
}

fn repair_command() -> Command {
    let slot = Arg::new("slot")
        .long("slot")
        .value_name("N")
        .value_parser(value_parser!(u16).range(..i64::from(gyre_storage::SLOTS)))
        .conflicts_with("all")
        .help("Only this slot, by all of its replicas");
    let all = Arg::new("all").long("all").action(ArgAction::SetTrue).help("Everything, by all nodes");
    client_command("repair", "Make a node's replicas equal now, rather than when that is due")
        .arg(slot)
        .arg(all)
        .args_conflicts_with_subcommands(true)
        .subcommand(client_command("status", "Show what anti-entropy does and has done"))
}

fn repair(matches: &ArgMatches) -> Result<(), StatusError> {
    if let Some(("status", matches)) = matches.subcommand() {
        return status::repair::status(&target(matches), matches.get_flag("json"));
    }
    let scope = match matches.get_one("slot") {
        Some(&slot) => Scope::Slot(slot),
        None if matches.get_flag("all") => Scope::All,
        None => Scope::Node,
    };
    status::repair::run(&target(matches), scope, matches.get_flag("json"))
}

fn client_command(name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .disable_help_flag(false)
        .arg(
            Arg::new("host")
                .long("host")
                .value_name("HOST")
                .default_value("127.0.0.1")
                .help("Host of any node"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .short('p')
                .value_name("PORT")
                .default_value("6379")
                .value_parser(value_parser!(u16).range(1..))
                .help("Its client port"),
        )
        .arg(
            Arg::new("password")
                .long("password")
                .value_name("PASSWORD")
                .help(format!("Its password; better in {PASSWORD_VARIABLE}, which other users cannot see")),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(arguments: &[&str]) -> Result<Config, String> {
        let line = ["gyre", "server"].iter().chain(arguments);
        let matches = command().try_get_matches_from(line).map_err(|error| error.to_string())?;
        let Some(("server", matches)) = matches.subcommand() else { panic!("not the server command") };
        config(matches, []).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let config = server(&[
            "--port",
            "7000",
            "--seeds",
            "a:1,b:2",
            "--seeds",
            "c:3",
            "--slowlog-log-slower-than",
            "-1",
        ])
        .unwrap();
        assert_eq!((config.port, config.peer_port, config.seeds.len()), (7000, 17000, 3));
        assert_eq!(config.slowlog_log_slower_than_micros, -1);
    }

    #[test]
    fn unknown_flags_and_bad_values_are_refused_by_name() {
        assert!(server(&["--prot", "1"]).unwrap_err().contains("--prot"));
        let error = server(&["--port", "many"]).unwrap_err();
        assert!(error.contains("--port on the command line: 'many'"), "{error}");
    }

    #[test]
    fn the_help_shows_every_setting_with_its_default() {
        let help = server_command().render_long_help().to_string();
        for setting in SETTINGS {
            assert!(help.contains(&format!("--{} ", setting.name)), "{}", setting.name);
        }
        assert!(help.contains("[default: 64mb]") && help.contains("[default: one for each core]"));
    }

    #[test]
    fn dev_takes_flags_for_its_nodes() {
        let line = ["gyre", "dev", "--nodes", "5", "--", "--log-level", "debug"];
        let matches = command().try_get_matches_from(line).unwrap();
        let options = dev_options(matches.subcommand_matches("dev").unwrap());
        assert_eq!((options.nodes, options.port), (5, 6379));
        assert_eq!(options.server_flags, ["--log-level", "debug"]);
        assert!(command().try_get_matches_from(["gyre", "dev", "--nodes", "0"]).is_err());
    }
}
