// The header in C++: a handle in an owner that frees it, errors as exceptions, a range over records.
#include <edgelog.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

struct Free {
    void operator()(edgelog_store *store) const { edgelog_store_free(store); }
    void operator()(edgelog_log *log) const { edgelog_log_free(log); }
    void operator()(edgelog_reader *reader) const { edgelog_reader_free(reader); }
    void operator()(edgelog_batch *batch) const { edgelog_batch_free(batch); }
};
template <typename T> using Handle = std::unique_ptr<T, Free>;

struct Failed : std::runtime_error {
    edgelog_result result;
    explicit Failed(edgelog_result given) : std::runtime_error(edgelog_last_error()), result(given) {}
};

void check(edgelog_result result) {
    if (result != EDGELOG_OK) throw Failed(result);
}

// Calls a function whose last argument is a new handle.
template <typename T, typename Call> Handle<T> made(Call call) {
    T *handle = nullptr;
    check(call(&handle));
    return Handle<T>(handle);
}

int run(const char *dir) {
    auto store = made<edgelog_store>([&](edgelog_store **out) { return edgelog_store_open(dir, nullptr, out); });
    check(edgelog_store_create_topic(store.get(), "t", 1, nullptr, 0));
    auto log = made<edgelog_log>([&](edgelog_log **out) { return edgelog_store_log(store.get(), "t", 0, out); });
    for (int i = 0; i < 3; i++) {
        const std::string value = "value " + std::to_string(i);
        auto record = EDGELOG_INIT(edgelog_new_record);
        record.value = edgelog_bytes_of(value.data(), value.size());
        auto info = EDGELOG_INIT(edgelog_append_info);
        check(edgelog_log_append(log.get(), &record, EDGELOG_DURABILITY_DEFAULT, &info));
        if (info.base_offset != i) return 1;
    }
    auto reader = made<edgelog_reader>([&](edgelog_reader **out) {
        return edgelog_reader_new(log.get(), EDGELOG_FROM_EARLIEST, 0, nullptr, out);
    });
    Handle<edgelog_store> moved = std::move(store);
    int seen = 0;
    edgelog_batch *next = nullptr;
    while (edgelog_reader_next(reader.get(), &next) == EDGELOG_OK) {
        Handle<edgelog_batch> batch(next);
        auto record = EDGELOG_INIT(edgelog_record);
        while (edgelog_batch_next(batch.get(), &record) == EDGELOG_OK) {
            const std::string value(reinterpret_cast<const char *>(record.value.data), record.value.len);
            if (value != "value " + std::to_string(seen++)) return 1;
        }
    }
    try {
        check(edgelog_store_create_topic(moved.get(), "t", 1, nullptr, 0));
        return 1;
    } catch (const Failed &failed) {
        if (failed.result != EDGELOG_TOPIC_ALREADY_EXISTS) return 1;
    }
    return seen == 3 ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    int failed = 1;
    try {
        failed = run(argv[1]);
    } catch (const std::exception &error) {
        std::printf("%s\n", error.what());
    }
    std::printf("checks: %d passed, %d failed\n", 1 - failed, failed);
    return failed;
}
