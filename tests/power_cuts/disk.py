"""A disk with a volatile write cache, as an NBD server on a unix socket.

What is written stays in the cache until a FLUSH is answered, or until a write with FUA is answered, for that write
alone. When the power is cut, each write that is still in the cache is kept, dropped, or torn: of a torn write each
sector of 512 bytes (or of 4096, where that is asked for) is kept or dropped by itself. Requests that wait at the same
time are carried out in random order: a flush covers what was answered before it, and by chance some of what was not.

Two sparse files: `current` is what the running machine sees, `durable` what is on the disk.
"""

import os
import select
import socket
import struct
import threading

SECTOR = 512
NBD_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC, ANSWER_MAGIC = 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPTION_EXPORT_NAME, OPTION_ABORT, OPTION_INFO, OPTION_GO = 1, 2, 6, 7
REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED = 1, 3, (1 << 31) | 1
INFO_EXPORT = 0
# Flags are there, FLUSH and FUA are obeyed.
TRANSMISSION_FLAGS = 1 | 4 | 8
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FLAG_FUA = 1
REQUEST = struct.Struct(">IHHQQI")
REQUEST_BYTES_MAX = 32 << 20
EINVAL = 22
# So many writes and flushes may pass until there is enough in the cache for a cut.
PATIENCE = 150


