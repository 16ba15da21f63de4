//! ostiary: a gRPC service that manages keys.
//!
//! **Root keys** authenticate a developer's own servers to ostiary, **API keys** are handed to customers and verified
//! on every request, **roles** and **permissions** say what they may do, **expirations** end them on the millisecond,
//! and the **audit log** records all of it.
//!
//! # The map
//!
//! ```text
//!             who? what?            may they? do it.          what is a key?
//!   bytes ──▶   rpc   ──────────▶   service   ──────────────▶   domain      (values, pure functions)
//!                │                     │                          ▲
//!                │ the only layer      │ the only layer           │
//!                │ that says gRPC      ▼ that writes              │
//!                ▼                   store ── typed tables ───────┘
//!               pb (generated)         │
//!                             ═════════╪═════════  the waist: Engine{view, transact, changes}  View{get, scan}
//!                                redb · memory (tests)
//!   world: time and randomness, injected.   sweep: loops around verbs of the service.   metrics: what calls count.
//!   config: flags, variables, a file.   server: puts it together, serves, takes it apart.   main: calls one of the rest.
//!   offline: what is done to a store that no server serves.
//!   cli: a client of the API like any other; it knows the messages in pb, and nothing of rpc, service and store.
//! ```
//!
//! Dependencies point right and down only; a test enforces it. Layers first, resources second: what concerns roles on
//! the wire is in `rpc/roles.rs`, what may be done with them in `service/roles.rs`, what they are in `domain/role.rs`,
//! how they lie on disk in `store/records.rs` and `store/tables.rs`.
//!
//! # The life of a request
//!
//! 1. [`server`] takes the connection if there is room, and agrees with its client on encryption, if there is any, and on
//!    HTTP/2, or HTTP/1.1 for gRPC-Web. [`rpc::front`] refuses the call if too many are under way, else gives it its id,
//!    its deadline and its line in the log.
//! 2. [`rpc::gate`] recognises the root key before the message is decoded and compares it with the method's policy,
//!    which the proto declares. The header goes no further.
//! 3. The handler, in `rpc`, turns the message into a draft that is right by construction, or tells every flaw at once.
//!    A verification that is one plain message is read, answered and written right there (`rpc/verify/direct.rs`).
//! 4. The verb, in [`service`], draws ids, secrets and the time, then decides. What it reads it may find remembered
//!    (`service/sight.rs`); the marks of the store say whether that still counts. A change is decided inside one
//!    transaction, where the caller is recognised anew and its permission proven anew.
//! 5. The engine makes the transaction durable with its audit events, and only then answers.
//!
//! # Invariants, as absences
//!
//! - Nothing in [`domain`] waits, fails for outside reasons, or knows the time.
//! - Nothing but [`rpc`], and [`cli`] from the other side, knows gRPC; nothing but `store/*` knows an engine; nothing
//!   but [`world`] asks for the time or for randomness.
//! - Nothing that a caller asked for is written except through `Ostiary::change`, so nothing is unpermitted or unlogged.
//! - Whether a key is good never depends on whether the sweep has run.
//! - No write is acknowledged before it is durable. No verdict is kept for the next question, and no record that is
//!   remembered outlives the commit that changed it.
//! - No secret is stored, logged or printed; the first root key's file is the one exception, and it nags.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | workspace | a tenant; everything belongs to exactly one |
//! | root key | what authenticates a developer's server to ostiary |
//! | key | what authenticates a customer to that developer's server |
//! | capability | what a root key may do here; closed |
//! | grant | `resource.id.action` on a root key: a capability, and for which object |
//! | permission, slug | what a key may do elsewhere; open text |
//! | caller, permit | who has been recognised, and that they may do something |
//! | draft, issued | what is to be made, and what was made together with its secret |
//! | identity | whose keys they are, by the name that the developer gives them |
//! | limit, rate, window | how often something may happen, how much that is, and what has happened so far |
//! | tab | the windows of a key in the hands of whoever remembers the key |
//! | seat, standing | room for a connection, what that has shown of itself |
//! | meter, purse, block | what a line of keys may still use, what of it is in memory, how that is reserved |
//! | line | a key and all that it was rerolled from and to; they share a meter and their windows |
//! | namespace, charge, exception | where callers count what they name, one such counting, another rate for some names |
//! | cut | the revocation of all keys that fit a filter, in one commit |
//! | verdict | the answer about a key |
//! | card, traits | what of a key its verdict depends on, and what of that it has in common with others |
//! | mark, sight | the last revision that may have changed a row; a look at rows that hang together |
//! | shelf | where keys are remembered: it can be told beforehand what is going to be looked at |
//! | engine, view, transaction, table, record | where rows lie, one moment of them, a decision on them, their kinds, one of them |
//! | backup, header, piece | everything at one moment as bytes, what they say of themselves, some of them |
//! | ending | what a restoring ends of that which was good at the backup |
//! | sweep | recording what has expired, removing what nobody can use |

#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod domain;
pub mod error;
pub mod metrics;
pub mod offline;
pub mod pb;
pub mod rpc;
pub mod server;
pub mod service;
pub mod store;
pub mod sweep;
pub mod world;
