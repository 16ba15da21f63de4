//! Help is enough: every command explains itself and each of its flags, and shells can complete them.

use std::process;

use clap::{Command, CommandFactory as _};
use ostiary::config::CommandLine;

use super::shell::{OSTIARY, Shell, alone, told};

const README: &str = include_str!("../../../README.md");

/// Every command that can be called, by its words.
fn leaves(command: &Command, words: &[String]) -> Vec<(Vec<String>, Command)> {
    let below: Vec<&Command> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    if below.is_empty() {
        return vec![(words.to_vec(), command.clone())];
    }
    let deeper = |below: &Command| leaves(below, &[words, &[below.get_name().to_owned()]].concat());
    below.into_iter().flat_map(deeper).collect()
}

#[test]
fn every_command_explains_itself_and_all_its_flags() {
    let mut grammar = CommandLine::command();
    grammar.build();
    let leaves = leaves(&grammar, &[]);
    assert!(leaves.len() > 45, "{}", leaves.len());
    for (words, command) in leaves {
        assert!(command.get_about().is_some(), "{words:?}");
        let help = command.clone().render_long_help().to_string();
        for argument in command.get_arguments() {
            let placeholder = || argument.get_value_names().unwrap()[0].to_string();
            let name = argument.get_long().map_or_else(placeholder, |long| format!("--{long}"));
            assert!(argument.get_help().is_some(), "{words:?}: {name}");
            assert!(help.contains(&name), "{words:?}: {name}");
        }
    }
}

#[test]
fn the_program_prints_what_it_knows_of_itself() {
    for words in [
        &["root-key", "rotate"][..],
        &["api", "create"],
        &["key", "create"],
        &["role", "delete"],
        &["permission", "create"],
        &["identity", "create"],
        &["namespace", "reset"],
        &["override", "set"],
        &["workspace", "create"],
        &["verify"],
        &["import"],
        &["audit", "tail"],
        &["backup"],
        &["health"],
    ] {
        let told = alone(&[words, &["--help"]].concat());
        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{words:?}");
        assert!(told.stdout.contains("--server") && told.stdout.contains("OSTIARY_SERVER"), "{words:?}");
    }
    for command in ["restore", "check", "recover"] {
        let told = alone(&[command, "--help"]);
        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{command}");
        assert!(told.stdout.contains("--data-dir") && told.stdout.contains("OSTIARY_DATA_DIR"), "{command}");
        assert!(told.stdout.contains("Exit codes:") && told.stdout.contains("Example"), "{command}");
    }
    let rotate = alone(&["root-key", "rotate", "--help"]).stdout;
    assert!(rotate.contains("--grace") && rotate.contains("15m, 1h, 6h and 24h"), "{rotate}");
}

#[test]
fn the_first_help_tells_the_exit_codes_the_environment_and_the_life_of_a_root_key() {
    let told = alone(&["--help"]);
    assert_eq!(told.code, 0);
    for words in ["Exit codes:", "OSTIARY_ROOT_KEY_FILE", "OSTIARY_SERVER", "root-key rotate ROOT_KEY_ID --grace 1h"] {
        assert!(told.stdout.contains(words), "{words}");
    }
    for code in 0..=8 {
        assert!(told.stdout.contains(&format!("\n  {code}  ")), "{code}");
    }
    assert!(told.stdout.lines().all(|line| line.chars().count() <= 100), "{}", told.stdout);
}

#[test]
fn the_readme_tells_the_same_exit_codes() {
    let (_, chapter) = README.split_once("\n## From the shell\n").unwrap();
    let rows = chapter.lines().skip_while(|line| !line.starts_with("| exit code |")).skip(2);
    let told: Vec<String> = rows
        .map_while(|row| row.strip_prefix("| `"))
        .map(|row| row.replace("` | ", "  ").trim_end_matches(" |").replace('`', ""))
        .collect();
    let known: Vec<String> = ostiary::cli::EXIT_CODES.lines().skip(1).map(|line| line.trim().to_owned()).collect();
    assert_eq!(told, known);
}

#[test]
fn every_shell_can_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let told = alone(&["completions", shell]);
        assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{shell}");
        for word in ["root-key", "generate-root-key", "rotate", "skip-existing"] {
            assert!(told.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(alone(&["completions", "csh"]).code, 2);
    let mut bash = process::Command::new("bash");
    bash.arg("-n").env_clear();
    let read = told(bash, &alone(&["completions", "bash"]).stdout);
    assert_eq!((read.code, read.stderr.as_str()), (0, ""), "bash understands it");
}

#[test]
fn the_life_of_a_root_key_that_the_help_tells_can_be_lived() {
    let help = alone(&["--help"]).stdout;
    let (_, life) = help.split_once("The life of a root key:\n").unwrap();
    let life: Vec<&str> = life.lines().map_while(|line| line.strip_prefix("  ")).collect();
    assert!(life.len() == 8 && life.iter().any(|line| line.starts_with("ostiary root-key rotate")), "{life:?}");
    // The id is taken from what the list shows; nobody is there to be asked.
    let id = "ROOT_KEY_ID=$(ostiary root-key list --name-contains documents --output json | \
              sed 's/.*\"rootKeyId\":\"\\([^\"]*\\)\".*/\\1/')";
    let script: Vec<String> = life
        .iter()
        .flat_map(|line| match *line {
            "ostiary root-key list" => vec![(*line).to_owned(), id.to_owned()],
            line => vec![line.replace("ROOT_KEY_ID", "\"$ROOT_KEY_ID\"").replace("delete", "delete --yes")],
        })
        .collect();
    let shell = Shell::open();
    std::os::unix::fs::symlink(shell.place.data(), shell.place.path("ostiary-data")).unwrap();
    let program = std::path::Path::new(OSTIARY).parent().unwrap().to_str().unwrap();
    let mut command = process::Command::new("sh");
    command.args(["-ec", &script.join("\n")]).env_clear().current_dir(shell.place.path("."));
    command.env("PATH", format!("{program}:/usr/bin:/bin")).env("OSTIARY_SERVER", shell.address());
    let lived = told(command, "");
    assert_eq!(lived.code, 0, "{lived:?}");
    let key = std::fs::read_to_string(shell.place.path("new.key")).unwrap();
    assert_eq!(shell.run_as(key.trim(), &["root-key", "who-am-i"]).code, 0, "the new key is good");
    let key = std::fs::read_to_string(shell.place.path("key")).unwrap();
    assert_eq!(shell.run_as(key.trim(), &["root-key", "who-am-i"]).code, 3, "the old one is deleted");
}
