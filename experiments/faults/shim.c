/* Counts the changes that a process makes to files below a folder. At a chosen one it kills the
 * process, stops it, lets the call fail, or lets the clock jump. It can write all of them into a
 * log, with what was flushed to the disk. Loaded with LD_PRELOAD: it sees what goes through libc,
 * Lance's Rust included, and no raw system calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define KILLED 137
#define MOST_FILES 65536
#define LONGEST_PATH 512

enum fault { KILL_BEFORE, KILL_AMID, STOP, FAIL_ONCE, FAIL_FROM_THEN_ON, JUMP };
enum end { WORKS, FAILS, IS_THE_LAST };

static char folder[LONGEST_PATH];
static enum fault fault;
static long chosen;
static int number; /* of the error, or of seconds that the clock jumps */
static atomic_long seconds_ahead;
static atomic_long n_changes;
static unsigned char is_ours[MOST_FILES]; /* by descriptor: open for writing, below the folder */

static int record = -1; /* descriptor of the log */
static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER;

void shim_disarm(void) { folder[0] = 0; }
long shim_count(void) { return atomic_load(&n_changes); }
void shim_jump(int seconds) { atomic_fetch_add(&seconds_ahead, seconds); }
void shim_arm(const char *below, long change, int what, int error_or_seconds) {
    chosen = change;
    fault = what;
    number = error_or_seconds;
    atomic_store(&n_changes, 0);
    snprintf(folder, LONGEST_PATH, "%s", below);
}

static int is_below(const char *path) {
    return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0;
}
static int has_entry(int file) { return file >= 0 && file < MOST_FILES; }
static int is_written(int file) { return has_entry(file) && is_ours[file]; }

/* Counts a change and, if it is the chosen one, does what was chosen. */
static enum end count_change(void) {
    long change = atomic_fetch_add(&n_changes, 1) + 1;
    if (change < chosen || (change > chosen && fault != FAIL_FROM_THEN_ON)) return WORKS;
    if (fault == KILL_BEFORE) _exit(KILLED);
    if (fault == KILL_AMID) return IS_THE_LAST;
    if (fault == STOP) {
        kill(getpid(), SIGSTOP);
        return WORKS;
    }
    if (fault == JUMP) {
        shim_jump(number);
        return WORKS;
    }
    errno = number;
    return FAILS;
}

#define REAL(name) ({ \
        static __typeof__(&name) real; \
        real = real ? real : (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        real; \
    })

/* The log has for each change: what, path, second path, offset or number of the file, flags or
 * length, and the bytes. */
struct entry {
    char what;
    char path[LONGEST_PATH], other[LONGEST_PATH];
    long offset, number;
};

void shim_record(const char *log) {
    record = log ? REAL(open)(log, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
}
static void put(char what, const char *path, const char *other, long offset, long n, const void *bytes) {
    struct entry entry = {.what = what, .offset = offset, .number = n};
    snprintf(entry.path, LONGEST_PATH, "%s", path);
    snprintf(entry.other, LONGEST_PATH, "%s", other);
    REAL(write)(record, &entry, sizeof entry);
    if (bytes) REAL(write)(record, bytes, n);
}
static void put_file(char what, int file, long offset, long n, const void *bytes) {
    char link[64], path[LONGEST_PATH] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, LONGEST_PATH - 1);
    if (length > 0 && is_below(path)) put(what, path, "", offset, n, bytes);
}

static void put_parts(int file, long offset, const struct iovec *parts, int n_parts) {
    for (int part = 0; part < n_parts; part++) {
        put_file('w', file, offset, parts[part].iov_len, parts[part].iov_base);
        offset += parts[part].iov_len;
    }
}
static void put_opened(const char *path, int file, int flags) {
    struct stat status;
    if (fstat(file, &status) == 0) put('o', path, "", status.st_ino, flags, NULL);
}

/* Returns what a call returns; counts it first if it changes a file below the folder, and puts it
 * into the log in the order in which the changes happened. */
#define CHANGE(is_change, call, log) do { \
        int changes = (is_change); \
        enum end end = changes ? count_change() : WORKS; \
        if (end == FAILS) return -1; \
        int logs = record >= 0 && changes; \
        if (logs) pthread_mutex_lock(&recording); \
        __typeof__(call) result = (call); \
        if (logs) { \
            int error = errno; \
            if (result >= 0) log; \
            pthread_mutex_unlock(&recording); \
            errno = error; \
        } \
        if (end == IS_THE_LAST) _exit(KILLED); \
        return result; \
    } while (0)

/* Removing a file needs no room: where calls fail it neither fails nor counts. */
#define IS_REMOVAL(path) (fault != FAIL_ONCE && fault != FAIL_FROM_THEN_ON && is_below(path))

