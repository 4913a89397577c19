//! Telemetry of a process: logs on stderr, and spans to a collector if one is named.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Options of logs and spans.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs and spans")]
pub struct Telemetry {
    /// Log level, or levels per module (`info,engine=debug`).
    #[arg(
        long = "log",
        global = true,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "info",
        value_parser = filter
    )]
    pub filter: String,

    /// Format of log lines.
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "LONGSHORE_LOG_FORMAT",
        default_value = "plain"
    )]
    pub log_format: LogFormat,

    /// Address of an OpenTelemetry collector that takes OTLP over gRPC, such as
    /// `http://127.0.0.1:4317`. Without it no span leaves the process.
    #[arg(
        long = "otlp-endpoint",
        global = true,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT"
    )]
    pub otlp_endpoint: Option<String>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

/// Spans on their way to a collector.
#[derive(Debug)]
pub struct Spans(Option<SdkTracerProvider>);

impl Telemetry {
    /// Starts logging, and exporting spans where a collector is named. To be called within the
    /// runtime, once per process.
    ///
    /// # Errors
    /// A collector's address that cannot be used, or a second call.
    pub fn start(&self, name: &'static str) -> anyhow::Result<Spans> {
        let filter = EnvFilter::try_new(&self.filter).context("reading the log filter")?;
        // A variable that is set and empty means the same as one that is not.
        let provider = match self.otlp_endpoint.as_deref() {
            None | Some("") => None,
            Some(endpoint) => Some(exporter(name, endpoint)?),
        };
        let spans = provider
            .as_ref()
            .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(name)));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && !no_color());
        let lines = match self.log_format {
            LogFormat::Plain => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry()
            .with(spans)
            .with(lines)
            .with(filter)
            .try_init()
            .context("starting the log")?;
        Ok(Spans(provider))
    }
}

impl Spans {
    /// Sends the remaining spans; a missing collector is no reason to fail.
    pub fn flush(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown()) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

fn exporter(name: &'static str, endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("exporting spans to {endpoint}"))?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(name).build())
        .build())
}

/// <https://no-color.org>: any value that is not empty.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anything_starts() {
        for good in ["info", "debug", "off", "warn,engine=debug", "info,transfer::store=trace"] {
            assert_eq!(filter(good), Ok(good.to_owned()));
        }
        for bad in ["engine=loud", "info,=,="] {
            assert!(filter(bad).is_err(), "{bad:?} was taken");
        }
    }
}
