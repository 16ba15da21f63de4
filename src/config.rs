//! Every flag, variable and key of the file, documented, defaulted and checked.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli;
use crate::domain::network::AllowList;

pub mod address;
pub mod bounds;
mod file;
pub mod offline;
pub mod origin;
mod settling;
#[cfg(test)]
mod tests;
pub mod tls;

pub use settling::{Misuse, Settings};

use address::Address;
use bounds::Bounds;
use origin::Origin;
use tls::TlsFlags;

/// Manages keys: root keys for your servers, API keys for your customers, roles, permissions and expirations.
#[derive(Debug, Parser)]
#[command(name = "ostiary", version, propagate_version = true, after_help = cli::EXIT_CODES, after_long_help = cli::guide())]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API.
    ///
    /// The first start makes the operator workspace `default` and its first root key, whose secret it writes to
    /// `first-root-key` in the data directory.
    Serve(Box<Config>),
    /// Look at the configuration that `serve` would have, without serving.
    #[command(subcommand)]
    Config(Look),
    /// Print a new root key, for --first-root-key-file. It means nothing until a server adopts it.
    GenerateRootKey,
    /// Make a store out of a backup. No server may be running on it.
    Restore(offline::Restore),
    /// Tell whether a store or a backup is what was written. No server may be running on the store.
    Check(offline::Check),
    /// Make a new administrator root key in a store, for when nobody has the secret of one. No server may be running on it.
    Recover(offline::Recover),
    /// Something to ask of a server.
    #[command(flatten)]
    Client(Box<cli::Command>),
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Look {
    /// Say whether it can be served, and if not, why not. Certificates are looked at too.
    Check(Box<Config>),
    /// Print all that counts, as a file that says the same, and where each value comes from.
    Show(Box<Config>),
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// A file in TOML with values for the other flags: their names without the dashes, `data-dir = "/var/lib/ostiary"`.
    ///
    /// A flag or a variable overrules the file. Lists are arrays.
    #[arg(long, env = "OSTIARY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where to listen: an address and a port, `unix:` and the path of a socket, or `systemd` for the sockets that it
    /// passes. May be given more than once, in the variable separated by commas.
    ///
    /// A socket is for its owner and their group alone.
    #[arg(
        long,
        env = "OSTIARY_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    pub listen: Vec<Address>,

    /// Listen without encryption on an address that other machines can reach.
    ///
    /// Root keys and keys would cross the network readable by everybody on the way: only for a network that you
    /// trust, or behind something that encrypts.
    #[arg(long, env = "OSTIARY_ALLOW_PLAINTEXT")]
    pub allow_plaintext: bool,

    /// What connections are encrypted with.
    #[command(flatten)]
    pub tls: TlsFlags,

    /// Networks of the proxies whose `x-forwarded-for` says where a call comes from, separated by commas.
    ///
    /// Without it the header is never believed. The address counts for the allow-lists of root keys, for the throttle
    /// on guesses and in the audit log.
    #[arg(long, env = "OSTIARY_TRUSTED_PROXIES", value_name = "NETWORKS", value_parser = networks)]
    pub trusted_proxies: Option<AllowList>,

    /// Take calls of gRPC-Web as well, over HTTP/1.1 or HTTP/2, at all addresses.
    ///
    /// For an ostiary that was built with the feature `grpc-web`.
    #[arg(long, env = "OSTIARY_GRPC_WEB")]
    pub grpc_web: bool,

    /// The origins whose pages may call by gRPC-Web, such as `https://app.example.com`, separated by commas.
    ///
    /// Without it no page may; what is no page needs none.
    #[arg(long, env = "OSTIARY_GRPC_WEB_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    pub grpc_web_origins: Vec<Origin>,

    /// Where the store lies. It is made if it is missing; it must be accessible by its owner alone.
    #[arg(long, env = "OSTIARY_DATA_DIR", default_value = "./ostiary-data", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,

    /// A file with the root key that an empty store is to begin with; without it, one is made.
    ///
    /// Read at the first start only. `ostiary generate-root-key` prints such a key.
    #[arg(long, env = "OSTIARY_FIRST_ROOT_KEY_FILE", value_name = "FILE")]
    pub first_root_key_file: Option<PathBuf>,

    /// Memory for what has been read before: two thirds for keys and other records, one third for pages of the store.
    ///
    /// A million keys that are verified often take about 300 MiB of it.
    #[arg(long, env = "OSTIARY_CACHE_MIB", default_value_t = 512, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub cache_mib: u32,

    /// How long expired keys and root keys can still be read before they are removed for good.
    #[arg(long, env = "OSTIARY_RETENTION", default_value = "90d", value_name = "DURATION", value_parser = retention)]
    pub retention: Duration,

    /// Go on removing old records although the clock is more than a day ahead of when ostiary last ran.
    ///
    /// Validity follows the clock in any case. Needed once after a long pause, if the clock is right.
    #[arg(long, env = "OSTIARY_TRUST_CLOCK")]
    pub trust_clock: bool,

    /// How much is served at a time, and for how long.
    #[command(flatten)]
    pub bounds: Bounds,

    /// Where to tell metrics over HTTP, at `/metrics`: an address and a port, or `unix:` and the path of a socket.
    ///
    /// In the text format of Prometheus, to whoever can get there: nothing is encrypted and nobody has to say who they
    /// are, so an address that other machines can reach needs --allow-plaintext. Without it nothing is told.
    #[arg(long, env = "OSTIARY_ADMIN_LISTEN", value_name = "ADDRESS", value_parser = admin)]
    pub admin_listen: Option<Address>,

    /// Where to send a span of each call: the URL of a collector of OpenTelemetry that speaks gRPC, such as
    /// `http://127.0.0.1:4317`.
    ///
    /// For an ostiary that was built with the feature `otlp`. The variables of OpenTelemetry count too, such as
    /// OTEL_TRACES_SAMPLER and OTEL_EXPORTER_OTLP_HEADERS. Without it nothing is sent.
    #[arg(long, env = "OSTIARY_OTLP_ENDPOINT", value_name = "URL", value_parser = collector)]
    pub otlp_endpoint: Option<String>,

    /// How the log is written, to standard error.
    #[arg(long, env = "OSTIARY_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace; or a filter such as `info,ostiary::sweep=debug`.
    ///
    /// Only ostiary's own lines are ever written, never those of the libraries below it.
    #[arg(long, env = "OSTIARY_LOG_LEVEL", default_value = "info", value_name = "LEVEL", value_parser = level)]
    pub log_level: String,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Values that don't go together.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The key whose value should be another one.
    pub key: &'static str,
    /// Which value, what is wrong with it, and what to do.
    pub why: String,
}

