//! Metric families under construction, and their text.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// Label names and values of one series.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Metric families, in the order they were added.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<MetricFamily>);

impl Families {
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [(&[][..], value)]);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.gauges(name, help, [(&[][..], value)]);
    }

    pub(super) fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(float(value));
            let mut metric = labelled(labels);
            metric.set_counter(counter);
            metric
        });
        self.family(name, help, MetricType::COUNTER, metrics.collect());
    }

    pub(super) fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) {
        self.real_gauges(name, help, series.into_iter().map(|(labels, value)| (labels, float(value))));
    }

    pub(super) fn real_gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = labelled(labels);
            metric.set_gauge(gauge);
            metric
        });
        self.family(name, help, MetricType::GAUGE, metrics.collect());
    }

    /// Adds a family; one without series is left out, since the encoder refuses it.
    pub(super) fn family(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    pub(super) fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0, &mut text) {
            tracing::error!(%error, "cannot render the metrics");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// A metric with these labels and no value yet.
pub(super) fn labelled(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

/// `value` as the format has it.
#[expect(clippy::cast_precision_loss, reason = "the exposition format has floats only")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
