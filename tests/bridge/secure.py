#!/usr/bin/env python3
"""The bridge against a Kafka broker that trusts no client: TLS, mutual TLS, every SASL mechanism, and an authorizer.

    secure.py run STORE --expect FILE [--seed N] [--only NAME,...]

As transfer.py. Certificates and the keys that tokens are signed with are made here, with OpenSSL's command line.
OAUTHBEARER's tokens are unsigned ones, which Kafka's own validator for tests takes, and signed ones, which its
validator for use takes (RS256, with the keys in a file).
"""

import base64
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import certificates
from harness import (
    EDGELOG,
    SAME,
    TALLY,
    UNABLE,
    Broken,
    Broker,
    Example,
    Run,
    append,
    command,
    everything_once,
    kafka,
    main,
    tail,
    values_of,
)

DAY = certificates.DAY
USER = "press"
PASSWORDS = {
    "PLAIN": "open-sesame-plain",
    "SCRAM-SHA-256": "open sesame 256 \u00fc",
    "SCRAM-SHA-512": "open-sesame-512",
    "rotated": "open-sesame-rotated",
}
SESSION_MS = 1500

# Each a listener of its own, on an address of its own, by which its port is found.
LISTENERS = {
    "TLS": ("127.0.0.2", "SSL"),
    "MUTUAL": ("127.0.0.3", "SSL"),
    "EXPIRED": ("127.0.0.4", "SSL"),
    "ELSEWHERE": ("127.0.0.5", "SSL"),
    "SASL": ("127.0.0.6", "SASL_SSL"),
    "SHORT": ("127.0.0.7", "SASL_PLAINTEXT"),
    "SIGNED": ("127.0.0.8", "SASL_PLAINTEXT"),
}
LOGIN_MODULES = {
    "PLAIN": f'plain.PlainLoginModule required user_{USER}="{PASSWORDS["PLAIN"]}"',
    "SCRAM-SHA-256": "scram.ScramLoginModule required",
    "SCRAM-SHA-512": "scram.ScramLoginModule required",
    "OAUTHBEARER": 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
}


class Listener:
    """One way in, as the bridge's command line sees it."""

    def __init__(self, address, **sets):
        self.address = address
        self.sets = sets