static int noted(int file, const char *path, int flags) {
    if (has_entry(file)) is_ours[file] = is_below(path) && (flags & (O_WRONLY | O_RDWR));
    return file;
}

#define OPENED(call) do { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        CHANGE(is_below(path) && (flags & O_CREAT), noted(call, path, flags), put_opened(path, result, flags)); \
    } while (0)
int open(const char *path, int flags, ...) { OPENED(REAL(open)(path, flags, mode)); }
int open64(const char *path, int flags, ...) { OPENED(REAL(open64)(path, flags, mode)); }
int openat(int at, const char *path, int flags, ...) { OPENED(REAL(openat)(at, path, flags, mode)); }
int openat64(int at, const char *path, int flags, ...) { OPENED(REAL(openat64)(at, path, flags, mode)); }

int close(int file) {
    if (has_entry(file)) is_ours[file] = 0;
    return REAL(close)(file);
}

ssize_t write(int file, const void *bytes, size_t n_bytes) {
    if (record < 0 || !is_written(file)) {
        enum end end = is_written(file) ? count_change() : WORKS;
        if (end == FAILS) return -1;
        ssize_t n_written = REAL(write)(file, bytes, end == IS_THE_LAST ? n_bytes / 2 : n_bytes);
        if (end == IS_THE_LAST) _exit(KILLED);
        return n_written;
    }
    off_t offset = lseek(file, 0, SEEK_CUR);
    CHANGE(1, REAL(write)(file, bytes, n_bytes), put_file('w', file, offset, result, bytes));
}
ssize_t writev(int file, const struct iovec *parts, int n_parts) {
    off_t offset = is_written(file) ? lseek(file, 0, SEEK_CUR) : 0;
    CHANGE(is_written(file), REAL(writev)(file, parts, n_parts), put_parts(file, offset, parts, n_parts));
}
ssize_t pwritev(int file, const struct iovec *parts, int n_parts, off_t offset) {
    CHANGE(is_written(file), REAL(pwritev)(file, parts, n_parts, offset), put_parts(file, offset, parts, n_parts));
}
ssize_t pwritev64(int file, const struct iovec *parts, int n_parts, off64_t offset) {
    CHANGE(is_written(file), REAL(pwritev64)(file, parts, n_parts, offset), put_parts(file, offset, parts, n_parts));
}
ssize_t pwrite(int file, const void *bytes, size_t n_bytes, off_t offset) {
    CHANGE(is_written(file), REAL(pwrite)(file, bytes, n_bytes, offset), put_file('w', file, offset, result, bytes));
}
ssize_t pwrite64(int file, const void *bytes, size_t n_bytes, off64_t offset) {
    CHANGE(is_written(file), REAL(pwrite64)(file, bytes, n_bytes, offset), put_file('w', file, offset, result, bytes));
}

int fsync(int file) {
    CHANGE(record >= 0, REAL(fsync)(file), put_file('s', file, 0, 0, NULL));
}
int fdatasync(int file) {
    CHANGE(record >= 0, REAL(fdatasync)(file), put_file('s', file, 0, 0, NULL));
}

#define RENAMED(call) CHANGE(is_below(new), call, put('r', old, new, 0, 0, NULL))
int rename(const char *old, const char *new) { RENAMED(REAL(rename)(old, new)); }
int renameat(int a, const char *old, int b, const char *new) { RENAMED(REAL(renameat)(a, old, b, new)); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) {
    RENAMED(REAL(renameat2)(a, old, b, new, flags));
}
#define LINKED(call) CHANGE(is_below(new), call, put('l', old, new, 0, 0, NULL))
int link(const char *old, const char *new) { LINKED(REAL(link)(old, new)); }
int linkat(int a, const char *old, int b, const char *new, int flags) {
    LINKED(REAL(linkat)(a, old, b, new, flags));
}
int mkdir(const char *path, mode_t mode) {
    CHANGE(is_below(path), REAL(mkdir)(path, mode), put('m', path, "", 0, 0, NULL));
}
#define REMOVED(call) CHANGE(IS_REMOVAL(path), call, put('u', path, "", 0, 0, NULL))
int rmdir(const char *path) { REMOVED(REAL(rmdir)(path)); }
int unlink(const char *path) { REMOVED(REAL(unlink)(path)); }
int unlinkat(int at, const char *path, int flags) { REMOVED(REAL(unlinkat)(at, path, flags)); }

/* The clock, ahead by the seconds that it jumped; the one for measuring time does not jump. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += atomic_load(&seconds_ahead);
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    now->tv_sec += atomic_load(&seconds_ahead);
    return result;
}
time_t time(time_t *seconds) {
    time_t now = REAL(time)(NULL) + atomic_load(&seconds_ahead);
    if (seconds) *seconds = now;
    return now;
}
