/* Faults of a disk, for a program that is started with this library in LD_PRELOAD.

   XDSI_FAULTS_BELOW   only paths below this directory are looked at
   XDSI_FAULTS         a file of rules, read again whenever it has changed; without it nothing happens
   XDSI_FAULTS_SPARE   a directory on the same file system, for what POWER may have to bring back

   A rule is a line `ACTION CALL WHEN PART`:

   ACTION  ENOSPC, EIO   the call fails so, and does nothing
           SHORT         a write takes half of its bytes
           LOSE          a sync fails with EIO, and what was written since the last one is gone, as Linux does it
           KILL          SIGKILL to the process group, before the call
           POWER         the same, and of files and names that were never synced nothing is left
           COUNT         a line `CALL PATH` is added to the file XDSI_FAULTS.log
   CALL    open, read, create, write, sync, rename, unlink, mkdir, truncate; any: all of these that change something
   WHEN    * always, 3 only the third time, 3+ from then on, p0.1 with that probability
   PART    what the path must contain

   What is not imitated: calls relative to a directory's descriptor, memory maps, and SQLite's -shm file, which no restart reads. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 65536
#define MAX_RULES 16
#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

enum action { PASS, NOSPACE, IOERROR, SHORT, LOSE, KILL_, POWER, COUNT };
static const char *const ACTIONS[] = {"PASS", "ENOSPC", "EIO", "SHORT", "LOSE", "KILL", "POWER", "COUNT", NULL};

struct rule { enum action action; char call[16], part[PATH_MAX]; int always, only, from; double chance; long seen; };
/* What a write has overwritten: to be undone where it was never synced. */
struct undo { off_t at; size_t had; off_t size; char *old; struct undo *before; };
struct file { dev_t device; ino_t inode; int fd; struct undo *undo; struct file *next; };
/* A name that was made, changed or removed, and whose directory was not synced since. */
struct name { char kind; char *path, *other; dev_t device; ino_t inode; struct name *before; };

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct rule rules[MAX_RULES];
static int rule_count, tracking, spares;
static struct stat rules_stat;
static char *path_of[MAX_FD];
static struct file *files;
static struct name *names;

static int is_below(const char *path) {
    const char *below = getenv("XDSI_FAULTS_BELOW");
    size_t length = below ? strlen(below) : 0;
    return length && path && strncmp(path, below, length) == 0 && path[length] == '/';
}

/* --- rules ----------------------------------------------------------------------------------------------------- */

static void forget(void);

static void read_rules(void) {
    const char *control = getenv("XDSI_FAULTS");
    struct stat now;
    if (!control || stat(control, &now) != 0) memset(&now, 0, sizeof now);
    if (now.st_ino == rules_stat.st_ino && now.st_mtim.tv_nsec == rules_stat.st_mtim.tv_nsec
        && now.st_mtim.tv_sec == rules_stat.st_mtim.tv_sec) return;
    rules_stat = now;
    rule_count = tracking = 0;
    forget();
    FILE *stream = control ? fopen(control, "re") : NULL;
    if (!stream) return;
    char line[PATH_MAX + 64], action[16], when[24];
    while (rule_count < MAX_RULES && fgets(line, sizeof line, stream)) {
        struct rule *one = &rules[rule_count];
        memset(one, 0, sizeof *one);
        if (sscanf(line, "%15s %15s %23s %4000s", action, one->call, when, one->part) != 4) continue;
        for (int n = 0; ACTIONS[n]; n++) if (!strcmp(ACTIONS[n], action)) one->action = (enum action)n;
        one->always = *when == '*';
        if (*when == 'p') one->chance = atof(when + 1);
        else if (strchr(when, '+')) one->from = atoi(when);
        else one->only = atoi(when);
        tracking |= one->action == LOSE || one->action == POWER;
        rule_count++;
    }
    fclose(stream);
}

static int changes(const char *call) { return strcmp(call, "open") && strcmp(call, "read"); }

static void count(const char *call, const char *path) {
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s.log", getenv("XDSI_FAULTS"));
    FILE *stream = fopen(name, "ae");
    if (stream) { fprintf(stream, "%s %s\n", call, path); fclose(stream); }
}

/* What is to happen to this call. The caller holds the lock. */
static enum action verdict(const char *call, const char *path) {
    enum action found = PASS;
    for (int n = 0; n < rule_count; n++) {
        struct rule *one = &rules[n];
        if (strcmp(one->call, call) && !(changes(call) && !strcmp(one->call, "any"))) continue;
        if (!strstr(path, one->part)) continue;
        one->seen++;
        int hit = one->always || (one->only && one->seen == one->only) || (one->from && one->seen >= one->from)
            || (one->chance > 0 && drand48() < one->chance);
        if (hit && one->action == COUNT) count(call, path);
        else if (hit && found == PASS) found = one->action;
    }
    return found;
}

/* --- what a machine without power forgets ------------------------------------------------------------------------ */

