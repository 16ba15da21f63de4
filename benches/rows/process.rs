//! A server in a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Failed;
use crate::clock::Clock;

/// What a server says on standard error once it serves.
const SERVING: &str = "serving address=";

/// Where a server listens.
#[derive(Debug, Clone)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A server in a process of its own, ended with this.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: Address,
}

impl Process {
    /// Starts it and waits until it says where it serves. Its log is read to its end, so that it never waits for it; what
    /// goes wrong in it is shown.
    pub fn start(command: &mut Command) -> Result<Self, Failed> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = child.stderr.take().ok_or("the log is piped")?;
        let mut lines = BufReader::new(log).lines();
        let mut said = String::new();
        let address = loop {
            let Some(line) = lines.next() else { return Err(format!("the server ended early: {said}").into()) };
            said = line?;
            if let Some((_, rest)) = said.split_once(SERVING) {
                break address(rest.split(' ').next().unwrap_or_default())?;
            }
        };
        let bad = |line: &String| line.contains("ERROR") || line.contains("panicked");
        std::thread::spawn(move || lines.map_while(Result::ok).filter(bad).for_each(|line| eprintln!("{line}")));
        Ok(Self { child, address })
    }

    /// What it spends.
    pub fn clock(&self) -> Clock {
        Clock::of(self.child.id())
    }
}

fn address(text: &str) -> Result<Address, Failed> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(Address::Unix(path.into())),
        None => Ok(Address::Tcp(text.parse()?)),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
