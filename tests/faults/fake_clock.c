/* Preloaded into a node, it shows it a wall clock that is wrong by as many seconds as the file $FAKE_CLOCK holds, as a
 * 64-bit integer of the machine. Its monotonic clock stays what it is, as when somebody sets a machine's clock.
 *
 * libfaketime does the same and more, but looks symbols up, and so allocates, the first time it is asked for the time;
 * jemalloc asks for the time while it sets itself up, and waits for itself for ever. Nothing here allocates.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *ahead_seconds;

static int64_t ahead(void) {
    const volatile int64_t *seconds = ahead_seconds;
    if (!seconds) {
        const char *path = getenv("FAKE_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        if (page == MAP_FAILED) return 0;
        ahead_seconds = seconds = page;
    }
    return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (result == 0 && now) now->tv_sec += ahead();
    return result;
}

time_t time(time_t *now) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    if (now) *now = spec.tv_sec;
    return spec.tv_sec;
}
