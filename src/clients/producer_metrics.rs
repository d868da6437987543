//! What a producer counts, under the names of Kafka's producer metrics.

use std::time::Duration;

/// What one partition counts, under its lock.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    batches: u64,
    appended: u64,
    bytes: u64,
    batch_bytes_max: u64,
    queue_us: u64,
    queue_us_max: u64,
    acknowledged: u64,
    failed: u64,
    flushes: u64,
    flush_us: u64,
    flush_us_max: u64,
}

impl Counters {
    /// A batch is appended, of so many bytes before compression, whose first record waited so long for it.
    #[inline]
    pub(super) fn batch(&mut self, records: u64, bytes: usize, queued: Duration) {
        self.batches += 1;
        self.appended += records;
        self.bytes += bytes as u64;
        self.batch_bytes_max = self.batch_bytes_max.max(bytes as u64);
        let queued = queued.as_micros() as u64;
        self.queue_us += queued;
        self.queue_us_max = self.queue_us_max.max(queued);
    }

    #[inline]
    pub(super) fn answered(&mut self, records: u64, well: bool) {
        *(if well { &mut self.acknowledged } else { &mut self.failed }) += records;
    }

    /// A batch was acknowledged by a flush, so long after it was appended.
    pub(super) fn flushed(&mut self, after: Duration) {
        let after = after.as_micros() as u64;
        self.flushes += 1;
        self.flush_us += after;
        self.flush_us_max = self.flush_us_max.max(after);
    }

    pub(super) fn add(&mut self, other: &Counters) {
        self.batches += other.batches;
        self.appended += other.appended;
        self.bytes += other.bytes;
        self.batch_bytes_max = self.batch_bytes_max.max(other.batch_bytes_max);
        self.queue_us += other.queue_us;
        self.queue_us_max = self.queue_us_max.max(other.queue_us_max);
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.flushes += other.flushes;
        self.flush_us += other.flush_us;
        self.flush_us_max = self.flush_us_max.max(other.flush_us_max);
    }

    pub(super) fn metrics(&self, memory: [u64; 4]) -> ProducerMetrics {
        #[allow(clippy::cast_precision_loss)] // averages
        let average = |sum: u64, count: u64, unit: f64| if count == 0 { 0.0 } else { sum as f64 / count as f64 / unit };
        let [buffer_total_bytes, buffer_available_bytes, waiting_threads, bufferpool_wait_time_ns_total] = memory;
        ProducerMetrics {
            record_send_total: self.acknowledged,
            record_error_total: self.failed,
            byte_total: self.bytes,
            batch_send_total: self.batches,
            batch_size_avg: average(self.bytes, self.batches, 1.0),
            batch_size_max: self.batch_bytes_max,
            records_per_request_avg: average(self.appended, self.batches, 1.0),
            record_size_avg: average(self.bytes, self.appended, 1.0),
            record_queue_time_avg: average(self.queue_us, self.batches, 1000.0),
            record_queue_time_max: average(self.queue_us_max, 1, 1000.0),
            request_latency_avg: average(self.flush_us, self.flushes, 1000.0),
            request_latency_max: average(self.flush_us_max, 1, 1000.0),
            buffer_total_bytes,
            buffer_available_bytes,
            waiting_threads,
            bufferpool_wait_time_ns_total,
        }
    }
}

/// What a producer did since it was opened. The fields have the names of Kafka's producer metrics, with `_` for `-`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ProducerMetrics {
    /// Records acknowledged, as `acks` asks for it; with `acks=0` those appended.
    pub record_send_total: u64,
    /// Records taken that were not acknowledged: failed, purged, or cut off by a close.
    pub record_error_total: u64,
    /// Bytes of the batches appended, before compression.
    pub byte_total: u64,
    /// Batches appended.
    pub batch_send_total: u64,
    /// Bytes of a batch, on average, before compression.
    pub batch_size_avg: f64,
    /// Bytes of the largest batch, before compression.
    pub batch_size_max: u64,
    /// Records of a batch, on average: a request is one batch here.
    pub records_per_request_avg: f64,
    /// Bytes of a record, on average, with its share of the batch's header.
    pub record_size_avg: f64,
    /// Milliseconds from a batch's first record to its append, on average.
    pub record_queue_time_avg: f64,
    /// The same at most.
    pub record_queue_time_max: f64,
    /// Milliseconds from the append to the end of the flush that acknowledged it, on average; 0 but with `acks=all`.
    pub request_latency_avg: f64,
    /// The same at most.
    pub request_latency_max: f64,
    /// `buffer.memory`.
    pub buffer_total_bytes: u64,
    /// How much of it is free.
    pub buffer_available_bytes: u64,
    /// Calls of `send` that wait for some.
    pub waiting_threads: u64,
    /// Nanoseconds that calls of `send` have waited for some.
    pub bufferpool_wait_time_ns_total: u64,
}

impl ProducerMetrics {
    /// Each metric under Kafka's name, for a program that exports them.
    pub fn entries(&self) -> [(&'static str, f64); 16] {
        #[allow(clippy::cast_precision_loss)] // counts beyond 2^53 are rounded
        let count = |number: u64| number as f64;
        [
            ("record-send-total", count(self.record_send_total)),
            ("record-error-total", count(self.record_error_total)),
            ("byte-total", count(self.byte_total)),
            ("batch-send-total", count(self.batch_send_total)),
            ("batch-size-avg", self.batch_size_avg),
            ("batch-size-max", count(self.batch_size_max)),
            ("records-per-request-avg", self.records_per_request_avg),
            ("record-size-avg", self.record_size_avg),
            ("record-queue-time-avg", self.record_queue_time_avg),
            ("record-queue-time-max", self.record_queue_time_max),
            ("request-latency-avg", self.request_latency_avg),
            ("request-latency-max", self.request_latency_max),
            ("buffer-total-bytes", count(self.buffer_total_bytes)),
            ("buffer-available-bytes", count(self.buffer_available_bytes)),
            ("waiting-threads", count(self.waiting_threads)),
            ("bufferpool-wait-time-ns-total", count(self.bufferpool_wait_time_ns_total)),
        ]
    }
}
