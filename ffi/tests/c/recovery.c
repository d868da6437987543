/* What opening finds after a kill: a child dies with its store open and a torn tail behind it. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    pid_t child = fork();
    if (child == 0) {
        edgelog_store *store = open_store(dir);
        edgelog_log *log = open_log(store, "boiler");
        for (int i = 0; i < 10; i++) append_text(log, "value", EDGELOG_OS);
        kill(getpid(), SIGKILL);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
    char file[4096];
    snprintf(file, sizeof file, "%s/boiler-0/00000000000000000000.log", dir);
    int fd = open(file, O_RDWR);
    CHECK(fd >= 0);
    unsigned char length[4];
    off_t end = 0;
    /* Ten batches of one record each, the base offset and a length in front of each. */
    for (int i = 0; i < 10; i++) {
        CHECK(pread(fd, length, 4, end + 8) == 4);
        end += 12 + (off_t)length[0] * 16777216 + length[1] * 65536 + length[2] * 256 + length[3];
    }
    CHECK(pwrite(fd, "torn", 4, end) == 4);
    close(fd);

    edgelog_store *store = open_store(dir);
    edgelog_recovery *recovery = NULL;
    CHECK_OK(edgelog_store_recovery(store, &recovery));
    edgelog_store_free(store);
    edgelog_recovery_summary summary = EDGELOG_INIT(edgelog_recovery_summary);
    CHECK_OK(edgelog_recovery_get_summary(recovery, &summary));
    CHECK(!summary.is_clean && summary.recovered_records == 10 && summary.cut_bytes == 4);
    CHECK(summary.log_count == 1 && summary.lost_offsets == 0 && summary.missing_count == 0);
    edgelog_bytes text = {NULL, 0};
    CHECK_OK(edgelog_recovery_get_text(recovery, &text));
    CHECK(text.len > 20);
    edgelog_recovery_of_log of_log = EDGELOG_INIT(edgelog_recovery_of_log);
    CHECK_OK(edgelog_recovery_get_log(recovery, 0, &of_log));
    CHECK(bytes_are(of_log.topic, "boiler") && of_log.partition == 0 && of_log.log_end_offset == 10);
    CHECK(of_log.recovered_records == 10 && of_log.cut_count == 1 && of_log.failure.data == NULL);
    CHECK_RESULT(edgelog_recovery_get_log(recovery, 1, &of_log), EDGELOG_END);
    edgelog_cut_tail cut = EDGELOG_INIT(edgelog_cut_tail);
    CHECK_OK(edgelog_recovery_get_cut(recovery, 0, 0, &cut));
    CHECK(bytes_are(cut.file, "boiler-0/00000000000000000000.log") && cut.position == end && cut.bytes == 4);
    CHECK(cut.kept_in.data != NULL && cut.first_valid_offset == -1);
    CHECK_RESULT(edgelog_recovery_get_cut(recovery, 0, 1, &cut), EDGELOG_END);
    CHECK_RESULT(edgelog_recovery_get_cut(recovery, UINT64_MAX, 0, &cut), EDGELOG_END);
    edgelog_lost_range lost = EDGELOG_INIT(edgelog_lost_range);
    CHECK_RESULT(edgelog_recovery_get_lost(recovery, 0, 0, &lost), EDGELOG_END);
    edgelog_recovery_partition partition = EDGELOG_INIT(edgelog_recovery_partition);
    CHECK_RESULT(edgelog_recovery_get_partition(recovery, EDGELOG_PARTITION_MISSING, 0, &partition), EDGELOG_END);
    CHECK_RESULT(edgelog_recovery_get_partition(recovery, 3, 0, &partition), EDGELOG_INVALID_ARGUMENT);
    edgelog_recovery_free(recovery);

    /* A partition that was removed from outside. */
    char command[5000];
    snprintf(command, sizeof command, "rm -r '%s/boiler-0'", dir);
    CHECK(system(command) == 0);
    store = open_store(dir);
    CHECK_OK(edgelog_store_recovery(store, &recovery));
    CHECK_OK(edgelog_recovery_get_partition(recovery, EDGELOG_PARTITION_MISSING, 0, &partition));
    CHECK(bytes_are(partition.topic, "boiler") && partition.partition == 0 && partition.reason.data == NULL);
    edgelog_recovery_free(recovery);
    edgelog_store_free(store);
    return all_passed();
}
