"""A proxy between the bridge and a broker, which distinguishes requests from answers and cuts connections where a test
says so.

It listens on one port for its whole life, also when the broker behind it dies; that port is what the broker
advertises, so everything goes through it.
"""

import collections
import queue
import random
import socket
import struct
import threading
import time

PRODUCE, METADATA, OFFSET_FETCH, FIND_COORDINATOR, API_VERSIONS = 0, 3, 9, 10, 18
INIT_PRODUCER_ID, END_TXN, TXN_OFFSET_COMMIT = 22, 26, 28
NAMES = {
    PRODUCE: "Produce",
    METADATA: "Metadata",
    OFFSET_FETCH: "OffsetFetch",
    FIND_COORDINATOR: "FindCoordinator",
    API_VERSIONS: "ApiVersions",
    INIT_PRODUCER_ID: "InitProducerId",
    END_TXN: "EndTxn",
    TXN_OFFSET_COMMIT: "TxnOffsetCommit",
}

BEFORE_REQUEST = "before the request"
AMID_REQUEST = "amid the request"
AFTER_REQUEST = "after the request, before the answer"
AMID_ANSWER = "amid the answer"
PHASES = (BEFORE_REQUEST, AMID_REQUEST, AFTER_REQUEST, AMID_ANSWER)

# The next one of that kind is let through; and: the connection stays, and nothing more goes through it.
LET_THROUGH = "nothing"
SWALLOW_REQUEST = "the request never arrives"
SWALLOW_ANSWER = "the answer never arrives"


class Link:
    """A bad line: so many bytes a second in each direction for all connections together, so many seconds of latency
    each way, and each connection dies after a time that is exponentially distributed."""

    # A thread that was woken late catches up: the line was not idle meanwhile.
    LATE_SECONDS_MAX = 0.5

    def __init__(self, bytes_per_second, latency, lifetime_mean, seed):
        self.bytes_per_second, self.latency, self.lifetime_mean = bytes_per_second, latency, lifetime_mean
        self.random = random.Random(seed)
        self.free_at = {"up": 0.0, "down": 0.0}
        self.lock = threading.Lock()
        self.cuts = 0
        self.carried = collections.Counter()

    def lifetime(self):
        with self.lock:
            return self.random.expovariate(1 / self.lifetime_mean)

    def transmit(self, direction, count):
        """Returns when the line has taken so many bytes."""
        with self.lock:
            begin = max(self.free_at[direction], time.monotonic() - self.LATE_SECONDS_MAX)
            end = self.free_at[direction] = begin + count / self.bytes_per_second
            self.carried[direction] += count
        time.sleep(max(0.0, end - time.monotonic()))

    def carry(self, client, broker):
        """Carries one connection until an end closes it or its time is over; what is on the way then is lost."""
        ends = threading.Event()

        def close():
            if not ends.is_set():
                self.cuts += 1
            ends.set()
            for one in (client, broker):
                try:
                    # No orderly end: what a dead line leaves behind is silence or a reset.
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        def take(direction, source, under_way):
            try:
                while not ends.is_set() and (piece := source.recv(int(self.bytes_per_second / 20))):
                    self.transmit(direction, len(piece))
                    under_way.put((time.monotonic() + self.latency, piece))
            except OSError:
                pass
            under_way.put((time.monotonic() + self.latency, None))

        def deliver(sink, under_way):
            try:
                while True:
                    at, piece = under_way.get()
                    time.sleep(max(0.0, at - time.monotonic()))
                    if piece is None or ends.is_set():
                        break
                    sink.sendall(piece)
            except OSError:
                pass
            ends.set()
            close()

        timer = threading.Timer(self.lifetime(), close)
        timer.daemon = True
        timer.start()
        threads = []
        for direction, source, sink in (("up", client, broker), ("down", broker, client)):
            under_way = queue.Queue()
            threads.append(threading.Thread(target=take, args=(direction, source, under_way), daemon=True))
            threads.append(threading.Thread(target=deliver, args=(sink, under_way), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        timer.cancel()
        client.close()
        broker.close()


class Proxy:
    def __init__(self, address=("127.0.0.1", 0)):
        # What a line does to new connections; None: nothing.
        self.link = None
        self.listener = socket.create_server(address)
        self.accepted, self.ends = 0, []
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.upstream = None
        self.lock = threading.Condition()
        self.faults = collections.deque()
        self.injected = collections.Counter()
        threading.Thread(target=self.accept, daemon=True).start()

    def forward_to(self, port):
        self.upstream = port

    def arm(self, faults):
        """Each of these (request, phase) happens once, to the next request of that kind, in this order."""
        with self.lock:
            self.faults = collections.deque(faults)

    def left(self):
        with self.lock:
            return len(self.faults)

    def wait_injected(self, count, seconds):
        """Whether so many faults have happened in all, waiting for it."""
        with self.lock:
            return self.lock.wait_for(lambda: sum(self.injected.values()) >= count, seconds)

    def take(self, api, phases):
        """The phase of the armed fault, where it is this one's turn."""
        with self.lock:
            if self.faults and self.faults[0][0] == api and self.faults[0][1] in phases:
                fault = self.faults.popleft()
                self.injected[fault] += 1
                self.lock.notify_all()
                return fault[1]
        return None

    def close(self):
        """No connection gets through any more, and no new one gets in."""
        with self.lock:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            for one in self.ends:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.accepted += 1
                self.ends.append(client)
            try:
                broker = socket.create_connection(("127.0.0.1", self.upstream), timeout=10)
                broker.settimeout(None)
            except OSError:
                client.close()
                continue
            for one in (client, broker):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.link is not None:
                threading.Thread(target=self.link.carry, args=(client, broker), daemon=True).start()
                continue
            asked = {}
            for pump, source, sink in ((self.requests, client, broker), (self.answers, broker, client)):
                threading.Thread(target=self.run, args=(pump, source, sink, asked), daemon=True).start()

    def run(self, pump, source, sink, asked):
        try:
            pump(source, sink, asked)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def requests(self, client, broker, asked):
        swallow = False
        while frame := read_frame(client):
            if swallow:
                continue
            api, _, correlation = struct.unpack_from(">hhi", frame, 4)
            phase = self.take(api, (LET_THROUGH, BEFORE_REQUEST, AMID_REQUEST, SWALLOW_REQUEST))
            if phase == BEFORE_REQUEST:
                return
            if phase == AMID_REQUEST:
                broker.sendall(frame[: len(frame) // 2])
                return
            if phase == SWALLOW_REQUEST:
                swallow = True
                continue
            asked[correlation] = api
            broker.sendall(frame)

    def answers(self, broker, client, asked):
        swallow = False
        while frame := read_frame(broker):
            if swallow:
                continue
            (correlation,) = struct.unpack_from(">i", frame, 4)
            api = asked.pop(correlation, None)
            phase = self.take(api, (AFTER_REQUEST, AMID_ANSWER, SWALLOW_ANSWER))
            if phase == AFTER_REQUEST:
                return
            if phase == AMID_ANSWER:
                client.sendall(frame[: len(frame) // 2])
                return
            if phase == SWALLOW_ANSWER:
                swallow = True
                continue
            client.sendall(frame)


def read_frame(source):
    head = read_exactly(source, 4)
    if head is None:
        return None
    body = read_exactly(source, struct.unpack(">i", head)[0])
    return None if body is None else head + body


def read_exactly(source, count):
    data = bytearray()
    while len(data) < count:
        piece = source.recv(min(count - len(data), 1 << 16))
        if not piece:
            return None
        data += piece
    return bytes(data)
