"""A certificate authority for the tests, by OpenSSL's command line. Java's brokers read its files as PEM stores."""

import datetime
import pathlib
import subprocess

DAY = datetime.timedelta(days=1)

CONFIG = """\
[ca]
default_ca = own
[own]
new_certs_dir = {home}/issued
database = {home}/index.txt
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = copy
x509_extensions = other
[any]
commonName = supplied
[req]
distinguished_name = name
prompt = no
[name]
[other]
basicConstraints = critical,CA:false
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
"""


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Authority:
    def __init__(self, home, name):
        self.home = pathlib.Path(home) / name
        (self.home / "issued").mkdir(parents=True)
        (self.home / "index.txt").touch()
        self.config = self.home / "openssl.cnf"
        self.config.write_text(CONFIG.format(home=self.home))
        self.certificate, self.key = self.home / "ca.pem", self.home / "ca.key"
        openssl(
            *("req", "-x509", "-config", self.config, "-extensions", "authority", "-subj", f"/CN={name}"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"),
            *("-keyout", self.key, "-out", self.certificate),
        )

    def issue(self, name, alt_names=(), begins=-DAY, ends=30 * DAY):
        """Certificate and key of `name`, as files."""
        certificate, key, request = (self.home / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        alt = ("-addext", "subjectAltName=" + ",".join(alt_names)) if alt_names else ()
        openssl(
            *("req", "-new", "-config", self.config, "-subj", f"/CN={name}", *alt),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", request),
        )
        now = datetime.datetime.now(datetime.timezone.utc)
        begins, ends = ((now + when).strftime("%Y%m%d%H%M%SZ") for when in (begins, ends))
        openssl(
            *("ca", "-batch", "-config", self.config, "-cert", self.certificate, "-keyfile", self.key, "-notext"),
            *("-startdate", begins, "-enddate", ends, "-in", request, "-out", certificate),
        )
        return certificate, key

    def store(self, name, **how):
        """The same as one file: what Java calls a PEM key store."""
        certificate, key = self.issue(name, **how)
        store = self.home / f"{name}.store.pem"
        store.write_text(key.read_text() + certificate.read_text() + self.certificate.read_text())
        return store
