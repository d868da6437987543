#!/usr/bin/env python3
"""A caller in plain Python: everything it knows of libedgelog it reads from edgelog.h, then appends, reads and follows.

    from_header.py edgelog.h libedgelog.so DIRECTORY
"""

import ctypes
import re
import select
import sys
import threading

checks = 0


def check(what, message="check"):
    global checks
    if not what:
        print(f"{message}: {edgelog.edgelog_last_error().decode()}")
        print(f"checks: {checks} passed, 1 failed")
        sys.exit(1)
    checks += 1


class Header:
    """Types, constants and functions of the header, as ctypes has them."""

    SCALARS = {
        "size_t": ctypes.c_size_t, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64,
        "uint64_t": ctypes.c_uint64, "uint8_t": ctypes.c_uint8, "int": ctypes.c_int, "edgelog_result": ctypes.c_int32,
    }

    def __init__(self, path, library):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", open(path).read(), flags=re.S)
        text = text.split("#ifndef EDGELOG_H_INLINE")[0]
        self.types = dict(self.SCALARS)
        for name, value in re.findall(r"(EDGELOG_\w+)(?: =)? (-?\d+)", text):
            setattr(self, name, int(value))
        text = " ".join(line for line in text.splitlines() if not line.startswith("#"))
        for name in re.findall(r"typedef struct (\w+) \1;", text):
            self.types[name] = type(name, (ctypes.Structure,), {})
        for body, name in re.findall(r"typedef struct \{([^}]*)\} (\w+);", text):
            fields = [self.field(field) for field in body.split(";") if field.strip()]
            self.types[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
        for returns, name, parameters in re.findall(r"typedef (\w+) \(\*(\w+)\)\(([^)]*)\);", text):
            self.types[name] = ctypes.CFUNCTYPE(self.type_of(returns), *map(self.declared, parameters.split(",")))
        for returns, name, parameters in re.findall(r"[;{}]\s+([\w ]+\*?)\s*(edgelog_\w+)\(([^)]*)\)(?=;)", text):
            function = getattr(library, name)
            function.restype = self.type_of(returns)
            parameters = [] if parameters.strip() == "void" else parameters.split(",")
            function.argtypes = [self.declared(parameter) for parameter in parameters]
            setattr(self, name, function)

    def type_of(self, text):
        stars = text.count("*")
        name = text.replace("*", "").replace("const", "").strip()
        if name == "void":
            return ctypes.c_void_p if stars else None
        if name == "char" and stars == 1:
            return ctypes.c_char_p
        kind = self.types[name]
        for _ in range(stars):
            kind = ctypes.POINTER(kind)
        return kind

    def declared(self, text):
        kind, _ = re.fullmatch(r"\s*(.*?)(\w+)\s*", text).groups()
        return self.type_of(kind)

    def field(self, text):
        kind, name, count = re.fullmatch(r"\s*(.*?)(\w+)(?:\[(\d+)\])?\s*", " ".join(text.split())).groups()
        kind = self.type_of(kind)
        return name, kind * int(count) if count else kind

    def new(self, name):
        """A struct with its size, as EDGELOG_INIT makes it."""
        value = self.types[name]()
        value.size = ctypes.sizeof(value)
        return value

    def bytes_of(self, data):
        if data is None:
            return self.types["edgelog_bytes"]()
        buffer = ctypes.create_string_buffer(data, max(len(data), 1))
        lent = self.types["edgelog_bytes"](ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8)), len(data))
        lent.keeps = buffer
        return lent

    @staticmethod
    def text_of(lent):
        return ctypes.string_at(lent.data, lent.len) if lent.data else None

    def handle(self, function, *arguments):
        """Calls a function whose last argument is a new handle."""
        out = function.argtypes[-1]._type_()
        check(function(*arguments, ctypes.byref(out)) == self.EDGELOG_OK, function.__name__)
        return out


edgelog = Header(sys.argv[1], ctypes.CDLL(sys.argv[2]))
version = re.search(r'#define EDGELOG_VERSION "(.*)"', open(sys.argv[1]).read()).group(1)
check(edgelog.edgelog_version().decode() == version)
check(edgelog.edgelog_version_number() == edgelog.EDGELOG_VERSION_NUMBER)

store = edgelog.handle(edgelog.edgelog_store_open, sys.argv[3].encode(), None)
pair = edgelog.types["edgelog_key_value"]
config = (pair * 1)(pair(b"retention.ms", b"60000"))
check(edgelog.edgelog_store_create_topic(store, b"python", 1, config, 1) == edgelog.EDGELOG_OK)
log = edgelog.handle(edgelog.edgelog_store_log, store, b"python", 0)