static struct file *file_of(int fd, const char *path, int make) {
    struct stat now;
    if (fstat(fd, &now) != 0 || !S_ISREG(now.st_mode)) return NULL;
    for (struct file *one = files; one; one = one->next)
        if (one->device == now.st_dev && one->inode == now.st_ino) return one;
    if (!make) return NULL;
    struct file *one = calloc(1, sizeof *one);
    one->device = now.st_dev; one->inode = now.st_ino; one->next = files;
    REAL(open64);
    one->fd = real(path, O_RDWR | O_CLOEXEC);
    return files = one;
}

static void remember(int fd, const char *path, off_t at, size_t length) {
    size_t name = strlen(path);
    if (!tracking || (name > 4 && !strcmp(path + name - 4, "-shm"))) return;
    struct file *file = file_of(fd, path, 1);
    struct stat now;
    if (!file || file->fd < 0 || fstat(fd, &now) != 0) return;
    struct undo *one = calloc(1, sizeof *one);
    one->size = now.st_size; one->at = at; one->before = file->undo;
    if (at < now.st_size) {
        one->had = (size_t)(now.st_size - at) < length ? (size_t)(now.st_size - at) : length;
        one->old = malloc(one->had);
        REAL(pread64);
        if (real(file->fd, one->old, one->had, at) != (ssize_t)one->had) one->had = 0;
    }
    file->undo = one;
}

/* Takes back what was written to the file since it was last synced, or lets it be for ever. */
static void settle(struct file *file, int back) {
    REAL(pwrite64);
    while (file->undo) {
        struct undo *one = file->undo;
        if (back && file->fd >= 0) {
            if (one->had && real(file->fd, one->old, one->had, one->at) < 0) perror("faults: undo");
            REAL(ftruncate64);
            if (real(file->fd, one->size) != 0) perror("faults: undo");
        }
        file->undo = one->before;
        free(one->old); free(one);
    }
}

static void parent_of(const char *path, struct stat *found) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash) *slash = 0;
    if (stat(parent, found) != 0) memset(found, 0, sizeof *found);
}

static void remember_name(char kind, const char *path, const char *other) {
    if (!tracking) return;
    struct stat parent;
    parent_of(path, &parent);
    struct name *one = calloc(1, sizeof *one);
    one->kind = kind; one->path = strdup(path); one->other = other ? strdup(other) : NULL;
    one->device = parent.st_dev; one->inode = parent.st_ino; one->before = names;
    names = one;
}

static void drop(struct name *one) { free(one->path); free(one->other); free(one); }

static void spare(char *path) {
    snprintf(path, PATH_MAX, "%s/%d-%d", getenv("XDSI_FAULTS_SPARE"), (int)getpid(), spares++);
}

static void undo_names(void) {
    REAL(rename);
    for (struct name *one = names; one; one = one->before) {
        char aside[PATH_MAX];
        if (one->kind == 'r') real(one->path, one->other);          /* renamed from other to path */
        else if (one->kind == 'u') real(one->other, one->path);     /* unlinked; other is a second name of it */
        else { spare(aside); real(one->path, aside); }              /* made: a file, or a directory with all in it */
    }
}

/* The directory's names are on disk. */
static void names_are_safe(int fd) {
    struct stat now;
    if (fstat(fd, &now) != 0 || !S_ISDIR(now.st_mode)) return;
    for (struct name **at = &names; *at;) {
        struct name *one = *at;
        if (one->device == now.st_dev && one->inode == now.st_ino) { *at = one->before; drop(one); }
        else at = &one->before;
    }
}

static void forget(void) {
    while (files) {
        struct file *one = files;
        settle(one, 0);
        REAL(close);
        if (one->fd >= 0) real(one->fd);
        files = one->next; free(one);
    }
    while (names) { struct name *one = names; names = one->before; drop(one); }
}

static void die(enum action how) {
    if (how == POWER) {
        for (struct file *one = files; one; one = one->next) settle(one, 1);
        undo_names();
    }
    kill(0, SIGKILL);
    for (;;) pause();
}

/* --- the calls ---------------------------------------------------------------------------------------------------- */

/* Begins a call that is looked at: with the lock, and what is to happen to it. */
static enum action begin(const char *call, const char *path) {
    pthread_mutex_lock(&lock);
    read_rules();
    enum action todo = verdict(call, path);
    if (todo == KILL_ || todo == POWER) die(todo);
    return todo;
}

static void end(void) { int saved = errno; pthread_mutex_unlock(&lock); errno = saved; }

static int fails(enum action todo) {
    if (todo != NOSPACE && todo != IOERROR) return 0;
    errno = todo == NOSPACE ? ENOSPC : EIO;
    return 1;
}

static const char *watched(int fd) { return fd >= 0 && fd < MAX_FD ? path_of[fd] : NULL; }

static void opened(int fd, const char *path) {
    if (fd < 0 || fd >= MAX_FD) return;
    pthread_mutex_lock(&lock);
    free(path_of[fd]);
    path_of[fd] = is_below(path) ? strdup(path) : NULL;
    pthread_mutex_unlock(&lock);
}

