"""The keys of librdkafka: kind, what is allowed, default.

Facts of librdkafka's CONFIGURATION.md. What a key does here, if anything, says `_config`.
"""

# key | kind | range or words | default
TABLE = """\
builtin.features|flags|gzip, snappy, ssl, sasl, regex, lz4, sasl_plain, sasl_scram, plugins, zstd, sasl_oauthbearer|
client.id|str||rdkafka
metadata.broker.list|str||
bootstrap.servers|str||
message.max.bytes|int|1000..1000000000|1000000
message.copy.max.bytes|int|0..1000000000|65535
receive.message.max.bytes|int|1000..2147483647|100000000
max.in.flight.requests.per.connection|int|1..1000000|1000000
max.in.flight|int|1..1000000|1000000
metadata.recovery.strategy|enum|none, rebootstrap|rebootstrap
metadata.recovery.rebootstrap.trigger.ms|int|0..2147483647|300000
topic.metadata.refresh.interval.ms|int|-1..3600000|300000
metadata.max.age.ms|int|1..86400000|900000
topic.metadata.refresh.fast.interval.ms|int|1..60000|100
topic.metadata.refresh.fast.cnt|int|0..1000|10
topic.metadata.refresh.sparse|bool|true, false|true
topic.metadata.propagation.max.ms|int|0..3600000|30000
topic.blacklist|str||
debug|flags||
socket.timeout.ms|int|10..300000|60000
socket.blocking.max.ms|int|1..60000|1000
socket.send.buffer.bytes|int|0..100000000|0
socket.receive.buffer.bytes|int|0..100000000|0
socket.keepalive.enable|bool|true, false|false
socket.nagle.disable|bool|true, false|true
socket.max.fails|int|0..1000000|1
broker.address.ttl|int|0..86400000|1000
broker.address.family|enum|any, v4, v6|any
socket.connection.setup.timeout.ms|int|1000..2147483647|30000
connections.max.idle.ms|int|0..2147483647|0
reconnect.backoff.jitter.ms|int|0..3600000|0
reconnect.backoff.ms|int|0..3600000|100
reconnect.backoff.max.ms|int|0..3600000|10000
statistics.interval.ms|int|0..86400000|0
enabled_events|int|0..2147483647|0
error_cb|api||
throttle_cb|api||
stats_cb|api||
log_cb|api||
log_level|int|0..7|6
log.queue|bool|true, false|false
log.thread.name|bool|true, false|true
enable.random.seed|bool|true, false|true
log.connection.close|bool|true, false|true
background_event_cb|api||
socket_cb|api||
connect_cb|api||
closesocket_cb|api||
open_cb|api||
resolve_cb|api||
opaque|api||
default_topic_conf|api||
internal.termination.signal|int|0..128|0
api.version.request|bool|true, false|true
api.version.request.timeout.ms|int|1..300000|10000
api.version.fallback.ms|int|0..604800000|0
broker.version.fallback|str||0.10.0
allow.auto.create.topics|bool|true, false|false
security.protocol|enum|plaintext, ssl, sasl_plaintext, sasl_ssl|plaintext
ssl.cipher.suites|str||
ssl.curves.list|str||
ssl.sigalgs.list|str||
ssl.key.location|str||
ssl.key.password|str||
ssl.key.pem|str||
ssl_key|api||
ssl.certificate.location|str||
ssl.certificate.pem|str||
ssl_certificate|api||
ssl.ca.location|str||
https.ca.location|str||
https.ca.pem|str||
ssl.ca.pem|str||
ssl_ca|api||
ssl.ca.certificate.stores|str||Root
ssl.crl.location|str||
ssl.keystore.location|str||
ssl.keystore.password|str||
ssl.providers|str||
ssl.engine.location|str||
ssl.engine.id|str||dynamic
ssl_engine_callback_data|api||
enable.ssl.certificate.verification|bool|true, false|true
ssl.endpoint.identification.algorithm|enum|none, https|https
ssl.certificate.verify_cb|api||
sasl.mechanisms|str||GSSAPI
sasl.mechanism|str||GSSAPI
sasl.kerberos.service.name|str||kafka
sasl.kerberos.principal|str||kafkaclient
sasl.kerberos.kinit.cmd|str||
sasl.kerberos.keytab|str||
sasl.kerberos.min.time.before.relogin|int|0..86400000|60000
sasl.username|str||
sasl.password|str||
sasl.oauthbearer.config|str||
enable.sasl.oauthbearer.unsecure.jwt|bool|true, false|false
oauthbearer_token_refresh_cb|api||
sasl.oauthbearer.method|enum|default, oidc|default
sasl.oauthbearer.client.id|str||
sasl.oauthbearer.client.credentials.client.id|str||
sasl.oauthbearer.client.credentials.client.secret|str||
sasl.oauthbearer.client.secret|str||
sasl.oauthbearer.scope|str||
sasl.oauthbearer.extensions|str||
sasl.oauthbearer.token.endpoint.url|str||
sasl.oauthbearer.sub.claim.name|str||sub
sasl.oauthbearer.grant.type|enum|client_credentials, urn:ietf:params:oauth:grant-type:jwt-bearer|client_credentials
sasl.oauthbearer.assertion.algorithm|enum|RS256, ES256|RS256
sasl.oauthbearer.assertion.private.key.file|str||
sasl.oauthbearer.assertion.private.key.passphrase|str||
sasl.oauthbearer.assertion.private.key.pem|str||
sasl.oauthbearer.assertion.file|str||
sasl.oauthbearer.assertion.claim.aud|str||
sasl.oauthbearer.assertion.claim.exp.seconds|int|1..2147483647|300
sasl.oauthbearer.assertion.claim.iss|str||
sasl.oauthbearer.assertion.claim.jti.include|bool|true, false|false
sasl.oauthbearer.assertion.claim.nbf.seconds|int|0..2147483647|60
sasl.oauthbearer.assertion.claim.sub|str||
sasl.oauthbearer.assertion.jwt.template.file|str||
sasl.oauthbearer.metadata.authentication.type|enum|none, azure_imds, aws_iam|none
plugin.library.paths|str||
interceptors|api||
group.id|str||
group.instance.id|str||
partition.assignment.strategy|str||range,roundrobin
session.timeout.ms|int|1..3600000|45000
heartbeat.interval.ms|int|1..3600000|3000
group.protocol.type|str||consumer
group.protocol|enum|classic, consumer|classic
group.remote.assignor|str||
coordinator.query.interval.ms|int|1..3600000|600000
max.poll.interval.ms|int|1..86400000|300000
enable.auto.commit|bool|true, false|true
auto.commit.interval.ms|int|0..86400000|5000
enable.auto.offset.store|bool|true, false|true
queued.min.messages|int|1..10000000|100000
queued.max.messages.kbytes|int|1..2097151|65536
fetch.wait.max.ms|int|0..300000|500
fetch.queue.backoff.ms|int|0..300000|1000
fetch.message.max.bytes|int|1..1000000000|1048576
max.partition.fetch.bytes|int|1..1000000000|1048576
fetch.max.bytes|int|0..2147483135|52428800
fetch.min.bytes|int|0..2147483647|1
fetch.error.backoff.ms|int|0..300000|500
offset.store.method|enum|none, file, broker|broker
isolation.level|enum|read_uncommitted, read_committed|read_committed
consume_cb|api||
rebalance_cb|api||
offset_commit_cb|api||
enable.partition.eof|bool|true, false|false
check.crcs|bool|true, false|false
client.rack|str||
max.poll.records|int|1..2147483647|500
share.acknowledgement.mode|str||implicit
transactional.id|str||
transaction.timeout.ms|int|1000..2147483647|60000
enable.idempotence|bool|true, false|false
enable.gapless.guarantee|bool|true, false|false
queue.buffering.max.messages|int|0..2147483647|100000
queue.buffering.max.kbytes|int|1..2147483647|1048576
queue.buffering.max.ms|float|0..900000|5
linger.ms|float|0..900000|5
message.send.max.retries|int|0..2147483647|2147483647
retries|int|0..2147483647|2147483647
retry.backoff.ms|int|1..300000|100
retry.backoff.max.ms|int|1..300000|1000
queue.buffering.backpressure.threshold|int|1..1000000|1
compression.codec|enum|none, gzip, snappy, lz4, zstd|none
compression.type|enum|none, gzip, snappy, lz4, zstd|none
batch.num.messages|int|1..1000000|10000
batch.size|int|1..2147483647|1000000
delivery.report.only.error|bool|true, false|false
dr_cb|api||
dr_msg_cb|api||
sticky.partitioning.linger.ms|int|0..900000|10
client.dns.lookup|enum|use_all_dns_ips, resolve_canonical_bootstrap_servers_only|use_all_dns_ips
enable.metrics.push|bool|true, false|true
request.required.acks|int|-1..1000|-1
acks|int|-1..1000|-1
request.timeout.ms|int|1..900000|30000
message.timeout.ms|int|0..2147483647|300000
delivery.timeout.ms|int|0..2147483647|300000
queuing.strategy|enum|fifo, lifo|fifo
produce.offset.report|bool|true, false|false
partitioner|str||consistent_random
partitioner_cb|api||
msg_order_cmp|api||
compression.level|int|-1..12|-1
auto.commit.enable|bool|true, false|true
auto.offset.reset|enum|smallest, earliest, beginning, largest, latest, end, error|largest
offset.store.path|str||.
offset.store.sync.interval.ms|int|-1..86400000|-1
consume.callback.max.messages|int|0..1000000|0
"""

# Another name | the one under which librdkafka reports it
ALIASES = {
    "acks": "request.required.acks",
    "bootstrap.servers": "metadata.broker.list",
    "compression.type": "compression.codec",
    "delivery.timeout.ms": "message.timeout.ms",
    "linger.ms": "queue.buffering.max.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes": "fetch.message.max.bytes",
    "retries": "message.send.max.retries",
    "sasl.mechanism": "sasl.mechanisms",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
}
