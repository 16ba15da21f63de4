//! ostiary from outside: real gRPC over real sockets, a real store, time in the test's hand.

mod harness;

mod administrators;
mod apis;
mod attenuation;
mod audit;
mod conventions;
mod coverage;
mod crash;
mod credits;
mod engine;
mod errors;
mod expiry;
mod first_start;
mod format;
mod idempotency;
mod identities;
mod keys;
mod model;
mod permissions;
mod power_loss;
mod process;
mod quotas;
mod races;
mod readme;
mod rerolling;
mod revoking;
mod roles;
mod root_keys;
mod secrecy;
mod shutdown;
mod story;
mod throttle;
mod tidy;
mod verify;
mod workspaces;
