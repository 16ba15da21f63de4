//! `ostiary server`: which ostiary answers.

use clap::Subcommand;

use crate::pb::v1 as pb;

use super::acting::{About, Acting, Deed};
use super::failure::Failure;

/// A server.
pub type Server = About<Command>;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show its version, what is built into it, its clock, and when it was started.
    Show,
}

impl Deed for Command {
    async fn run(self, acting: &Acting<'_>) -> Result<(), Failure> {
        let Self::Show = self;
        let call = async |request| acting.client.maintenance().get_server_info(request).await;
        acting.show("server", pb::GetServerInfoRequest {}, call).await
    }
}