static int opening(int (*call)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!is_below(path)) {
        int fd = call(path, flags, mode);
        if (fd >= 0 && watched(fd)) opened(fd, NULL);
        return fd;
    }
    int creates = (flags & O_CREAT) && access(path, F_OK) != 0;
    enum action todo = begin(creates ? "create" : "open", path);
    int fd = fails(todo) ? -1 : call(path, flags, mode);
    if (fd >= 0) opened(fd, path);
    if (fd >= 0 && creates) remember_name('c', path, NULL);
    end();
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags) REAL(open); return opening(real, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) REAL(open64); return opening(real, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    REAL(openat);
    if (at == AT_FDCWD || *path == '/') return open64(path, flags, mode);
    int fd = real(at, path, flags, mode);
    if (fd >= 0 && watched(fd)) opened(fd, NULL);
    return fd;
}
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return openat(at, path, flags, mode); }

int close(int fd) {
    REAL(close);
    if (watched(fd)) opened(fd, NULL);
    return real(fd);
}

static size_t allowed(enum action todo, size_t length) { return todo == SHORT && length > 1 ? length / 2 : length; }

static off_t position(int fd) {
    struct stat now;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &now) == 0) return now.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    const char *path = watched(fd);
    if (!path) return real(fd, data, length);
    enum action todo = begin("write", path);
    length = allowed(todo, length);
    if (todo == PASS || todo == SHORT) remember(fd, path, position(fd), length);
    ssize_t written = fails(todo) ? -1 : real(fd, data, length);
    end();
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    REAL(pwrite64);
    const char *path = watched(fd);
    if (!path) return real(fd, data, length, at);
    enum action todo = begin("write", path);
    length = allowed(todo, length);
    if (todo == PASS || todo == SHORT) remember(fd, path, at, length);
    ssize_t written = fails(todo) ? -1 : real(fd, data, length, at);
    end();
    return written;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (!watched(fd)) return real(fd, parts, count);
    ssize_t written = 0;
    for (int n = 0; n < count; n++) {
        ssize_t one = write(fd, parts[n].iov_base, parts[n].iov_len);
        if (one < 0) return written ? written : -1;
        written += one;
        if ((size_t)one < parts[n].iov_len) break;
    }
    return written;
}

ssize_t read(int fd, void *data, size_t length) {
    REAL(read);
    const char *path = watched(fd);
    if (!path) return real(fd, data, length);
    enum action todo = begin("read", path);
    end();
    return fails(todo) ? -1 : real(fd, data, length);
}

ssize_t pread64(int fd, void *data, size_t length, off64_t at) {
    REAL(pread64);
    const char *path = watched(fd);
    if (!path) return real(fd, data, length, at);
    enum action todo = begin("read", path);
    end();
    return fails(todo) ? -1 : real(fd, data, length, at);
}
ssize_t pread(int fd, void *data, size_t length, off_t at) { return pread64(fd, data, length, at); }

static int syncing(int (*call)(int), int fd) {
    const char *path = watched(fd);
    if (!path) return call(fd);
    enum action todo = begin("sync", path);
    struct file *file = tracking ? file_of(fd, path, 0) : NULL;
    int result = -1;
    if (todo == LOSE) { if (file) settle(file, 1); errno = EIO; }
    else if (!fails(todo)) {
        /* While what is unsynced is recorded, nothing may be written beside a sync. */
        if (!tracking) { end(); return call(fd); }
        result = call(fd);
        if (result == 0) { if (file) settle(file, 0); names_are_safe(fd); }
    }
    end();
    return result;
}

int fsync(int fd) { REAL(fsync); return syncing(real, fd); }
int fdatasync(int fd) { REAL(fdatasync); return syncing(real, fd); }

int rename(const char *from, const char *to) {
    REAL(rename);
    if (!is_below(to)) return real(from, to);
    enum action todo = begin("rename", to);
    int replaces = access(to, F_OK) == 0;
    int result = fails(todo) ? -1 : real(from, to);
    if (result == 0 && !replaces) remember_name('r', to, from);
    end();
    return result;
}

int unlink(const char *path) {
    REAL(unlink);
    if (!is_below(path)) return real(path);
    enum action todo = begin("unlink", path);
    char aside[PATH_MAX];
    int kept = 0;
    if (tracking && !fails(todo)) { spare(aside); kept = link(path, aside) == 0; }
    int result = fails(todo) ? -1 : real(path);
    if (result == 0 && kept) remember_name('u', path, aside);
    end();
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (!is_below(path)) return real(path, mode);
    enum action todo = begin("mkdir", path);
    int result = fails(todo) ? -1 : real(path, mode);
    if (result == 0) remember_name('m', path, NULL);
    end();
    return result;
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    const char *path = watched(fd);
    if (!path) return real(fd, size);
    enum action todo = begin("truncate", path);
    struct stat now;
    if (todo == PASS && fstat(fd, &now) == 0) remember(fd, path, size, now.st_size > size ? (size_t)(now.st_size - size) : 0);
    int result = fails(todo) ? -1 : real(fd, size);
    end();
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
