//! What a command line comes to.

use super::*;
use clap::CommandFactory;

fn parse(arguments: &[&str]) -> Result<Box<Config>, String> {
    let line = ["ostiary", "serve"].iter().chain(arguments).map(Into::into).collect();
    match CommandLine::read_from(line) {
        Ok((CommandLine { command: Command::Serve(config) }, _)) => Ok(config),
        Ok(_) => Err("another command".to_owned()),
        Err(Misuse::Line(error)) => Err(error.to_string()),
        Err(Misuse::Setting(why)) => Err(why),
    }
}

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn plaintext_leaves_the_machine_only_when_told_to() {
    assert!(parse(&["--listen", "127.0.0.1:0"]).is_ok());
    assert!(parse(&["--listen", "[::1]:0", "--listen", "unix:/run/ostiary/socket"]).is_ok());
    assert!(parse(&["--listen", "unix:"]).unwrap_err().contains("path of a socket"));
    assert!(parse(&["--listen", "127.0.0.1:0,0.0.0.0:0"]).unwrap_err().contains("--allow-plaintext"));
    assert!(parse(&["--listen", "0.0.0.0:0"]).unwrap_err().contains("--allow-plaintext"));
    assert!(parse(&["--listen", "0.0.0.0:0", "--allow-plaintext"]).is_ok());
}

#[test]
fn metrics_leave_the_machine_only_when_told_to() {
    assert_eq!(parse(&[]).unwrap().admin_listen, None);
    assert!(parse(&["--admin-listen", "127.0.0.1:9464"]).is_ok());
    assert!(parse(&["--admin-listen", "unix:/run/ostiary/admin"]).is_ok());
    let refused = parse(&["--admin-listen", "0.0.0.0:9464"]).unwrap_err();
    assert!(refused.starts_with("--admin-listen 0.0.0.0:9464") && refused.contains("--allow-plaintext"), "{refused}");
    assert!(parse(&["--admin-listen", "0.0.0.0:9464", "--allow-plaintext"]).is_ok());
    for bad in ["systemd", "9464", "unix:"] {
        assert!(parse(&["--admin-listen", bad]).unwrap_err().contains("ADDRESS:PORT or unix:PATH"), "{bad}");
    }
}

#[test]
fn trusted_proxies_are_networks() {
    let read = |text: &str| parse(&["--trusted-proxies", text]).map(|config| config.trusted_proxies);
    let networks = AllowList::parse(["10.0.0.0/8", "2001:db8::/32"]).unwrap();
    assert_eq!(read("10.0.0.0/8, 2001:db8::/32"), Ok(Some(networks)));
    assert!(read("10.0.0.0/8,somewhere").unwrap_err().contains("\"somewhere\": must be a network"));
    assert!(read("").is_err());
    assert!(read("10.0.0.0/8,0.0.0.0/0").unwrap_err().contains("everybody"));
    assert_eq!(parse(&[]).unwrap().trusted_proxies, None);
}

#[test]
fn what_was_not_built_in_is_refused_with_the_way_to_get_it() {
    let (web, otlp) = (parse(&["--grpc-web"]), parse(&["--otlp-endpoint", "http://127.0.0.1:4317"]));
    for (read, built_in, feature) in
        [(web, cfg!(feature = "grpc-web"), "grpc-web"), (otlp, cfg!(feature = "otlp"), "otlp")]
    {
        match read {
            Ok(_) => assert!(built_in, "{feature}"),
            Err(why) => assert!(!built_in && why.contains(&format!("--features {feature}")), "{why}"),
        }
    }
    let alone = parse(&["--grpc-web-origins", "https://app.example.com"]).unwrap_err();
    assert_eq!(alone, "--grpc-web-origins goes with --grpc-web");
}

#[test]
fn a_collector_is_a_url_without_a_path_or_a_password() {
    for good in ["http://127.0.0.1:4317", "https://collector.example.com", "http://[::1]:4317/"] {
        assert_eq!(collector(good).as_deref(), Ok(good));
    }
    for bad in
        ["", "127.0.0.1:4317", "ftp://a", "http://", "http://me:secret@a:1", "http://a:1/v1/traces", "http://a/?b"]
    {
        assert!(collector(bad).is_err(), "{bad}");
    }
}

#[test]
fn durations_have_bounds() {
    assert!(parse(&["--retention", "30d"]).is_ok());
    assert!(parse(&["--retention", "1m"]).unwrap_err().contains("1h to 10y"));
    assert!(parse(&["--drain", "soon"]).is_err());
    assert!(parse(&["--cache-mib", "1"]).is_err());
}