class SecureBroker(Broker):
    """One with every listener. Kafka's tools come in by the plain one, whose users may do everything."""

    def __init__(self, home):
        self.authority = certificates.Authority(home, "authority")
        self.stranger = certificates.Authority(home, "stranger")
        names = lambda listener: ("IP:" + LISTENERS[listener][0], "DNS:localhost")  # noqa: E731
        self.renewed = self.authority.store("soon", alt_names=names("EXPIRED"))
        self.renewed = self.renewed.rename(self.renewed.with_name("renewed.pem"))
        stores = {
            "TLS": self.authority.store("broker", alt_names=names("TLS")),
            "MUTUAL": self.authority.store("mutual", alt_names=names("MUTUAL")),
            "EXPIRED": self.authority.store("soon", alt_names=names("EXPIRED"), begins=-3 * DAY, ends=-DAY),
            "ELSEWHERE": self.authority.store("elsewhere", alt_names=("DNS:elsewhere.example",)),
            "SASL": self.authority.store("sasl", alt_names=names("SASL")),
        }
        ways_in = ",".join(f"{name}://{host}:0" for name, (host, _) in LISTENERS.items())
        protocols = ",".join(f"{name}:{protocol}" for name, (_, protocol) in LISTENERS.items())
        more = {
            "listeners": f"PLAINTEXT://127.0.0.1:0,{ways_in},CONTROLLER://127.0.0.1:0",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:0,{ways_in}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
            "num.network.threads": 1,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # Those without a name: Kafka's tools, and who comes by TLS alone.
            "super.users": "User:ANONYMOUS",
            "listener.name.mutual.ssl.client.auth": "required",
            # The older one, once.
            "listener.name.elsewhere.ssl.enabled.protocols": "TLSv1.2",
            "listener.name.sasl.sasl.enabled.mechanisms": ",".join(LOGIN_MODULES),
            "listener.name.short.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.short.scram-sha-512.connections.max.reauth.ms": SESSION_MS,
        }
        for listener, store in stores.items():
            for key, value in (
                ("keystore.type", "PEM"),
                ("keystore.location", store),
                ("truststore.type", "PEM"),
                ("truststore.location", self.authority.certificate),
            ):
                more[f"listener.name.{listener.lower()}.ssl.{key}"] = value
        self.issuer, self.other_issuer = Issuer(home, "issuer"), Issuer(home, "other")
        self.key_set = pathlib.Path(home) / "jwks.json"
        self.key_set.write_text(json.dumps({"keys": [self.issuer.public()]}))
        validator = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler"
        more["listener.name.signed.sasl.enabled.mechanisms"] = "OAUTHBEARER"
        more["listener.name.signed.oauthbearer.sasl.server.callback.handler.class"] = validator
        more["sasl.oauthbearer.jwks.endpoint.url"] = self.key_set.as_uri()
        more["sasl.oauthbearer.expected.audience"] = AUDIENCE
        more["sasl.oauthbearer.expected.issuer"] = "issuer"
        for listener in ("sasl", "short", "signed"):
            for mechanism, module in LOGIN_MODULES.items():
                key = f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"
                more[key] = f"org.apache.kafka.common.security.{module};"
        scram = (f"{m}=[name={USER},password={PASSWORDS[m]}]" for m in PASSWORDS if m.startswith("SCRAM"))
        super().__init__(home, format_options=[o for one in scram for o in ("--add-scram", one)], **more)

    def start(self):
        # Where a broker may get keys from has to be allowed outside its properties.
        option = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.key_set.as_uri()}"
        os.environ["JAVA_TOOL_OPTIONS"] = option
        try:
            kafka.Broker.start(self)
        finally:
            del os.environ["JAVA_TOOL_OPTIONS"]

    def way_in(self, listener, **sets):
        host, protocol = LISTENERS[listener]
        ports = [found[1] for line in self.said if (found := re.search(rf"on {re.escape(host)}:(\d+)\.", line))]
        tls = {"ssl.ca.location": self.authority.certificate} if protocol.endswith("SSL") else {}
        return Listener(f"{host}:{ports[-1]}", **{"security.protocol": protocol, **tls, **sets})

    def by_password(self, mechanism, listener="SASL", **sets):
        who = {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": PASSWORDS[mechanism]}
        return self.way_in(listener, **{**who, **sets})

    def acl(self, *what, user=USER):
        kafka.java_ok(
            "org.apache.kafka.tools.AclCommand",
            *("--bootstrap-server", self.bootstrap, "--force", *what, "--allow-principal", f"User:{user}"),
        )

    def alter(self, kind, name, config):
        kafka.java_ok(
            "kafka.admin.ConfigCommand",
            *("--bootstrap-server", self.bootstrap, "--alter", "--entity-type", kind, "--entity-name", name),
            *("--add-config", config),
        )


# What docs/bridge.md says one has to grant: one line each.
def rights(device, topic):
    return {
        "Write on the transactional id": ("--operation", "Write", "--transactional-id", f"edgelog:{device}"),
        "Read on the groups": (
            *("--operation", "Read", "--group", f"edgelog:{device}:"),
            *("--resource-pattern-type", "prefixed"),
        ),
        "Write on the topic": ("--operation", "Write", "--topic", topic),
        "Read on the topic": ("--operation", "Read", "--topic", topic),
        "DescribeConfigs on the topic": ("--operation", "DescribeConfigs", "--topic", topic),
    }


def grant_all(broker, device, topic, user=USER):
    for right in rights(device, topic).values():
        broker.acl("--add", *right, user=user)


# --- running it -------------------------------------------------------------------------------------------------------


class Case:
    """A store with a few records, a target for them, and a device of that name."""

    def __init__(self, world, name, granted=True):
        self.world, self.broker, self.name = world, world.broker, name
        self.store = world.scratch / name
        self.values = []
        self.broker.create_topic(name, 1, retention_ms=-1)
        if granted:
            grant_all(self.broker, name, name)
        self.more()

    def more(self, count=20):
        more = [f"{self.name} {len(self.values) + n}" for n in range(count)]
        append(self.store, "t", more)
        self.values += more

    def run(self, way_in, **sets):
        sets = {**way_in.sets, "reconnect.backoff.max.ms": 300, **sets}
        run = Run(command(self.store, way_in, self.name, self.name, topics="t", **sets))
        return run

    def arrives(self, way_in, **sets):
        run = self.run(way_in, **sets).expect(0)
        keeps_secrets(run)
        self.all_there()
        return run

    def all_there(self):
        found = values_of(self.broker.consume_all(self.name))
        if found != self.values:
            raise Broken(f"{self.name}: expected {len(self.values)} records, found {len(found)}")


def reason_with(run, *words, kind="retrying"):
    """Waits for an event of that kind whose reason has all of these words. Returns the reason."""
    while (event := run.next_event()) is not None:
        if event["event"] == kind and all(word in event["reason"] for word in words):
            return event["reason"]
    said = "\n".join(map(json.dumps, run.events[-10:]))
    raise Broken(f"the bridge ended without {words} in an event {kind!r}:\n{said}\n{tail(bytes(run.errors))}")


def keeps_secrets(run):
    """Nothing that it said holds a password."""
    said = bytes(run.errors).decode() + json.dumps(run.events, ensure_ascii=False)
    for secret in PASSWORDS.values():
        if secret in said:
            raise Broken(f"it said a password: {said}")


AUDIENCE = "kafka"


def encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims(seconds=600, **more):
    now = int(time.time())
    return {"sub": USER, "iat": now - 1, "exp": now + seconds, **more}


def joined(*parts):
    return ".".join(encoded(json.dumps(part).encode()) for part in parts)


def token(seconds=600):
    """One without a signature."""
    return joined({"alg": "none"}, claims(seconds)) + "."


class Issuer:
    """Who signs tokens."""

    def __init__(self, home, name):
        self.name, self.key = name, pathlib.Path(home) / f"{name}.key.pem"
        certificates.openssl("genrsa", "-out", self.key, "2048")

    def public(self):
        """Its key as JSON (RFC 7517)."""
        said = subprocess.run(
            ["openssl", "rsa", "-in", self.key, "-noout", "-modulus"], check=True, capture_output=True
        ).stdout.decode()
        modulus = bytes.fromhex(said.strip().partition("=")[2])
        return {"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": encoded(modulus), "e": "AQAB"}

    def token(self, seconds=600, **more):
        text = joined({"alg": "RS256", "kid": "1"}, claims(seconds, **{"iss": self.name, "aud": AUDIENCE, **more}))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(), check=True, capture_output=True
        ).stdout
        return f"{text}.{encoded(signed)}"


