//! The real binary in a process of its own: real time, real signals, real disk.
//!
//! Every process is ended when its test ends, however that ends. Waiting is polling with a bound.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::Client;

/// The program under test.
const OSTIARY: &str = env!("CARGO_BIN_EXE_ostiary");
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The longest that anything is waited for. Generous: it is a bound, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see.
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
        if let Some(seen) = look() {
            return seen;
        }
        thread::sleep(LOOK_EVERY);
    }
    panic!("in {} s there was no {what}", PATIENCE.as_secs());
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// Sets the permission bits of a file.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory to run ostiary in, one process after another.
pub struct Place {
    directory: TempDir,
}

/// How a process ended, and all that it wrote.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The data directory, which nobody has made yet.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Where the first start leaves the first root key.
    pub fn first_root_key_file(&self) -> PathBuf {
        self.data().join("first-root-key")
    }

    /// The first root key.
    pub fn first_root_key(&self) -> String {
        std::fs::read_to_string(self.first_root_key_file()).unwrap().trim_end().to_owned()
    }

    /// Writes a file for its owner's eyes only.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    }

    /// A process with these arguments and nothing of this one's environment.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::spawn(self.command(arguments))
    }

    /// The same, which can be changed before it is spawned.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(OSTIARY);
        command.args(arguments).env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.spawn(arguments).ended()
    }

    /// The arguments that serve this place on a free port, with others.
    pub fn serving<'a>(data: &'a str, others: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["serve", "--data-dir", data];
        if !others.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        arguments.extend(others);
        arguments
    }

    /// Starts the server on a free port, and returns once it serves.
    pub fn serve(&self, others: &[&str]) -> Server {
        let data = self.data();
        let process = self.spawn(&Self::serving(data.to_str().unwrap(), others));
        Server::await_serving(process)
    }

    /// Starts a server that is expected to refuse, and returns how it ended.
    pub fn serve_in_vain(&self, others: &[&str]) -> Ended {
        let data = self.data();
        self.run(&Self::serving(data.to_str().unwrap(), others))
    }
}

/// A process that was started here, and is killed when nobody needs it any more.
pub struct Process {
    child: Child,
    stdout: Reader,
    stderr: Reader,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Reader::new(child.stdout.take().unwrap());
        let stderr = Reader::new(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The number that the system knows it by.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.stderr.text.lock().unwrap().clone()
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let status = await_some("end of the process", || self.child.try_wait().unwrap());
        Ended { code: status.code(), stdout: self.stdout.rest(), stderr: self.stderr.rest() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects what a process writes.
struct Reader {
    text: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn new(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&text);
        let thread = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut collected = collected.lock().unwrap();
                collected.push_str(&line);
                collected.push('\n');
            }
        });
        Self { text, thread: Some(thread) }
    }

    /// All of it, once the process has ended.
    fn rest(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.text.lock().unwrap())
    }
}

/// A process that serves.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
}

impl Server {
    pub fn await_serving(mut process: Process) -> Self {
        let address = await_some("server", || {
            let log = process.log();
            if process.has_ended() {
                panic!("it ended instead of serving: {log}");
            }
            address_in(&log)
        });
        Self { process, address }
    }

    /// A client with this root key.
    pub async fn client(&self, secret: &str) -> Client {
        Client::connect(self.address, Some(secret.to_owned())).await
    }

    /// Stops it as a service manager would, and waits for its end.
    pub fn stop(self) -> Ended {
        self.process.signal(Signal::TERM);
        self.process.ended()
    }

    /// Ends it without a chance to tidy up.
    pub fn kill(self) -> Ended {
        self.process.signal(Signal::KILL);
        self.process.ended()
    }
}

/// The address in the line that says `serving`, in either format of the log.
fn address_in(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("serving"))?;
    let (_, rest) = line.split_once("address=").or_else(|| line.split_once("\"address\":\""))?;
    let address = rest.split([' ', '"']).next()?;
    address.parse().ok()
}
