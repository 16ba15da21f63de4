pub mod domain;
pub mod error;
mod pb;
pub mod service;
pub mod store;
pub mod sweep;
pub mod world;
