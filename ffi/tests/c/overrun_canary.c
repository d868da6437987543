/* Must fail under AddressSanitizer: says that a value is longer than it is, which only the library reads. */
#include "check.h"

int main(int argc, char **argv) {
    edgelog_log *log = open_log(open_store(directory(argc, argv)), "t");
    char *value = malloc(100);
    CHECK(value != NULL);
    memset(value, 'x', 100);
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    record.value = edgelog_bytes_of(value, 101);
    CHECK_OK(edgelog_log_append(log, &record, EDGELOG_OS, NULL));
    free(value);
    return all_passed();
}
