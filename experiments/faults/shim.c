/* Counts the changes that a process makes to files below a folder. At a chosen one it kills the
 * process, stops it, or lets the call fail. Loaded with LD_PRELOAD: it sees what goes through libc,
 * Lance's Rust included, and no raw system calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define KILLED 137
#define MOST_FILES 65536
#define LONGEST_PATH 512

enum fault { KILL_BEFORE, KILL_AMID, STOP, FAIL_ONCE, FAIL_FROM_THEN_ON };
enum end { WORKS, FAILS, IS_THE_LAST };

static char folder[LONGEST_PATH];
static enum fault fault;
static long chosen;
static int error_number;
static atomic_long n_changes;
static unsigned char is_ours[MOST_FILES]; /* by descriptor: open for writing, below the folder */

void shim_disarm(void) { folder[0] = 0; }
long shim_count(void) { return atomic_load(&n_changes); }
void shim_arm(const char *below, long change, int what, int number) {
    chosen = change;
    fault = what;
    error_number = number;
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
    errno = error_number;
    return FAILS;
}

#define REAL(name) ({ \
        static __typeof__(&name) real; \
        real = real ? real : (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
        real; \
    })

/* Returns what a call returns; counts it first if it changes a file below the folder. */
#define CHANGE(is_change, call) do { \
        enum end end = (is_change) ? count_change() : WORKS; \
        if (end == FAILS) return -1; \
        __typeof__(call) result = (call); \
        if (end == IS_THE_LAST) _exit(KILLED); \
        return result; \
    } while (0)

/* Removing a file needs no room: where calls fail it neither fails nor counts. */
#define IS_REMOVAL(path) (fault < FAIL_ONCE && is_below(path))

static int noted(int file, const char *path, int flags) {
    if (has_entry(file)) is_ours[file] = is_below(path) && (flags & (O_WRONLY | O_RDWR));
    return file;
}

#define OPENED(call) do { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        CHANGE(is_below(path) && (flags & O_CREAT), noted(call, path, flags)); \
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
    enum end end = is_written(file) ? count_change() : WORKS;
    if (end == FAILS) return -1;
    ssize_t n_written = REAL(write)(file, bytes, end == IS_THE_LAST ? n_bytes / 2 : n_bytes);
    if (end == IS_THE_LAST) _exit(KILLED);
    return n_written;
}
ssize_t writev(int file, const struct iovec *parts, int n_parts) {
    CHANGE(is_written(file), REAL(writev)(file, parts, n_parts));
}
ssize_t pwrite64(int file, const void *bytes, size_t n_bytes, off64_t offset) {
    CHANGE(is_written(file), REAL(pwrite64)(file, bytes, n_bytes, offset));
}

int rename(const char *old, const char *new) { CHANGE(is_below(new), REAL(rename)(old, new)); }
int renameat(int a, const char *old, int b, const char *new) {
    CHANGE(is_below(new), REAL(renameat)(a, old, b, new));
}
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) {
    CHANGE(is_below(new), REAL(renameat2)(a, old, b, new, flags));
}
int link(const char *old, const char *new) { CHANGE(is_below(new), REAL(link)(old, new)); }
int linkat(int a, const char *old, int b, const char *new, int flags) {
    CHANGE(is_below(new), REAL(linkat)(a, old, b, new, flags));
}
int mkdir(const char *path, mode_t mode) { CHANGE(is_below(path), REAL(mkdir)(path, mode)); }
int rmdir(const char *path) { CHANGE(IS_REMOVAL(path), REAL(rmdir)(path)); }
int unlink(const char *path) { CHANGE(IS_REMOVAL(path), REAL(unlink)(path)); }
int unlinkat(int at, const char *path, int flags) {
    CHANGE(IS_REMOVAL(path), REAL(unlinkat)(at, path, flags));
}
