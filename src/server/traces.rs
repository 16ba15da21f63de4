//! Spans on their way to a collector of OpenTelemetry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter as Exporter};
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use super::ServeError;
use crate::rpc::traces::Spans;

/// How long sending some of them may take.
const SENT_WITHIN: Duration = Duration::from_secs(10);
/// How long sending the last of them may take when the server stops.
const FLUSHED_WITHIN: Duration = Duration::from_secs(5);

/// What sends spans, if anything does.
pub struct Sending(Option<SdkTracerProvider>);

/// Makes spans that are sent to this collector.
///
/// # Errors
/// If its URL can't be used. Whether it is there is not asked.
pub fn send_to(endpoint: Option<&str>) -> Result<(Spans, Sending), ServeError> {
    let Some(endpoint) = endpoint else { return Ok((Spans::default(), Sending(None))) };
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(SENT_WITHIN);
    let exporter = if endpoint.starts_with("https:") {
        exporter.with_tls_config(ClientTlsConfig::new().with_native_roots())
    } else {
        exporter
    };
    let unusable = |why: String| ServeError::Misfit { key: "otlp-endpoint", why: format!("{endpoint}: {why}") };
    let exporter = exporter.build().map_err(|error| unusable(error.to_string()))?;
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(env!("CARGO_PKG_NAME")).build())
        .with_batch_exporter(Told { exporter, failing: AtomicBool::new(false) })
        .build();
    tracing::info!(endpoint, "spans are sent");
    Ok((Spans::to(provider.tracer(env!("CARGO_PKG_NAME"))), Sending(Some(provider))))
}

impl Sending {
    /// Sends them until nothing goes on any more, and then what is left.
    pub async fn until(self, quiet: CancellationToken) {
        let Some(provider) = self.0 else { return };
        quiet.cancelled().await;
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSHED_WITHIN)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Sends spans, and tells when that begins to fail and when it works again. The library only tells its own log.
#[derive(Debug)]
struct Told {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl Exporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => tracing::warn!(%error, "spans can't be sent and are dropped"),
            Ok(()) if failed_before => tracing::info!("spans can be sent again"),
            Err(_) | Ok(()) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
