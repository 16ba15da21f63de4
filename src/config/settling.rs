//! Which of several values counts: the flag's, else the variable's, else the file's, else the default.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::Value;

use super::file::{Said, check, flags, is_list, is_switch, read};
use super::{CommandLine, variable, variables};

/// The commands that take the flags of `serve`.
const SERVING: [&[&str]; 3] = [&["serve"], &["config", "check"], &["config", "show"]];
/// The flag that says where the file is, and its variable.
const FILE: (&str, &str) = ("config", "OSTIARY_CONFIG");

/// What all variables begin with.
const PREFIX: &str = "OSTIARY_";
/// Letters by which a variable may differ from one that there is, and is taken to be meant as that: one of so many, and
/// no more than these.
const LETTERS_A_TYPO: usize = 4;
const TYPOS_MAX: usize = 2;

/// Why a command line can't be followed.
#[derive(Debug)]
pub enum Misuse {
    /// As `clap` says it; help and the version come this way too.
    Line(clap::Error),
    /// A sentence that names where the value comes from.
    Setting(String),
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This variable.
    Variable(String),
    /// This file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

/// One value that counts.
#[derive(Debug)]
struct Setting {
    key: String,
    /// None where it has none.
    value: Option<Value>,
    origin: Origin,
}

/// All values that count, in the order of the flags.
#[derive(Debug, Default)]
pub struct Settings(Vec<Setting>);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Settings {
    /// As a file that says the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Setting { key, value, origin } in &self.0 {
            match value {
                Some(value) => writeln!(f, "{key} = {value}  # {origin}")?,
                None => writeln!(f, "# {key} is not set")?,
            }
        }
        Ok(())
    }
}

impl Settings {
    /// How a complaint names what one says: the flag, and where its value comes from if that is elsewhere.
    pub fn name(&self, key: &str) -> String {
        match self.0.iter().find(|setting| setting.key == key).map(|setting| &setting.origin) {
            Some(origin @ (Origin::Variable(_) | Origin::File(_))) => format!("--{key} (from {origin})"),
            Some(Origin::Flag | Origin::Default) | None => format!("--{key}"),
        }
    }

    fn of(command: &Command, matches: &ArgMatches, said: &Said) -> Self {
        let setting = |flag: &clap::Arg| {
            let key = flag.get_long()?.to_owned();
            let texts =
                matches.get_raw(flag.get_id().as_str()).map(|values| values.map(|value| value.to_string_lossy()));
            let texts: Vec<String> = texts.into_iter().flatten().map(Into::into).collect();
            let in_file = said.values.iter().any(|(known, _)| *known == key);
            let origin = match matches.value_source(flag.get_id().as_str()) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => {
                    Origin::Variable(flag.get_env().unwrap_or_default().to_string_lossy().into_owned())
                }
                Some(_) | None if in_file => Origin::File(said.path.clone()),
                Some(_) | None => Origin::Default,
            };
            let value = if is_switch(flag) {
                Some(Value::Boolean(matches.get_flag(flag.get_id().as_str())))
            } else if is_list(flag) && !texts.is_empty() {
                let parts = texts.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned());
                Some(Value::Array(parts.map(Value::String).collect()))
            } else {
                texts.first().map(|text| text.parse().map_or_else(|_| Value::String(text.clone()), Value::Integer))
            };
            Some(Setting { key, value, origin })
        };
        Self(flags(command).filter_map(setting).collect())
    }
}