# --- the tests --------------------------------------------------------------------------------------------------------


def tls(world):
    """All of a mixed workload, encrypted."""
    world.create_targets("s.")
    store, way_in = world.copy("tls"), world.broker.way_in("TLS")
    Run(command(store, way_in, "tls", "s.{topic}", **SAME, **way_in.sets)).expect(0)
    return everything_once(world.broker, world.expected, "s.")


def mutual_tls(world):
    """The device's certificate is its name; without one, and with one of a CA that the broker does not know, the bridge
    says so."""
    broker, case = world.broker, Case(world, "mutual", granted=False)
    grant_all(broker, case.name, case.name, user="CN=device")
    certificate, key = broker.authority.issue("device")
    other, other_key = broker.stranger.issue("device")
    way_in = broker.way_in("MUTUAL")
    run = case.run(way_in)
    reason_with(run, "does not accept this device's certificate")
    run.kill()
    # Files that are renewed under a running bridge.
    used, used_key = (pathlib.Path(shutil.copy(f, case.world.scratch / f"used.{f.suffix}")) for f in (other, other_key))
    files = {"ssl.certificate.location": used, "ssl.key.location": used_key}
    run = case.run(way_in, **files)
    reason_with(run, "does not accept this device's certificate")
    shutil.copy(certificate, used)
    shutil.copy(key, used_key)
    run.expect(0)
    case.all_there()
    run = case.run(way_in, **{**files, "ssl.key.location": other_key}).expect(1)
    if b"ssl.key.location" not in run.errors:
        raise Broken(f"a key of another certificate: {bytes(run.errors)}")
    return "1 arrives, 3 refused"


