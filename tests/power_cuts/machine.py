"""The virtual machine: what it is made of, how it boots, and how it is talked to.

The kernel is Debian's, booted without a disk of its own: an initramfs has busybox, the modules, and both programs with
their libraries. Three ports of a virtio console lead out of it: one for orders, and one for each writer.
"""

import ctypes
import lzma
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# The system's tools that all this needs.
PACKAGES = (
    *("qemu-system-x86", "busybox-static", "kmod", "e2fsprogs", "xfsprogs", "f2fs-tools", "btrfs-progs"),
    *("dosfstools", "exfatprogs"),
)
# The smaller cloud kernel has no f2fs.
KERNEL_PACKAGE = "linux-image-amd64"
XZ_MAGIC = b"\xfd7zXZ\x00"
ELF_MAGIC = b"\x7fELF"
# Modules that the kernel asks for by a name that is no symbol, so that no dependency shows them.
ALWAYS = ("virtio_pci", "virtio_console", "virtio_rng", "virtio_blk", "crc32c_generic", "crc32_generic")
MODULES = {
    "ext4": ("ext4",),
    "xfs": ("xfs",),
    "f2fs": ("f2fs",),
    "btrfs": ("btrfs",),
    "vfat": ("nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1", "vfat"),
    "exfat": ("nls_utf8", "exfat"),
}
MEMORY_MIB = 512
# An emulated machine on a busy host is slow; what takes longer than this hangs.
ANSWER_SECONDS_MAX = 180
PROBE_SECONDS_MAX = 30
WRITERS = 2


class PowerCut(Exception):
    """The disk has stopped: nothing more is to be expected from the machine."""


class Hangs(Exception):
    """Nothing came for too long."""


def die_with_parent():
    """So that no machine outlives this program, however it ends: PR_SET_PDEATHSIG is 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def tool(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, words))}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# --- what it is made of -----------------------------------------------------------------------------------------------


def prepare(work, install):
    """Fetches the kernel to `work`, and installs the system's tools where that is wanted (both by apt-get)."""
    if install:
        tool("apt-get", "install", "-y", "--no-install-recommends", *PACKAGES)
    home = work / "kernel"
    if not (home / "boot").is_dir():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        package = re.search(r"Depends: (linux-image-\S+)", tool("apt-cache", "depends", KERNEL_PACKAGE)).group(1)
        tool("apt-get", "download", package, cwd=home)
        tool("dpkg", "-x", next(home.glob("*.deb")), home)
    kernel = next((home / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    tool("depmod", "-b", home, version)
    return home, version


def unpacked_kernel(home, version, work):
    """The kernel without its compression, which an emulated processor would take seconds for."""
    packed = (home / "boot" / f"vmlinuz-{version}").read_bytes()
    at = packed.find(XZ_MAGIC)
    if at >= 0:
        plain = lzma.LZMADecompressor().decompress(packed[at:])
        if plain.startswith(ELF_MAGIC):
            (work / "vmlinux").write_bytes(plain)
            return work / "vmlinux"
    return home / "boot" / f"vmlinuz-{version}"


def modules_of(home, version, names):
    """The files of these modules and of all that they need, in the order in which they are to be loaded."""
    files = []
    for name in names:
        for line in tool("modprobe", "-d", home, "-S", version, "--show-depends", name).splitlines():
            kind, _, path = line.partition(" ")
            if kind == "insmod" and pathlib.Path(path.strip()) not in files:
                files.append(pathlib.Path(path.strip()))
    return files


def libraries_of(program):
    return {path for path in re.findall(r"(?:=>\s|^\s+)(/\S+)", tool("ldd", program), re.MULTILINE)}


def archive(entries, path):
    """Writes an initramfs: a cpio of the kind `newc`. Entries are (name, mode, bytes, device)."""
    with open(path, "wb") as out:
        for number, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], 1):
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
            out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))


