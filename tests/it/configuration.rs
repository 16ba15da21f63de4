//! Flags, variables and the file: which counts, and how a wrong one is told.

use clap::CommandFactory as _;
use ostiary::config::CommandLine;

use crate::certificates::Authority;
use crate::process::{Ended, Place, Process, Server};

/// Runs `config` in a place with these variables.
fn config(place: &Place, what: &str, flags: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = place.command(&[&["config", what], flags].concat());
    command.envs(variables.iter().copied());
    Process::spawn(command).ended()
}

/// What is wrong, in one line.
fn complaint(place: &Place, flags: &[&str], variables: &[(&str, &str)]) -> String {
    let ended = config(place, "check", flags, variables);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    ended.stderr.trim_end().to_owned()
}

/// What a file is refused with.
fn refused(text: &str) -> String {
    let place = Place::new();
    place.write("ostiary.toml", text);
    complaint(&place, &["--config", "ostiary.toml"], &[])
}

#[test]
fn a_flag_wins_over_a_variable_which_wins_over_the_file_which_wins_over_the_default() {
    let place = Place::new();
    place.write("ostiary.toml", "drain = \"1s\"\nretention = \"2d\"\ncache-mib = 64\ntrust-clock = true\n");
    let variables = [("OSTIARY_CONFIG", "ostiary.toml"), ("OSTIARY_DRAIN", "3s"), ("OSTIARY_RETENTION", "4d")];
    let shown = config(&place, "show", &["--drain", "5s"], &variables);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for line in [
        "drain = \"5s\"  # command line",
        "retention = \"4d\"  # OSTIARY_RETENTION",
        "cache-mib = 64  # ostiary.toml",
        "trust-clock = true  # ostiary.toml",
        "allow-plaintext = false  # default",
        "listen = [\"127.0.0.1:50051\"]  # default",
        "# tls-cert is not set",
    ] {
        assert!(shown.stdout.lines().any(|shown| shown == line), "{line}: {}", shown.stdout);
    }
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let place = Place::new();
    let flags = ["--listen", "127.0.0.1:0", "--listen", "unix:a \"quoted\" name", "--max-connection-age", "30m"];
    let networks = ["--trusted-proxies", "10.0.0.0/8,2001:db8::/32", "--trust-clock"];
    let first = config(&place, "show", &[&flags[..], &networks].concat(), &[]);
    assert_eq!(first.code, Some(0), "{first:?}");
    place.write("ostiary.toml", &first.stdout);
    let second = config(&place, "show", &["--config", "ostiary.toml"], &[]);
    let values = |shown: &str| -> Vec<String> {
        shown.lines().map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value).to_owned()).collect()
    };
    assert_eq!(values(&second.stdout), values(&first.stdout));
    assert!(first.stdout.contains("trusted-proxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]"), "{}", first.stdout);
    assert!(!place.path("ostiary-data").exists(), "nothing was touched");
}

#[tokio::test]
async fn a_server_follows_its_file() {
    let place = Place::new();
    let socket = place.path("socket");
    let text = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]\ndata-dir = \"data\"\n", socket.display());
    place.write("ostiary.toml", &text);
    let server = Server::await_serving(place.spawn(&["serve", "--config", "ostiary.toml"]));
    let client = server.client(&place.first_root_key()).await;
    client.me().await.unwrap();
    assert!(socket.exists());
    drop(client);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_key_that_does_not_exist_is_refused_with_the_one_that_was_probably_meant() {
    assert!(refused("listn = \"127.0.0.1:0\"").ends_with("ostiary.toml: there is no key listn; did you mean listen?"));
    assert!(refused("data_dir = \"data\"").ends_with("did you mean data-dir?"));
    assert!(refused("OSTIARY_DRAIN = \"1s\"").ends_with("there is no key OSTIARY_DRAIN"));
    assert!(refused("[serve]\ndrain = \"1s\"").ends_with("there is no key serve"));
    assert!(refused("config = \"other.toml\"").contains("there is no key config"), "one file, not a chain of them");
}

#[test]
fn a_variable_that_is_nearly_one_is_refused_and_others_are_let_be() {
    let place = Place::new();
    let refused = complaint(&place, &[], &[("OSTIARY_TLS_CLIENT_CAA", "clients.pem")]);
    assert!(
        refused.ends_with("OSTIARY_TLS_CLIENT_CAA: there is no such variable; did you mean OSTIARY_TLS_CLIENT_CA?")
    );
    // As Kubernetes names the port of a service that is called so.
    let others =
        [("OSTIARY_PORT", "tcp://10.0.0.1:50051"), ("OSTIARY_SERVICE_HOST", "10.0.0.1"), ("OSTIARY_ROOT_KEY", "")];
    assert_eq!(config(&place, "check", &[], &others).code, Some(0));
}