def certificates_of_brokers(world):
    """Each thing that can be wrong with a broker's certificate is reported with what to do about it, and mended under
    the running bridge."""
    broker = world.broker
    case = Case(world, "certificates")
    # A CA that is not the broker's; then its file is exchanged.
    trusted = pathlib.Path(shutil.copy(broker.stranger.certificate, world.scratch / "trusted.pem"))
    run = case.run(broker.way_in("TLS"), **{"ssl.ca.location": trusted})
    reason_with(run, "ssl.ca.location", "TLS")
    shutil.copy(broker.authority.certificate, trusted)
    run.expect(0)
    case.all_there()
    # One that has expired; then the broker gets a new one.
    case.more()
    run = case.run(broker.way_in("EXPIRED"))
    reason_with(run, "has expired", "clock")
    broker.alter("brokers", 1, f"listener.name.expired.ssl.keystore.location={broker.renewed}")
    run.expect(0)
    case.all_there()
    # One of another host.
    case.more()
    elsewhere = broker.way_in("ELSEWHERE")
    run = case.run(elsewhere)
    reason_with(run, "127.0.0.5", "elsewhere.example", "subjectAltName")
    run.kill()
    case.arrives(elsewhere, **{"ssl.endpoint.identification.algorithm": "none"})
    # Who does not ask for the name still asks for the CA; who asks for nothing gets in.
    case.more()
    stranger = {"ssl.ca.location": broker.stranger.certificate}
    run = case.run(elsewhere, **stranger, **{"ssl.endpoint.identification.algorithm": "none"})
    reason_with(run, "ssl.ca.location")
    run.kill()
    case.arrives(elsewhere, **stranger, **{"enable.ssl.certificate.verification": "false"})
    # No CA at all in the file, and no file.
    for wrong in (broker.authority.key, world.scratch / "absent.pem"):
        run = case.run(elsewhere, **{"ssl.ca.location": wrong}).expect(1)
        if b"ssl.ca.location" not in run.errors:
            raise Broken(f"{wrong}: {bytes(run.errors)}")
    return "3 reported and mended, 2 switched off"


def wrong_protocol(world):
    """TLS to a port without, and the other way round."""
    case = Case(world, "protocol")
    plain, encrypted = Listener(world.broker.bootstrap), world.broker.way_in("TLS")
    for address, protocol in ((plain.address, "SSL"), (encrypted.address, "PLAINTEXT")):
        run = case.run(Listener(address, **{**encrypted.sets, "security.protocol": protocol}))
        reason_with(run, "security.protocol")
        run.kill()
    return "2 reported"


def mechanisms(world):
    """Each mechanism gets in."""
    case = Case(world, "mechanisms")
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        case.more()
        case.arrives(world.broker.by_password(mechanism))
    case.more()
    file = world.scratch / "bearer"
    file.write_text(token() + "\n")
    bearer = {"sasl.mechanism": "OAUTHBEARER", "edgelog.sasl.oauthbearer.token.file": file}
    case.arrives(world.broker.way_in("SASL", **bearer))
    # One that has run out; then it is renewed.
    case.more()
    file.write_text(token(seconds=-60))
    run = case.run(world.broker.way_in("SASL", **bearer))
    reason_with(run, "authentication (OAUTHBEARER)")
    if file.read_text() in bytes(run.errors).decode() + json.dumps(run.events):
        raise Broken("it said a token")
    file.write_text(token())
    run.expect(0)
    case.all_there()
    run = case.run(world.broker.by_password("PLAIN", "SHORT"))
    reason_with(run, "it takes SCRAM-SHA-512")
    run.kill()
    return "4 mechanisms"