class Parts:
    """Kernel, initramfs and the modules of each file system, made again in `work`."""

    def __init__(self, work, edgelog, writer, install):
        home, self.version = prepare(work, install)
        self.kernel = unpacked_kernel(home, self.version, work)
        self.initramfs = work / "initramfs"
        always = modules_of(home, self.version, ALWAYS)
        wanted = {name: modules_of(home, self.version, names) for name, names in MODULES.items()}
        self.modules = {}
        for name, files in wanted.items():
            self.modules[name] = ",".join(path.name for path in [*always, *(f for f in files if f not in always)])
        files = {f"modules/{path.name}": path for paths in (always, *wanted.values()) for path in paths}
        files["init"] = HERE / "init"
        files["bin/busybox"] = pathlib.Path(shutil.which("busybox"))
        for program, path in (("edgelog", edgelog), ("scripted_writer", writer)):
            files[f"edgelog/{program}"] = path
            files.update({library.lstrip("/"): pathlib.Path(library) for library in libraries_of(path)})
        folders = {str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."} | {"dev"}
        entries = [(folder, stat.S_IFDIR | 0o755, b"", (0, 0)) for folder in sorted(folders)]
        entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
        entries += [(name, stat.S_IFREG | 0o755, path.read_bytes(), (0, 0)) for name, path in files.items()]
        archive(entries, self.initramfs)
        self.accelerator = None


# --- how it is talked to ----------------------------------------------------------------------------------------------


class Port:
    """One port of the machine, as lines and as counted bytes."""

    def __init__(self, machine, path):
        self.machine, self.buffer = machine, bytearray()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))

    def send(self, line):
        try:
            self.socket.sendall(line.encode() + b"\n")
        except OSError as e:
            raise Hangs(f"the machine ended: {e}") from e

    def take(self):
        """Reads what has come. False where the machine is gone."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def lines(self):
        """The whole lines that have come, without waiting."""
        whole, newline, rest = bytes(self.buffer).rpartition(b"\n")
        self.buffer = bytearray(rest)
        return whole.decode(errors="replace").split("\n") if newline else []

    def line(self):
        """The next line."""
        while b"\n" not in self.buffer:
            self.machine.wait_for(self)
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return line.decode(errors="replace")

    def exactly(self, count):
        while len(self.buffer) < count:
            self.machine.wait_for(self)
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data


class Machine:
    """One boot. `disk` is powered on with it, and its moment of stopping ends every waiting with PowerCut."""

    def __init__(self, parts, disk, filesystem, home, *, cached=True, accelerator=None, processors=1):
        self.disk, self.home = disk, home
        self.device = "/dev/vda"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        # A socket's path is short at most, and `home` need not be.
        sockets = self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="power-cut-"))
        disk.power_on(sockets / "disk")
        accelerator = accelerator or parts.accelerator
        words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-m", str(MEMORY_MIB), "-smp", str(processors), "-kernel", parts.kernel, "-initrd", parts.initramfs]
        words += ["-accel", "kvm", "-cpu", "host"] if accelerator == "kvm" else ["-accel", "tcg,thread=multi"]
        words += [] if accelerator == "kvm" else ["-cpu", "max"]
        words += ["-append", f"console=ttyS0 loglevel=7 panic=-1 mitigations=off modules={parts.modules[filesystem]}"]
        words += ["-serial", f"file:{home / 'console'}", "-object", "rng-random,id=random,filename=/dev/urandom"]
        words += ["-device", "virtio-rng-pci,rng=random", "-device", "virtio-serial-pci"]
        for n in range(1, WRITERS + 2):
            words += ["-chardev", f"socket,id=port{n},path={sockets / f'port{n}'},server=on,wait=off"]
            words += ["-device", f"virtserialport,chardev=port{n},nr={n}"]
        # Every flush has to reach the disk: no cache of the host stands before it.
        words += ["-blockdev", f"driver=nbd,node-name=disk,server.type=unix,server.path={sockets / 'disk'},"
                  "cache.direct=on,cache.no-flush=off"]
        # Without a cache each write has FUA: qemu asks for it, and the machine flushes nothing.
        # (qemu's nvme is not used: up to version 7.2 at least it takes FUA and leaves it out.)
        cache = "on" if cached else "off"
        words += ["-device", f"virtio-blk-pci,drive=disk,write-cache={cache},discard=off,write-zeroes=off"]
        self.log = open(home / "qemu", "wb")
        self.process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        ports = [sockets / f"port{n}" for n in range(1, WRITERS + 2)]
        while True:
            try:
                self.control, *self.writers = [Port(self, port) for port in ports]
                return
            except OSError:
                # It does not listen yet.
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise Hangs("qemu does not begin: " + (home / "qemu").read_text(errors="replace")[-500:])
            time.sleep(0.05)

    def hello(self, seconds_max=ANSWER_SECONDS_MAX):
        """Waits until it has booted. Returns the boot id."""
        deadline = time.monotonic() + seconds_max
        while b"\n" not in self.control.buffer:
            self.wait_for(self.control, seconds_max=deadline - time.monotonic())
        return self.control.line().removeprefix("hello ")

    def wait_for(self, *ports, seconds_max=ANSWER_SECONDS_MAX):
        """Waits until one of these ports has something new, and reads it."""
        deadline = time.monotonic() + seconds_max
        while True:
            ready, _, _ = select.select([port.socket for port in ports], [], [], 0.02)
            took = [port.take() for port in ports if port.socket in ready]
            if any(took):
                return
            if self.disk.stopped.is_set():
                raise PowerCut
            if took or self.process.poll() is not None:
                raise Hangs("the machine ended by itself: " + self.last_words())
            if time.monotonic() > deadline:
                raise Hangs(f"nothing from the machine for {seconds_max:.0f} s: " + self.last_words())

    def order(self, *words):
        """Runs one program. Returns its exit code, standard output and standard error."""
        self.control.send("order " + " ".join(words))
        kind, code, out, err = self.control.line().split(" ")
        assert kind == "answer"
        out, err = self.control.exactly(int(out)), self.control.exactly(int(err))
        return int(code), out.decode(errors="replace"), err.decode(errors="replace")

    def drain(self, seconds):
        """Reads what still comes: what the machine says after the disk has stopped."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([port.socket for port in self.writers], [], [], left)
            if not all([port.take() for port in self.writers if port.socket in ready]):
                return

    def last_words(self):
        return (self.home / "console").read_text(errors="replace")[-1500:]

    def end(self):
        """Kills it, and lets the disk decide what stays. Returns what the disk says."""
        self.process.kill()
        self.process.wait()
        self.log.close()
        counts = self.disk.power_off()
        shutil.rmtree(self.sockets)
        return counts


def choose_accelerator(parts, wanted, disk, home):
    """KVM where a machine boots with it, and else an emulated processor."""
    if wanted != "auto":
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    try:
        machine = Machine(parts, disk, "ext4", home, accelerator="kvm")
    except Hangs:
        return "tcg"
    try:
        machine.hello(PROBE_SECONDS_MAX)
        return "kvm"
    except Hangs:
        return "tcg"
    finally:
        machine.end()