class Disk:
    """One disk over many boots. `random` decides when the power goes and what stays."""

    def __init__(self, home, size, random, *, unit=SECTOR, whole=(), lies=False):
        """A torn write is kept or dropped by `unit` bytes. `whole` are ranges (at, count) whose writes are never torn:
        the superblock of a file system that takes it for one unit. A disk that `lies` answers flushes and makes
        nothing durable."""
        self.home, self.size, self.random, self.whole, self.lies = home, size, random, whole, lies
        self.unit = unit
        self.current = os.open(home / "current", os.O_RDWR | os.O_CREAT, 0o644)
        self.durable = os.open(home / "durable", os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self.current, size)
        os.ftruncate(self.durable, size)
        # In the cache: (number, at, bytes), oldest first.
        self.cached = []
        # Sector -> the number of the last write with FUA to it: older writes to it are no more.
        self.last_fua = {}
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = None
        self.reset_counts()

    def reset_counts(self):
        self.writes = self.flushes = self.fuas = 0
        self.left = None

    def close(self):
        os.close(self.current)
        os.close(self.durable)

    # --- power ---

    def power_on(self, path):
        """Serves one connection on a socket at `path`, in a thread of its own."""
        self.stopped.clear()
        self.reset_counts()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        self.wake, wake = os.pipe()
        self.waker = wake
        self.thread = threading.Thread(target=self.serve, args=(listener,), daemon=True)
        self.thread.start()

    def arm(self, effects, cached_min=0):
        """The power goes at the write or flush that is so many behind this moment; that one is not answered. Or a
        little later, when so many writes are in the cache."""
        with self.lock:
            self.left, self.cached_min = effects, cached_min

    def stop(self):
        """Answers nothing any more, from now on."""
        self.stopped.set()
        os.write(self.waker, b"x")

    def power_off(self):
        """Decides what is left of the cache. To be called when the machine is dead. Returns what became of it."""
        self.stop()
        self.thread.join()
        os.close(self.wake)
        os.close(self.waker)
        counts = {"writes": self.writes, "flushes": self.flushes, "fuas": self.fuas, "unflushed": len(self.cached)}
        counts.update(kept_sectors=0, dropped_sectors=0, torn=0)
        kept_share = self.random.choice((0.0, 0.2, 0.5, 0.5, 0.8, 1.0))
        torn_share = self.random.choice((0.0, 0.4, 0.8))
        # A disk that lies is at some moment of the past, whole. So the file system is sound, and only records are gone.
        past = self.random.randrange(len(self.cached) + 1) if self.lies else None
        for index, (number, at, data) in enumerate(self.cached):
            sectors = len(data) // SECTOR
            if past is not None:
                keep = [index < past] * sectors
            elif self.random.random() < torn_share and not self.is_whole(at, len(data)):
                by_unit = {}
                units = [(at + n * SECTOR) // self.unit for n in range(sectors)]
                keep = [by_unit.setdefault(unit, self.random.random() < 0.5) for unit in units]
                counts["torn"] += any(keep) and not all(keep)
            else:
                keep = [self.random.random() < kept_share] * sectors
            for n in range(sectors):
                if self.last_fua.get(at // SECTOR + n, -1) > number:
                    continue
                if keep[n]:
                    counts["kept_sectors"] += 1
                    os.pwrite(self.durable, data[n * SECTOR : (n + 1) * SECTOR], at + n * SECTOR)
                else:
                    counts["dropped_sectors"] += 1
        for _, at, data in self.cached:
            os.pwrite(self.current, os.pread(self.durable, len(data), at), at)
        self.cached.clear()
        self.last_fua.clear()
        return counts

    def is_whole(self, at, count):
        return any(first <= at and at + count <= first + length for first, length in self.whole)

    # --- the protocol ---

    def serve(self, listener):
        with listener:
            if self.wait(listener) is None:
                return
            connection, _ = listener.accept()
        with connection:
            try:
                if self.negotiate(connection):
                    self.answer_requests(connection)
            except (ConnectionError, EOFError):
                # The machine is gone.
                pass

    def wait(self, sock, seconds=None):
        """The socket, when something has come; None when the power is gone or the time is up."""
        ready, _, _ = select.select([sock, self.wake], [], [], seconds)
        return sock if sock in ready and not self.stopped.is_set() else None

    @staticmethod
    def exactly(connection, count):
        data = b""
        while len(data) < count:
            more = connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def negotiate(self, connection):
        connection.sendall(NBD_MAGIC + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        self.exactly(connection, 4)
        while True:
            magic, option, length = struct.unpack(">8sII", self.exactly(connection, 16))
            if magic != OPTION_MAGIC or length > 4096:
                return False
            self.exactly(connection, length)

            def reply(kind, data=b""):
                connection.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

            if option == OPTION_EXPORT_NAME:
                connection.sendall(struct.pack(">QH", self.size, TRANSMISSION_FLAGS))
                return True
            if option in (OPTION_GO, OPTION_INFO):
                reply(REPLY_INFO, struct.pack(">HQH", INFO_EXPORT, self.size, TRANSMISSION_FLAGS))
                reply(REPLY_ACK)
                if option == OPTION_GO:
                    return True
            elif option == OPTION_ABORT:
                reply(REPLY_ACK)
                return False
            else:
                reply(REPLY_UNSUPPORTED)

    def answer_requests(self, connection):
        buffer, waiting = bytearray(), []
        while True:
            # All that has come is looked at before one of it is chosen.
            if self.wait(connection, 0 if waiting else None):
                data = connection.recv(1 << 20)
                if not data:
                    return
                buffer += data
                self.parse(buffer, waiting)
            elif self.stopped.is_set():
                break
            elif waiting:
                request = waiting.pop(self.random.randrange(len(waiting)))
                if request[0] == DISCONNECT:
                    return
                answer = self.carry_out(*request)
                if answer is None:
                    break
                connection.sendall(answer)
        # Without power, what was on its way may have come to the disk, or a part of it.
        for kind, _, _, at, _, data in waiting:
            if kind == WRITE:
                self.take(at, data)
        # The connection stays open until the machine is dead: an error would be an answer.
        while connection.recv(1 << 20):
            pass

    @staticmethod
    def parse(buffer, waiting):
        while len(buffer) >= REQUEST.size:
            magic, flags, kind, handle, at, length = REQUEST.unpack_from(buffer)
            assert magic == REQUEST_MAGIC and length <= REQUEST_BYTES_MAX
            end = REQUEST.size + (length if kind == WRITE else 0)
            if len(buffer) < end:
                return
            waiting.append((kind, flags, handle, at, length, bytes(buffer[REQUEST.size : end])))
            del buffer[:end]

    def take(self, at, data):
        assert at % SECTOR == 0 and len(data) % SECTOR == 0
        self.writes += 1
        os.pwrite(self.current, data, at)
        self.cached.append((self.writes, at, data))

    def carry_out(self, kind, flags, handle, at, length, data):
        """The answer; None when the power has gone meanwhile."""
        good = struct.pack(">IIQ", ANSWER_MAGIC, 0, handle)
        if kind == READ:
            return good + os.pread(self.current, length, at)
        if kind not in (WRITE, FLUSH):
            return struct.pack(">IIQ", ANSWER_MAGIC, EINVAL, handle)
        if kind == WRITE:
            self.take(at, data)
        with self.lock:
            if self.left is not None:
                self.left -= 1
                if self.left <= 0 and (len(self.cached) >= self.cached_min or self.left <= -PATIENCE):
                    self.stopped.set()
                    return None
        if kind == FLUSH:
            self.flushes += 1
            if not self.lies:
                for _, place, written in self.cached:
                    self.put(place, written)
                self.cached.clear()
                self.last_fua.clear()
        elif flags & FLAG_FUA:
            self.fuas += 1
            if not self.lies:
                number, _, _ = self.cached.pop()
                os.pwrite(self.durable, data, at)
                for sector in range(at // SECTOR, (at + len(data)) // SECTOR):
                    self.last_fua[sector] = number
        return good

    def put(self, at, data):
        """To the disk: the last state, which `current` has, also where a later write with FUA has been there."""
        os.pwrite(self.durable, os.pread(self.current, len(data), at), at)
