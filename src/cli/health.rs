//! `ostiary health`: whether a server serves.

use clap::Args;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::calling::Calling;
use super::failure::Failure;
use super::output;

/// A probe.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 SERVING, or with --alive any answer; 4 the server has no such service; 6 it does not serve, can't be reached or does not answer in time.

Example:
  ostiary health --server unix:/run/ostiary/socket --timeout 1s")]
pub struct Health {
    #[command(flatten)]
    calling: Calling,

    /// Of what: ostiary.v1.verify, ostiary.v1.manage, or all of it.
    #[arg(long, default_value = "", hide_default_value = true)]
    service: String,

    /// Only whether it answers, whatever it says: what is not well is not made better by starting it again.
    #[arg(long, conflicts_with = "service")]
    alive: bool,
}

impl Health {
    /// Asks for it.
    pub async fn run(self) -> Result<(), Failure> {
        let Self { calling, service, alive } = self;
        let mut client = HealthClient::new(calling.connect().await?);
        let checking = client.check(HealthCheckRequest { service });
        let Ok(checked) = tokio::time::timeout(calling.timeout(), checking).await else {
            let span = humantime::format_duration(calling.timeout());
            return Err(Failure::Away(format!("the server did not answer within {span}")));
        };
        let HealthCheckResponse { status } = checked?.into_inner();
        let status = ServingStatus::try_from(status).unwrap_or(ServingStatus::Unknown);
        let name = status.as_str_name();
        output::write(&if calling.output().is_json() {
            format!("{{\"status\":\"{name}\"}}")
        } else {
            name.to_owned()
        })?;
        match status {
            ServingStatus::Serving => Ok(()),
            _ if alive => Ok(()),
            ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
                Err(Failure::Away(format!("the server says {name}")))
            }
        }
    }
}
