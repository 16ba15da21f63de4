//! The rows, in the order in which they run: those that only read share a store.

use futures::future::LocalBoxFuture;

use crate::Failed;
use crate::bench::Bench;
use crate::report::Report;

mod attacks;
mod batch;
mod cold;
mod create;
mod credits;
mod currency;
mod deletions;
mod import;
mod restart;
mod scaling;
mod socket;
mod storm;
mod stream;
mod sweep;
mod ten_million;
mod verify;

/// One thing that must hold.
pub struct Row {
    /// How it is asked for.
    pub name: &'static str,
    /// What is measured.
    pub about: &'static str,
    /// Measures it.
    pub run: for<'a> fn(&'a Bench) -> LocalBoxFuture<'a, Result<Report, Failed>>,
}

/// All of them.
pub const ALL: &[Row] = &[
    Row {
        name: "verify",
        about: "VerifyKey, keys drawn from all, with a role, a permission query and a rate limit",
        run: |bench| Box::pin(verify::run(bench)),
    },
    Row { name: "batch", about: "BatchVerifyKeys of 100 such keys", run: |bench| Box::pin(batch::run(bench)) },
    Row {
        name: "stream",
        about: "StreamVerifyKeys with 256 such keys under way",
        run: |bench| Box::pin(stream::run(bench)),
    },
    Row {
        name: "currency",
        about: "no verification that starts after a change was acknowledged answers as if it had not happened",
        run: |bench| Box::pin(currency::run(bench)),
    },
    Row { name: "create", about: "CreateKey, durable, beside redb alone", run: |bench| Box::pin(create::run(bench)) },
    Row {
        name: "credits",
        about: "VerifyKey of keys with credits, beside keys without",
        run: |bench| Box::pin(credits::run(bench)),
    },
    Row {
        name: "deletions",
        about: "calls that end many keys, beside the same that end one",
        run: |bench| Box::pin(deletions::run(bench)),
    },
    Row {
        name: "sweep",
        about: "CreateKey while keys that have expired are swept",
        run: |bench| Box::pin(sweep::run(bench)),
    },
    Row {
        name: "storm",
        about: "VerifyKey in the second in which all keys expire",
        run: |bench| Box::pin(storm::run(bench)),
    },
    Row {
        name: "import",
        about: "VerifyKey of keys in use while others are imported",
        run: |bench| Box::pin(import::run(bench)),
    },
    Row { name: "cold", about: "VerifyKey of keys for the first time", run: |bench| Box::pin(cold::run(bench)) },
    Row {
        name: "ten_million",
        about: "VerifyKey of keys in use, and memory, with many keys beside few",
        run: |bench| Box::pin(ten_million::run(bench)),
    },
    Row { name: "restart", about: "from being killed to the first answer", run: |bench| Box::pin(restart::run(bench)) },
    Row {
        name: "socket",
        about: "VerifyKey over a Unix socket, one call at a time",
        run: |bench| Box::pin(socket::run(bench)),
    },
    Row {
        name: "attacks",
        about: "VerifyKey while another client misuses HTTP/2",
        run: |bench| Box::pin(attacks::run(bench)),
    },
    Row {
        name: "scaling",
        about: "VerifyKey by number of keys and connections, and BatchVerifyKeys by size",
        run: |bench| Box::pin(scaling::run(bench)),
    },
];

/// The rows with these names; all without any.
pub fn named(names: &[String]) -> Result<Vec<&'static Row>, Failed> {
    let known = |name: &String| ALL.iter().any(|row| row.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = ALL.iter().map(|row| row.name).collect();
        return Err(format!("{unknown} is none of the rows {}", all.join(", ")).into());
    }
    Ok(ALL.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)).collect())
}
