//! The command line as people and scripts use it: the real program on both ends, over TCP and over a socket.

mod audit;
mod health;
mod help;
mod importing;
mod key_story;
mod more;
mod retries;
mod root_key_story;
mod secrecy;
mod shell;
mod terminal;
mod tls;
