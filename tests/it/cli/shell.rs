//! Somebody at a shell: a server, a root key in the environment, and commands with what they print.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use prost_types::Timestamp;

use crate::process::{Ended, Place, Server, await_some};

/// The program under test.
pub const OSTIARY: &str = env!("CARGO_BIN_EXE_ostiary");

/// The flags of the servers here.
const LISTENING: [&str; 4] = ["--listen", "127.0.0.1:0", "--listen", "unix:socket"];

/// A server with the root key that it began with, and somebody who may do everything.
pub struct Shell {
    pub place: Place,
    pub server: Server,
    pub root_key: String,
    /// Secrets that no command may ever show but the one that makes them.
    secrets: RefCell<Vec<String>>,
}

/// What a command printed where, and its exit code.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Told {
    /// The answer as JSON: one object on one line.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its one line of complaint.
    pub fn complaint(&self) -> &str {
        let complaints: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("ostiary: ")).collect();
        assert_eq!(complaints.len(), 1, "{self:?}");
        complaints[0]
    }

    /// What stands beside a field of the object that it shows, wherever it shows it.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut lines = self.stdout.lines().chain(self.stderr.lines());
        lines.find_map(|line| line.strip_prefix(&format!("{name} ")).map(|value| value.trim().to_owned()))
    }
}

/// What may be in a JSON answer at a path of names.
pub fn at<'a>(json: &'a serde_json::Value, path: &str) -> &'a str {
    json.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_else(|| panic!("no {path} in {json}"))
}

impl Shell {
    /// Over TCP and over a socket named `socket`.
    pub fn open() -> Self {
        let place = Place::new();
        let server = place.serve(&LISTENING);
        let root_key = place.first_root_key();
        let secrets = RefCell::new(vec![root_key.clone()]);
        Self { place, server, root_key, secrets }
    }

    /// The server's address on the network.
    pub fn address(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// A command with these arguments and nothing in its environment but these variables.
    pub fn bare(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
        let mut command = Command::new(OSTIARY);
        command.args(arguments).env_clear().envs(variables.iter().copied()).current_dir(self.place.path("."));
        command
    }

    /// A command with the root key in its environment.
    pub fn command(&self, root_key: &str, arguments: &[&str]) -> Command {
        self.bare(&[("OSTIARY_SERVER", &self.address()), ("OSTIARY_ROOT_KEY", root_key)], arguments)
    }

    /// What the command comes to with this on standard input.
    pub fn told(&self, command: Command, input: &str) -> Told {
        let told = told(command, input);
        for secret in self.secrets.borrow().iter() {
            let (_, tail) = secret.rsplit_once('_').unwrap();
            assert!(
                !told.stderr.contains(tail) && !told.stdout.contains(tail),
                "it shows a secret that it did not make"
            );
        }
        told
    }

    /// With the first root key.
    pub fn run(&self, arguments: &[&str]) -> Told {
        self.told(self.command(&self.root_key, arguments), "")
    }

    /// With another root key.
    pub fn run_as(&self, root_key: &str, arguments: &[&str]) -> Told {
        self.told(self.command(root_key, arguments), "")
    }

    /// With this on standard input.
    pub fn feed(&self, input: &str, arguments: &[&str]) -> Told {
        self.told(self.command(&self.root_key, arguments), input)
    }

    /// What is expected to work.
    pub fn done(&self, arguments: &[&str]) -> Told {
        let told = self.run(arguments);
        assert_eq!(told.code, 0, "{arguments:?}: {told:?}");
        told
    }

    /// The answer of what is expected to work, as JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        self.done(&[arguments, &["--output", "json"]].concat()).json()
    }

    /// The secret that stands alone on standard output, and what stood beside it on standard error.
    pub fn issued(&self, arguments: &[&str]) -> (String, Told) {
        let told = self.done(arguments);
        let secret = told.stdout.strip_suffix('\n').unwrap().to_owned();
        assert!(secret.len() > 40 && secret.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{told:?}");
        assert!(!told.stderr.contains(secret.rsplit_once('_').unwrap().1), "the secret is not alone");
        assert!(told.stderr.contains("shown this once"), "{told:?}");
        self.secrets.borrow_mut().push(secret.clone());
        (secret, told)
    }

    /// An API with this name: its id.
    pub fn api(&self, name: &str) -> String {
        at(&self.json(&["api", "create", "--name", name]), "/api/apiId").to_owned()
    }

    /// With another server on the same store and the same socket.
    pub fn restarted(self) -> Self {
        let Self { place, server, root_key, secrets } = self;
        assert_eq!(server.stop().code, Some(0));
        let server = place.serve(&LISTENING);
        Self { place, server, root_key, secrets }
    }

    /// Stops the server as a service manager would.
    pub fn close(self) -> Ended {
        self.server.stop()
    }
}

/// What a command comes to with this on standard input.
pub fn told(mut command: Command, input: &str) -> Told {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It need not read to the end, or at all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A program that has nothing to do with a server.
pub fn alone(arguments: &[&str]) -> Told {
    let mut command = Command::new(OSTIARY);
    command.args(arguments).env_clear().current_dir(Path::new("/"));
    told(command, "")
}

/// A command under way, which is killed when nobody needs it any more.
pub struct Running(pub Child);

impl Running {
    /// Waits for its end: its exit code.
    pub fn code(&mut self) -> Option<i32> {
        await_some("end of the command", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A time as JSON has it.
pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|_| panic!("{text} is no time"))
}