/// Reads a command line, with what variables and the file say besides.
///
/// # Errors
/// What can't be followed.
pub fn settle(arguments: &[OsString]) -> Result<(CommandLine, Settings), Misuse> {
    let whole = CommandLine::command();
    let bare = SERVING.iter().fold(whole.clone(), |command, path| change(command, path, &without_variables));
    let matches = match bare.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        // Help names the variables.
        Err(error) if !error.use_stderr() => {
            return Err(Misuse::Line(whole.try_get_matches_from(arguments).err().unwrap_or(error)));
        }
        Err(error) => return Err(Misuse::Line(error)),
    };
    let serving = SERVING.iter().find_map(|path| Some((*path, innermost(&matches, path)?)));
    let Some((path, given)) = serving else {
        return Ok((parsed(whole, arguments)?.0, Settings::default()));
    };
    let serve = whole.find_subcommand(SERVING[0][0]).cloned().unwrap_or_default();
    let said = match file(given) {
        Some(file) => read(&file, &serve).map_err(Misuse::Setting)?,
        None => Said::default(),
    };
    check_names(&whole)?;
    check_variables(&serve, given)?;
    let whole = change(whole, path, &|command| with_defaults(command, &said));
    let (line, matches) = parsed(whole, arguments)?;
    let counting = innermost(&matches, path).unwrap_or(given);
    let settings = Settings::of(&serve, counting, &said);
    Ok((line, settings))
}

fn parsed(command: Command, arguments: &[OsString]) -> Result<(CommandLine, ArgMatches), Misuse> {
    let matches = command.try_get_matches_from(arguments).map_err(Misuse::Line)?;
    let line = CommandLine::from_arg_matches(&matches).map_err(Misuse::Line)?;
    Ok((line, matches))
}

/// Where the file is, if there is one.
fn file(given: &ArgMatches) -> Option<PathBuf> {
    let (flag, name) = FILE;
    given.get_one::<PathBuf>(flag).cloned().or_else(|| variable(name).map(|path| Path::new(&path).to_owned()))
}

/// What the command line gave to the command at the end of this path.
fn innermost<'a>(matches: &'a ArgMatches, path: &[&str]) -> Option<&'a ArgMatches> {
    path.iter().try_fold(matches, |matches, name| matches.subcommand_matches(name))
}

/// The command, in which that at the end of the path is changed.
fn change(command: Command, path: &[&str], how: &dyn Fn(Command) -> Command) -> Command {
    match path {
        [] => how(command),
        [name, rest @ ..] => command.mut_subcommand(*name, |command| change(command, rest, how)),
    }
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|flag| flag.env(None))
}

fn with_defaults(command: Command, said: &Said) -> Command {
    said.values.iter().fold(command, |command, (key, values)| {
        let id = flags(&command).find(|flag| flag.get_long() == Some(key)).map(|flag| flag.get_id().clone());
        match id {
            Some(id) => command.mut_arg(id, |flag| flag.default_values(values.clone())),
            None => command,
        }
    })
}

/// Refuses variables that are nearly called as one that there is: whoever set them meant that one.
///
/// Others are left alone. Orchestrators set some of their own that begin alike.
fn check_names(whole: &Command) -> Result<(), Misuse> {
    let known = names(whole);
    let unknown = variables().filter(|name| name.starts_with(PREFIX) && !known.contains(name));
    for name in unknown {
        let few = ((name.len() - PREFIX.len()) / LETTERS_A_TYPO).min(TYPOS_MAX);
        if let Some(near) = known.iter().find(|known| strsim::levenshtein(known, &name) <= few) {
            return Err(Misuse::Setting(format!("{name}: there is no such variable; did you mean {near}?")));
        }
    }
    Ok(())
}

/// The variables of a command and of those below it.
fn names(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|flag| Some(flag.get_env()?.to_string_lossy().into_owned()));
    own.chain(command.get_subcommands().flat_map(names)).collect()
}

/// Refuses what variables say and no flag overrules, with their names.
fn check_variables(command: &Command, given: &ArgMatches) -> Result<(), Misuse> {
    for flag in flags(command) {
        let overruled = given.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
        let name = flag.get_env().unwrap_or_default().to_string_lossy();
        let Some(value) = variable(&name).filter(|_| !overruled) else { continue };
        let value = value.into_string().map_err(|_| Misuse::Setting(format!("{name}: must be UTF-8")))?;
        check(flag, &value).map_err(|why| Misuse::Setting(format!("{name}: {why}")))?;
    }
    Ok(())
}