impl CommandLine {
    /// The command line of this process, with what variables and the file say besides. All of it has been checked.
    ///
    /// # Errors
    /// What can't be followed.
    pub fn read() -> Result<(Self, Settings), Misuse> {
        Self::read_from(std::env::args_os().collect())
    }

    /// The same for a command line that begins with the name of the program.
    ///
    /// # Errors
    /// What can't be followed.
    pub fn read_from(arguments: Vec<OsString>) -> Result<(Self, Settings), Misuse> {
        let (line, settings) = settling::settle(&arguments)?;
        if let Command::Serve(config) | Command::Config(Look::Check(config) | Look::Show(config)) = &line.command {
            let told = |Misfit { key, why }| Misuse::Setting(format!("{} {why}", settings.name(key)));
            config.check().map_err(told)?;
        }
        Ok((line, settings))
    }
}

impl Config {
    fn check(&self) -> Result<(), Misfit> {
        self.tls.files()?;
        self.check_exposure(&self.listen)?;
        self.check_features()?;
        match &self.admin_listen {
            Some(address) if address.is_reachable_from_outside() && !self.allow_plaintext => {
                let why = format!(
                    "{address}: other machines can reach that address, and metrics are told to whoever asks; listen on a \
                     loopback address or a socket, or set --allow-plaintext if the network is trusted"
                );
                Err(Misfit { key: "admin-listen", why })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses what this program was built without.
    fn check_features(&self) -> Result<(), Misfit> {
        let lacks = |feature: &str| {
            format!(
                "needs an ostiary that was built with the feature {feature}: cargo build --release --features {feature}"
            )
        };
        if self.grpc_web && !cfg!(feature = "grpc-web") {
            return Err(Misfit { key: "grpc-web", why: lacks("grpc-web") });
        }
        if self.otlp_endpoint.is_some() && !cfg!(feature = "otlp") {
            return Err(Misfit { key: "otlp-endpoint", why: lacks("otlp") });
        }
        if !self.grpc_web_origins.is_empty() && !self.grpc_web {
            return Err(Misfit { key: "grpc-web-origins", why: "goes with --grpc-web".to_owned() });
        }
        Ok(())
    }

    /// Refuses what other machines could read on the way, unless that is allowed or can't be.
    ///
    /// # Errors
    /// A sentence that names the address and the remedy.
    pub fn check_exposure(&self, addresses: &[Address]) -> Result<(), Misfit> {
        let harmless = self.allow_plaintext || self.tls.tls_cert.is_some();
        match addresses.iter().find(|address| address.is_reachable_from_outside() && !harmless) {
            None => Ok(()),
            Some(address) => {
                let why = format!(
                    "{address}: other machines can reach that address, and nothing is encrypted; give a certificate with \
                     --tls-cert and --tls-key, listen on a loopback address, or set --allow-plaintext if the network is \
                     trusted"
                );
                Err(Misfit { key: "listen", why })
            }
        }
    }
}

/// A variable of the environment.
pub fn variable(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
    std::env::var_os(name)
}

/// The names of all variables of the environment that are text.
pub fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

fn admin(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(Address::Systemd) | Err(_) => Err("must be ADDRESS:PORT or unix:PATH".to_owned()),
        Ok(address) => Ok(address),
    }
}

/// A URL without a path and without a password, which does not belong here.
fn collector(text: &str) -> Result<String, String> {
    let url: Option<http::Uri> = text.parse().ok();
    let fit = url.filter(|url| {
        let by_http =
            url.scheme().is_some_and(|scheme| [http::uri::Scheme::HTTP, http::uri::Scheme::HTTPS].contains(scheme));
        let bare = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        by_http && bare && url.path_and_query().is_none_or(|path| path == "/")
    });
    fit.map(|_| text.to_owned()).ok_or_else(|| "must be http://HOST:PORT or https://HOST:PORT".to_owned())
}

fn level(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn networks(text: &str) -> Result<AllowList, String> {
    let entries: Vec<&str> = text.split(',').map(str::trim).collect();
    let networks =
        AllowList::parse(entries.iter().copied()).map_err(|(index, flaw)| format!("{:?}: {flaw}", entries[index]))?;
    match networks.iter().find(|network| network.prefix_len() == 0) {
        Some(all) => Err(format!("{all} is everybody: any caller could make up an address")),
        None => Ok(networks),
    }
}

fn retention(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_secs(3_600), Duration::from_secs(10 * 366 * 24 * 3_600), "1h to 10y")
}

fn within(text: &str, least: Duration, most: Duration, bounds: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 90d, 12h or 30s"))?;
    if (least..=most).contains(&span) { Ok(span) } else { Err(format!("must be {bounds}")) }
}
