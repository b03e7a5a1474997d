/* Intercepts the disk operations of a process: traces those on files below one folder, and can simulate a full disk.
 *
 * Loaded with LD_PRELOAD. It is active between disk_begin and disk_end. The trace contains one line per operation,
 *
 *     op inode offset length path [path]
 *
 * separated by tabs. For a write, the `length` bytes of its data follow. The stdio functions are replaced by unbuffered
 * versions, because their own calls to the kernel cannot be intercepted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static int trace = -1;
static long room = -1, taken, slow;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t put(int fd, const void *data, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, data, length);
}

void disk_begin(const char *folder, const char *path) {
    strncpy(root, folder, sizeof root - 1);
    trace = -1;
    if (path) {
        REAL(int, "open", const char *, int, ...);
        trace = real(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    taken = 0;
}

void disk_end(void) {
    root[0] = 0;
    room = -1;
    if (trace >= 0) close(trace);
    trace = -1;
}

void disk_slow(long microseconds) { slow = microseconds; }  /* duration of every fsync */
void disk_room(long writes) { room = writes; }  /* -1: no limit */
long disk_taken(void) { return taken; }

static int below(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* Returns the absolute path of `path` relative to the folder `at`, or "" if it is not below the root. */
static const char *named(int at, const char *path, char *buffer) {
    char folder[PATH_MAX] = "";
    if (!root[0]) return buffer[0] = 0, buffer;
    if (path[0] == '/') {
        snprintf(buffer, PATH_MAX, "%s", path);
    } else {
        if (at == AT_FDCWD) {
            if (!getcwd(folder, sizeof folder)) folder[0] = 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            folder[length > 0 ? length : 0] = 0;
        }
        if (snprintf(buffer, PATH_MAX, "%s/%s", folder, path) >= PATH_MAX) buffer[0] = 0;
    }
    if (!below(buffer)) buffer[0] = 0;
    return buffer;
}

static const char *opened(int fd, char *buffer) {
    char link[64];
    if (!root[0]) return buffer[0] = 0, buffer;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    if (!below(buffer)) buffer[0] = 0;
    return buffer;
}

static void tell(const char *op, long inode, long offset, long length, const char *path, const char *other,
                 const void *data) {
    if (trace < 0) return;
    char line[3 * PATH_MAX];
    int size = snprintf(line, sizeof line, "%s\t%ld\t%ld\t%ld\t%s\t%s\n", op, inode, offset, length, path, other);
    put(trace, line, size);
    if (data) put(trace, data, length);
}

void disk_mark(long number) {
    pthread_mutex_lock(&lock);
    tell("mark", number, 0, 0, "", "", NULL);
    pthread_mutex_unlock(&lock);
}

/* Counts an operation that needs disk space, and returns 1 with ENOSPC if the disk is full. */
static int full(void) {
    taken++;
    if (room < 0 || taken <= room) return 0;
    errno = ENOSPC;
    return 1;
}

static long inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? -1 : (long)found.st_ino;
}

static long size_of(int fd) {
    struct stat found;
    return fstat(fd, &found) ? -1 : (long)found.st_size;
}

#define ENTER pthread_mutex_lock(&lock)
#define LEAVE pthread_mutex_unlock(&lock)

static int open_at(int at, const char *path, int flags, mode_t mode) {
    REAL(int, "openat", int, const char *, int, ...);
    char buffer[PATH_MAX];
    const char *name = (flags & (O_CREAT | O_TRUNC)) ? named(at, path, buffer) : "";
    if (!name[0]) return real(at, path, flags, mode);
    ENTER;
    int isnew = (flags & O_CREAT) && access(name, F_OK);
    int fd = -1;
    if (!(isnew && full())) {
        fd = real(at, path, flags, mode);
        if (fd >= 0 && isnew) tell("create", inode_of(fd), 0, 0, name, "", NULL);
        else if (fd >= 0 && (flags & O_TRUNC)) tell("truncate", inode_of(fd), 0, 0, name, "", NULL);
    }
    LEAVE;
    return fd;
}

#define OPEN(symbol) \
    int symbol(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        return open_at(AT_FDCWD, path, flags, mode); \
    }