#[test]
fn a_value_that_is_not_fit_is_refused_with_where_it_comes_from() {
    for (text, expected) in [
        ("cache-mib = 1", "ostiary.toml: cache-mib: \"1\": 1 is not in 16..=1048576"),
        ("log-format = \"xml\"", "ostiary.toml: log-format: \"xml\": must be one of text, json"),
        ("log-level = \"ostiary=loud\"", "ostiary.toml: log-level: \"ostiary=loud\": "),
        ("retention = \"1m\"", "ostiary.toml: retention: \"1m\": must be 1h to 10y"),
        ("trust-clock = \"yes\"", "ostiary.toml: trust-clock: must be true or false"),
        ("drain = 1.5", "ostiary.toml: drain: must be a text or a whole number, not of the type float"),
        ("data-dir = [\"a\", \"b\"]", "ostiary.toml: data-dir: must be a text or a whole number"),
        ("listen = []", "ostiary.toml: listen: must have one value at least"),
        ("listen = [\"127.0.0.1:0\", \"here\"]", "ostiary.toml: listen: "),
        ("drain = \"1s\"\ndrain = \"2s\"", "ostiary.toml: line 2: "),
        ("listen = [", "ostiary.toml: line 1: "),
        ("listen = [\"0.0.0.0:0\"]", "--listen (from ostiary.toml) 0.0.0.0:0: other machines"),
        ("tls-cert = \"cert.pem\"", "--tls-cert (from ostiary.toml) needs --tls-key besides"),
    ] {
        let complaint = refused(text);
        assert!(complaint.contains(expected), "{text}: {complaint}");
    }
    let place = Place::new();
    for (name, value, expected) in [
        ("OSTIARY_RETENTION", "1m", "OSTIARY_RETENTION: \"1m\": must be 1h to 10y"),
        ("OSTIARY_TRUST_CLOCK", "1", "OSTIARY_TRUST_CLOCK: \"1\" must be true or false"),
        ("OSTIARY_LISTEN", "0.0.0.0:0", "--listen (from OSTIARY_LISTEN) 0.0.0.0:0: other machines"),
        ("OSTIARY_CONFIG", "nowhere.toml", "nowhere.toml: can't be read: No such file"),
    ] {
        let complaint = complaint(&place, &[], &[(name, value)]);
        assert!(complaint.contains(expected), "{complaint}");
    }
    let overruled = config(&place, "check", &["--retention", "1d"], &[("OSTIARY_RETENTION", "1m")]);
    assert_eq!(overruled.code, Some(0), "{overruled:?}");
}

#[test]
fn checking_looks_at_certificates_and_the_data_directory_and_touches_nothing() {
    let (place, authority) = (Place::new(), Authority::new());
    let flags = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--data-dir", "data"];
    assert!(complaint(&place, &flags, &[]).contains("--tls-cert cert.pem: can't be read"));
    authority.sign().write(&place);
    assert_eq!(config(&place, "check", &flags, &[]).code, Some(0));
    assert!(!place.data().exists());
    std::fs::create_dir(place.data()).unwrap();
    crate::process::set_mode(&place.data(), 0o755);
    assert!(complaint(&place, &flags, &[]).contains("chmod 700"));
    authority.sign_for(-3, -1).write(&place);
    assert!(complaint(&place, &flags, &[]).contains("the certificate expired on "));
}

#[test]
fn checking_says_where_no_data_directory_can_be_made_and_which_first_root_key_no_store_can_begin_with() {
    let place = Place::new();
    place.write("file", "");
    let within = complaint(&place, &["--data-dir", "file/data"], &[]);
    assert!(within.contains("can't be made") && within.contains("--data-dir"), "{within}");
    let flags = ["--data-dir", "new/data", "--first-root-key-file", "first"];
    assert!(complaint(&place, &flags, &[]).contains("first: the first root key can't be read"));
    place.write("first", "nonsense");
    assert!(complaint(&place, &flags, &[]).contains("ostiary generate-root-key"));
    let made = place.run(&["generate-root-key"]);
    place.write("first", &made.stdout);
    assert_eq!(config(&place, "check", &flags, &[]).code, Some(0));
    assert!(!place.path("new").exists(), "nothing was made");
}

#[test]
fn every_flag_is_explained_and_none_holds_a_secret() {
    let line = CommandLine::command();
    let serve = line.find_subcommand("serve").unwrap();
    for flag in serve.get_arguments().filter(|flag| flag.get_long() != Some("help")) {
        let long = flag.get_long().unwrap();
        assert!(flag.get_help().is_some_and(|help| help.to_string().len() > 20), "{long}");
        let variable = format!("OSTIARY_{}", long.replace('-', "_").to_uppercase());
        assert_eq!(flag.get_env().unwrap().to_str(), Some(variable.as_str()));
        let of_secret = ["secret", "password", "token", "key"].iter().any(|word| long.contains(word));
        let value = flag.get_value_names().and_then(|names| names.first().map(ToString::to_string));
        assert!(!of_secret || value.as_deref() == Some("FILE"), "{long}");
    }
}