def append(value, key=None, headers=()):
    record, info = edgelog.new("edgelog_new_record"), edgelog.new("edgelog_append_info")
    header = edgelog.types["edgelog_header"]
    # A struct copies what it is given: the buffers behind have to be kept by other hands until the call is over.
    lent = [edgelog.bytes_of(part) for part in (key, value)]
    lent_headers = [(edgelog.bytes_of(key), edgelog.bytes_of(value)) for key, value in headers]
    record.key, record.value = lent
    record.headers = (header * max(len(headers), 1))(*(header(key, value) for key, value in lent_headers))
    record.header_count = len(headers)
    result = edgelog.edgelog_log_append(log, record, edgelog.EDGELOG_DURABILITY_DEFAULT, info)
    check(result == edgelog.EDGELOG_OK, "append")
    return info.base_offset


def read(batch):
    record, header = edgelog.new("edgelog_record"), edgelog.types["edgelog_header"]()
    while edgelog.edgelog_batch_next(batch, record) == edgelog.EDGELOG_OK:
        headers = []
        while edgelog.edgelog_batch_next_header(batch, header) == edgelog.EDGELOG_OK:
            headers.append((edgelog.text_of(header.key), edgelog.text_of(header.value)))
        yield record.offset, edgelog.text_of(record.key), edgelog.text_of(record.value), headers
    edgelog.edgelog_batch_free(batch)


check(append(b"21.5", b"flow", [(b"unit", b"celsius"), (b"raw", None)]) == 0)
check(append(None, b"flow") == 1)
check(append(b"") == 2)
reader = edgelog.handle(edgelog.edgelog_reader_new, log, edgelog.EDGELOG_FROM_EARLIEST, 0, None)
seen = []
batch = ctypes.POINTER(edgelog.types["edgelog_batch"])()
while edgelog.edgelog_reader_next(reader, ctypes.byref(batch)) == edgelog.EDGELOG_OK:
    seen += read(batch)
expected = [
    (0, b"flow", b"21.5", [(b"unit", b"celsius"), (b"raw", None)]),
    (1, b"flow", None, []),
    (2, None, b"", []),
]
check(seen == expected, f"read {seen}")

# Following: by a timeout, and by the descriptor while another thread appends.
check(edgelog.edgelog_reader_wait(reader, 1, ctypes.byref(batch)) == edgelog.EDGELOG_END)
descriptor = ctypes.c_int()
check(edgelog.edgelog_reader_get_fd(reader, ctypes.byref(descriptor)) == edgelog.EDGELOG_OK)
thread = threading.Thread(target=append, args=(b"later",))
thread.start()
followed = []
while not followed:
    check(select.select([descriptor.value], [], [], 60)[0], "the descriptor became readable")
    if edgelog.edgelog_reader_next(reader, ctypes.byref(batch)) == edgelog.EDGELOG_OK:
        followed += read(batch)
thread.join()
check(followed == [(3, None, b"later", [])], f"followed {followed}")

# An error in words and fields.
check(edgelog.edgelog_reader_seek(reader, edgelog.EDGELOG_FROM_OFFSET, 99) == edgelog.EDGELOG_OFFSET_OUT_OF_RANGE)
info = edgelog.new("edgelog_error_info")
check(edgelog.edgelog_last_error_info(info) == edgelog.EDGELOG_OK and info.offset == 99 and info.log_end_offset == 4)
check(b"99" in edgelog.edgelog_last_error())
check(edgelog.edgelog_result_name(info.result) == b"OFFSET_OUT_OF_RANGE")

# A callback: what a truncation reports.
reported = []
callback = edgelog.types["edgelog_log_callback"](lambda user_data, level, text: reported.append(edgelog.text_of(text)))
check(edgelog.edgelog_set_log_callback(callback, None, edgelog.EDGELOG_LOG_INFO) == edgelog.EDGELOG_OK)
check(edgelog.edgelog_log_truncate(log, 2, None) == edgelog.EDGELOG_OK)
check(any(b"truncated" in line for line in reported), f"reported {reported}")
no_callback = edgelog.types["edgelog_log_callback"]()
check(edgelog.edgelog_set_log_callback(no_callback, None, edgelog.EDGELOG_LOG_INFO) == edgelog.EDGELOG_OK)

edgelog.edgelog_reader_free(reader)
edgelog.edgelog_log_free(log)
check(edgelog.edgelog_store_close(store) == edgelog.EDGELOG_OK)
edgelog.edgelog_store_free(store)
print(f"checks: {checks} passed, 0 failed")