#define OPENAT(symbol) \
    int symbol(int at, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        return open_at(at, path, flags, mode); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

static FILE *open_stream(const char *path, const char *mode) {
    int flags = strchr(mode, '+') ? O_RDWR : strchr(mode, 'r') ? O_RDONLY : O_WRONLY;
    if (strchr(mode, 'w')) flags |= O_CREAT | O_TRUNC;
    if (strchr(mode, 'a')) flags |= O_CREAT | O_APPEND;
    int fd = open_at(AT_FDCWD, path, flags | O_CLOEXEC, 0666);
    return fd < 0 ? NULL : fdopen(fd, mode);
}
FILE *fopen(const char *path, const char *mode) { return open_stream(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return open_stream(path, mode); }

static ssize_t write_at(int fd, const void *data, size_t length, long offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    char buffer[PATH_MAX];
    const char *name = opened(fd, buffer);
    if (!name[0]) return offset < 0 ? put(fd, data, length) : real(fd, data, length, offset);
    ENTER;
    ssize_t done = -1;
    if (!full()) {
        long at = offset >= 0 ? offset : (fcntl(fd, F_GETFL) & O_APPEND) ? size_of(fd) : lseek(fd, 0, SEEK_CUR);
        done = offset < 0 ? put(fd, data, length) : real(fd, data, length, offset);
        if (done > 0) tell("write", inode_of(fd), at, done, name, "", data);
    }
    LEAVE;
    return done;
}
ssize_t write(int fd, const void *data, size_t length) { return write_at(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return write_at(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return write_at(fd, data, length, offset); }

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    char buffer[PATH_MAX];
    if (!opened(fileno(file), buffer)[0]) return real(data, size, count, file);
    const char *from = data;
    size_t left = size * count;
    while (left) {
        ssize_t done = write_at(fileno(file), from, left, -1);
        if (done <= 0) return (size * count - left) / size;
        from += done, left -= done;
    }
    return count;
}

/* Copies inside the kernel fail, so that the caller falls back to read and write. */
ssize_t sendfile(int out, int in, off_t *offset, size_t count) { return errno = ENOSYS, -1; }
ssize_t sendfile64(int out, int in, off_t *offset, size_t count) { return errno = ENOSYS, -1; }
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t count, unsigned flags) {
    return errno = ENOSYS, -1;
}

static int cut(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    char buffer[PATH_MAX];
    const char *name = opened(fd, buffer);
    if (!name[0]) return real(fd, length);
    ENTER;
    int failed = -1;
    if (!(length > size_of(fd) && full()) && !(failed = real(fd, length)))
        tell("truncate", inode_of(fd), length, 0, name, "", NULL);
    LEAVE;
    return failed;
}
int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off_t length) { return cut(fd, length); }

static int flush_to_disk(int fd, const char *symbol) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, symbol);
    char buffer[PATH_MAX];
    const char *name = opened(fd, buffer);
    if (!name[0]) return real(fd);
    ENTER;
    tell("sync", inode_of(fd), 0, 0, name, "", NULL);
    LEAVE;
    if (slow) usleep(slow);
    return 0;
}
int fsync(int fd) { return flush_to_disk(fd, "fsync"); }
int fdatasync(int fd) { return flush_to_disk(fd, "fdatasync"); }

/* Operation on the folder entries `a` and, if not empty, `b`. `needs` is 1 if the operation needs disk space. */
#define CHANGES(op, needs, call) \
    ENTER; \
    int failed = -1; \
    struct stat found; \
    long inode = a[0] && !lstat(a, &found) ? (long)found.st_ino : 0; \
    if (!((needs) && a[0] && full()) && !(failed = (call)) && (a[0] || b[0])) tell(op, inode, 0, 0, a, b, NULL); \
    LEAVE; \
    return failed

static int move(int from, const char *old, int to, const char *new) {
    REAL(int, "renameat", int, const char *, int, const char *);
    char first[PATH_MAX], second[PATH_MAX];
    const char *a = named(from, old, first), *b = named(to, new, second);
    CHANGES("rename", 0, real(from, old, to, new));
}
int rename(const char *old, const char *new) { return move(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int from, const char *old, int to, const char *new) { return move(from, old, to, new); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char first[PATH_MAX], second[PATH_MAX];
    const char *a = named(from, old, first), *b = named(to, new, second);
    CHANGES("link", 1, real(from, old, to, new, flags));
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char first[PATH_MAX];
    const char *a = named(at, path, first), *b = "";
    CHANGES("remove", 0, real(at, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    char first[PATH_MAX];
    const char *a = named(at, path, first), *b = "";
    ENTER;
    int failed = -1;
    if (!(a[0] && full()) && !(failed = real(at, path, mode)) && a[0]) {
        struct stat found;
        tell("mkdir", stat(a, &found) ? -1 : (long)found.st_ino, 0, 0, a, b, NULL);
    }
    LEAVE;
    return failed;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
