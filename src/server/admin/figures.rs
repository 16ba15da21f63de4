//! All metrics by name, and how they are written. Their labels have as many values as this page and the protos name:
//! nothing that a caller chooses is ever one.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::key::Verdict;
use crate::domain::time::Timestamp;
use crate::metrics::{BOUNDS, Distribution};
use crate::rpc::timings::Timing;
use crate::service::survey::{Ending, Survey};
use crate::store::Work;

/// What all names begin with.
const PREFIX: &str = "ostiary";

/// Everything that is told, at one moment.
#[derive(Debug)]
pub struct Figures {
    /// How long calls have taken.
    pub timings: Vec<Timing>,
    /// Calls under way.
    pub under_way: u32,
    /// Calls that were refused because too many were under way.
    pub shed: u64,
    /// Connections.
    pub connections: u32,
    /// Verifications, in the order of [`Verdict::NAMES`].
    pub verdicts: [u64; Verdict::NAMES.len()],
    /// Records that were remembered.
    pub hits: u64,
    /// Records that had to be read.
    pub misses: u64,
    /// What the store has done.
    pub work: Work,
    /// Whether it takes changes.
    pub writable: bool,
    /// How large its file is, if that can be told.
    pub store_bytes: Option<u64>,
    /// How late the sweep is, if that can be told.
    pub behind: Option<Duration>,
    /// Windows of rate limits that are counted.
    pub windows: usize,
    /// How often one more was refused.
    pub windows_refused: u64,
    /// What the last look through the store has found, if there was one.
    pub survey: Option<Survey>,
    /// When the certificate in use expires, if one is in use.
    pub certificate_until: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
    /// When the server started.
    pub started: Timestamp,
}

impl Figures {
    /// As text.
    ///
    /// # Errors
    /// None that writing to memory has.
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        text::encode(&mut page, &registry)?;
        Ok(page)
    }

    fn of_calls(&self, page: &mut Page<'_>) -> fmt::Result {
        let (name, help) = ("rpc_duration", "How long calls took until their answers began, by method and code.");
        let mut family = page.metric(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for Timing { method, code, took } in &self.timings {
            histogram(family.encode_family(&[("method", *method), ("code", *code)])?, took)?;
        }
        page.gauge("calls_under_way", "Calls whose answers are not all told.", None, self.under_way.into())?;
        page.counter("calls_shed", "Calls refused at once because too many were under way.", self.shed)?;
        page.gauge("connections", "Connections that are open.", None, self.connections.into())?;
        let outcomes = Verdict::NAMES.iter().zip(&self.verdicts);
        let outcomes: Vec<_> = outcomes.map(|(name, number)| ([("outcome", *name)], *number)).collect();
        page.counters("verifications", "Answers about keys by what they came to, dry runs included.", &outcomes)
    }

    fn of_the_store(&self, page: &mut Page<'_>) -> fmt::Result {
        let Work { commits, transactions, interactive, background } = self.work;
        let reads = [([("result", "hit")], self.hits), ([("result", "miss")], self.misses)];
        page.counters("cache_reads", "Records asked for: remembered ones, and those read from the store.", &reads)?;
        page.counter("store_commits", "Times that changes were made durable, many of them at once.", commits)?;
        page.counter("store_transactions", "Changes that were made durable.", transactions)?;
        let depths = [("interactive", interactive), ("background", background)];
        let depths = depths.map(|(priority, number)| ([("priority", priority)], number as u64));
        page.gauges("store_queue_depth", "Changes that wait for the store.", &depths)?;
        let help = "Windows of rate limits that are counted.";
        page.gauge("rate_limit_windows", help, None, self.windows as f64)?;
        let help = "Times that a window was refused because there were too many.";
        page.counter("rate_limit_windows_refused", help, self.windows_refused)?;
        page.gauge("store_writable", "Whether the store takes changes.", None, f64::from(u8::from(self.writable)))?;
        if let Some(bytes) = self.store_bytes {
            page.gauge("store_size", "The size of the store's file.", Some(&Unit::Bytes), bytes as f64)?;
        }
        if let Some(behind) = self.behind {
            let help = "How long the first thing on the schedule has been due.";
            page.gauge("sweep_lag", help, Some(&Unit::Seconds), behind.as_secs_f64())?;
        }
        Ok(())
    }

    fn of_the_survey(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(Survey { oldest_root_key, ending }) = self.survey else { return Ok(()) };
        if let Some(made) = oldest_root_key {
            let help = "The age of the oldest root key that is enabled and has not expired.";
            page.gauge("oldest_root_key_age", help, Some(&Unit::Seconds), self.now.since(made).as_secs_f64())?;
        }
        let Ending { keys, root_keys } = ending;
        let ending = [([("kind", "key")], keys), ([("kind", "root_key")], root_keys)];
        let help = "Lives that end within a day, of the first million things on the schedule.";
        page.gauges("expiring_within_day", help, &ending)
    }

    fn of_the_process(&self, page: &mut Page<'_>) -> fmt::Result {
        let started = self.started.since(Timestamp::EPOCH).as_secs_f64();
        page.gauge("start_time", "When the server started, since 1970.", Some(&Unit::Seconds), started)?;
        if let Some(until) = self.certificate_until {
            let until = until.since(Timestamp::EPOCH).as_secs_f64();
            let help = "When the certificate in use expires, since 1970.";
            page.gauge("certificate_expiry_time", help, Some(&Unit::Seconds), until)?;
        }
        let mut build = page.metric("build", "Which ostiary this is.", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        self.of_calls(page)?;
        self.of_the_store(page)?;
        self.of_the_survey(page)?;
        self.of_the_process(page)
    }
}

/// Where metrics are written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn metric(
        &mut self,
        name: &'static str,
        help: &str,
        unit: Option<&'static Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn counter(&mut self, name: &'static str, help: &str, number: u64) -> fmt::Result {
        let mut metric = self.metric(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&number, None)
    }

    fn counters(&mut self, name: &'static str, help: &str, all: &[(impl EncodeLabelSet, u64)]) -> fmt::Result {
        let mut family = self.metric(name, help, None, MetricType::Counter)?;
        for (labels, number) in all {
            family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(number, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &'static str, help: &str, unit: Option<&'static Unit>, figure: f64) -> fmt::Result {
        self.metric(name, help, unit, MetricType::Gauge)?.encode_gauge(&figure)
    }

    fn gauges(&mut self, name: &'static str, help: &str, all: &[(impl EncodeLabelSet, u64)]) -> fmt::Result {
        let mut family = self.metric(name, help, None, MetricType::Gauge)?;
        for (labels, number) in all {
            family.encode_family(labels)?.encode_gauge(number)?;
        }
        Ok(())
    }
}

fn histogram(mut metric: MetricEncoder<'_>, took: &Distribution) -> fmt::Result {
    let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(took.buckets).collect();
    metric.encode_histogram::<NoLabelSet>(took.total.as_secs_f64(), took.count(), &buckets, None)
}
