//! Kafka's protocol, from the client's side: requests with their versions and response checks, connections, TLS and
//! SASL, the brokers of a cluster and its coordinators.
//!
//! This room knows nothing of logs, nor of what is sent. The bridge stands on it; what reads from a cluster can, too.

mod api;
mod brokers;
mod cluster;
mod connection;
mod coordinator;
mod error;
mod error_code;
mod group_offsets;
mod link;
mod retry;
mod sasl;
mod schema;
mod security;
mod stop;
mod stream;
#[cfg(test)]
pub(crate) mod test_broker;
mod tls;

#[cfg(fuzzing)]
pub use api::decode_answer;
pub(crate) use brokers::Role;
pub(crate) use cluster::{Cluster, RemoteTopic, is_cluster_id};
pub(crate) use connection::Transport;
pub(crate) use coordinator::{CoordinatorKey, CoordinatorRequest};
pub(crate) use error::{KafkaError, Result, Words, check, keep_worse};
pub(crate) use error_code::Class;
pub use error_code::Code;
pub(crate) use group_offsets::{GroupOffset, commit_request};
pub(crate) use link::IN_FLIGHT_MAX;
pub(crate) use retry::Backoff;
pub(crate) use security::{Protocol, Security, TokenCallback};
pub use stop::StopHandle;
pub(crate) use tls::TlsClient;
