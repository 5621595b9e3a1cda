//! What the program does when it is asked for something else than to relay.

use crate::certificate::Certificate;
use crate::cli::{Args, Command, ConfigCommand};
use crate::config::{Settings, default_file};
use crate::doctor::{Questions, examine};
use crate::users;
use service_kit::{ConfigError, report};
use std::process::ExitCode;

pub(crate) fn run(args: &Args, command: &Command) -> ExitCode {
    match command {
        Command::User(command) => report(None, users::run(command)),
        Command::Config(ConfigCommand::PrintDefault) => {
            print!("{}", default_file());
            ExitCode::SUCCESS
        }
        Command::Config(ConfigCommand::Check) => {
            let checked = check(args).map_err(anyhow::Error::from);
            report(args.common.config.as_deref(), checked)
        }
        Command::Doctor { stun, clock, name } => {
            let questions = Questions {
                stun: stun.clone(),
                clock: clock.clone(),
                name: name.clone(),
            };
            match examine(args, &questions) {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// All that a start would read, without a start.
fn check(args: &Args) -> Result<(), ConfigError> {
    let settings = Settings::load(args)?;
    if let Some(files) = settings.certificate {
        Certificate::load(files)?;
    }
    println!("the configuration can be used");
    Ok(())
}
