//! A simulated disk that loses power, workloads on it, and a plain model of what they were promised.

pub mod batches;
pub mod disk;
pub mod oracle;
pub mod search;
pub mod workload;