def signed_tokens(world):
    """A token that the broker's own validator holds to its issuer's key gets in. One of another issuer, one for another
    audience and one that has run out do not, until there is a better one in the file."""
    case, broker = Case(world, "signed"), world.broker
    file = world.scratch / "signed-token"
    way_in = broker.way_in("SIGNED", **{"sasl.mechanism": "OAUTHBEARER", "edgelog.sasl.oauthbearer.token.file": file})
    file.write_text(broker.issuer.token())
    case.arrives(way_in)
    wrong = {
        "another issuer": broker.other_issuer.token(iss="issuer"),
        "another audience": broker.issuer.token(aud="registry"),
        "run out": broker.issuer.token(seconds=-120),
    }
    for what, token in wrong.items():
        case.more()
        file.write_text(token)
        run = case.run(way_in)
        reason_with(run, "authentication (OAUTHBEARER)")
        if token in bytes(run.errors).decode() + json.dumps(run.events):
            raise Broken(f"{what}: it said a token")
        TALLY["faults"] += 1
        file.write_text(broker.issuer.token())
        run.expect(0)
        case.all_there()
    return f"{len(wrong)} refused"


def token_by_callback(world):
    """A program that gives its bridge tokens by a callback: asked for at each connection, and again after a wrong one.
    Its error is reported, and no token is printed."""
    case, broker = Case(world, "callback"), world.broker
    file, asked = world.scratch / "callback-token", world.scratch / "callback-asked"
    way_in = broker.way_in("SIGNED", **{"sasl.mechanism": "OAUTHBEARER"})
    sets = {
        **way_in.sets,
        "bootstrap.servers": way_in.address,
        "edgelog.device.id": case.name,
        "edgelog.bridge.topics": "t",
        "edgelog.bridge.to": case.name,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 300,
    }
    ask = f"echo asked >> {asked}; cat {file}"
    run = Example([os.environ["EDGELOG_TOKEN_EXAMPLE"], case.store, ask], sets, seconds_max=60)
    # There is no such file yet. Then it holds a token of another issuer, then a right one.
    run.until("no token: the command for it ended with")
    wrong, right = broker.other_issuer.token(iss="issuer"), broker.issuer.token()
    for token, words in ((wrong, "authentication (OAUTHBEARER)"), (right, "Committed")):
        whole = file.with_suffix(".new")
        whole.write_text(token)
        whole.replace(file)
        run.until(words)
    run.succeed()
    if wrong in run.said or right in run.said:
        raise Broken(f"it prints a token: {run.said}")
    case.all_there()
    times = asked.read_text().count("asked")
    # Two connections at least, for data and to coordinators.
    if times < 4:
        raise Broken(f"it was asked {times} times for a token: {run.said}")
    TALLY["faults"] += 2
    return f"asked {times} times"


def password_rotated(world):
    """A wrong password is reported in the broker's words, and tried again: the file is corrected, or the cluster's
    password becomes the one that is here."""
    broker, case = world.broker, Case(world, "password")
    file = world.scratch / "rotated"
    way_in = broker.by_password("SCRAM-SHA-256", **{"edgelog.sasl.password.file": file})
    del way_in.sets["sasl.password"]
    file.write_text("wrong-one\n")
    run = case.run(way_in)
    reason_with(run, "authentication (SCRAM-SHA-256)", "invalid credentials")
    file.write_text(PASSWORDS["SCRAM-SHA-256"] + "\n")
    run.expect(0)
    keeps_secrets(run)
    case.all_there()
    case.more()
    run = case.run(broker.by_password("SCRAM-SHA-512", **{"sasl.password": PASSWORDS["rotated"]}))
    reason_with(run, "authentication (SCRAM-SHA-512)", "invalid credentials")
    broker.alter("users", USER, f"SCRAM-SHA-512=[password={PASSWORDS['rotated']}]")
    run.expect(0)
    keeps_secrets(run)
    case.all_there()
    broker.alter("users", USER, f"SCRAM-SHA-512=[password={PASSWORDS['SCRAM-SHA-512']}]")
    return "2 rotated"


def sessions(world):
    """A broker that ends sessions has them renewed on the same connection, while a transfer goes on: nothing is cut."""
    case = Case(world, "sessions")
    way_in = world.broker.by_password("SCRAM-SHA-512", "SHORT")
    # A fresh cluster says that it is not ready, once.
    case.run(way_in).expect(0)
    before = len(case.values)
    sets = {**way_in.sets, "edgelog.bridge.interval.ms": 0}
    run = Run(command(case.store, way_in, case.name, case.name, topics="t", forever=True, **sets))
    started = None
    while started is None or (passed := (time.monotonic() - started) * 1000 / SESSION_MS) < 4:
        case.more()
        # One append may take two transactions, and a bridge that is ended sends no more.
        while before + run.records() < len(case.values):
            if run.next_event() is None:
                raise Broken(f"the bridge ended: {tail(bytes(run.errors))}")
        started = started or time.monotonic()
    run.process.terminate()
    run.expect(0)
    others = [event for event in run.events if event["event"] not in ("committed", "caught-up")]
    if others:
        raise Broken(f"expected nothing but commits, found {others[:3]}")
    case.all_there()
    return f"{passed:.1f} sessions, {sum(event['event'] == 'committed' for event in run.events)} transactions"


def access(world):
    """The documented rights are enough. Each one, taken away, is named, with what it is on; granted again, all goes
    on."""
    broker, name = world.broker, "access"
    case = Case(world, name)
    way_in = broker.by_password("SCRAM-SHA-512")
    case.arrives(way_in)
    needed = rights(name, name)
    # What is said where it lacks, and whether the bridge goes on by itself then.
    expected = {
        "Write on the transactional id": ("retrying", f"Write on the transactional id edgelog:{name}"),
        "Read on the groups": ("waiting", f"Read on the group edgelog:{name}:t-0"),
        "Write on the topic": ("waiting", f"Write on the topic {name}"),
        "Read on the topic": ("waiting", f"the topic {name}"),
        "DescribeConfigs on the topic": ("rules-unknown", f"DescribeConfigs on the topic {name}"),
    }
    for right, (kind, words) in expected.items():
        case.more()
        broker.acl("--remove", *needed[right])
        run = case.run(way_in)
        reason = reason_with(run, "the user needs", words, kind=kind)
        if kind == "waiting":
            run.expect(UNABLE)
        broker.acl("--add", *needed[right])
        if kind == "waiting":
            case.run(way_in).expect(0)
        else:
            run.expect(0)
        case.all_there()
        print(f"       without {right}: {reason}")
    return f"{len(expected)} rights"


def decides(world):
    """The device's own rights are enough to look at its positions and to decide about them."""
    case = Case(world, "decides")
    way_in = world.broker.by_password("SCRAM-SHA-512")
    case.arrives(way_in)
    sets = (option for key, value in way_in.sets.items() for option in ("--set", f"{key}={value}"))
    where = ("--bootstrap", way_in.address, "--device", case.name, *sets)
    for words in (("reset", "--yes"), ("status", "--json")):
        done = subprocess.run([EDGELOG, "bridge", *words, *where], capture_output=True, check=False)
        if done.returncode:
            raise Broken(f"{words} ended with {done.returncode}: {tail(done.stderr)}")
    if json.loads(done.stdout)["cluster"]["decided"] != "restart":
        raise Broken(f"the status is {done.stdout}")
    case.run(way_in).expect(0)
    # After a reset everything is sent again.
    case.values *= 2
    case.all_there()
    return f"{len(case.values)} records"


TESTS = {
    "tls": tls,
    "mutual_tls": mutual_tls,
    "certificates_of_brokers": certificates_of_brokers,
    "wrong_protocol": wrong_protocol,
    "mechanisms": mechanisms,
    "signed_tokens": signed_tokens,
    "token_by_callback": token_by_callback,
    "password_rotated": password_rotated,
    "sessions": sessions,
    "access": access,
    "decides": decides,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, SecureBroker))
