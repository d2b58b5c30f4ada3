// Every function of WASI preview 1, called directly. Each check that fails is a line on standard error; the exit code
// is 42 when there was none, else 1. What the program may see is in test_wasi_preview1.py.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

static int failures;

#define CHECK(condition)                                            \
    do {                                                            \
        if (!(condition)) {                                         \
            failures++;                                             \
            complain(__func__, __LINE__, #condition);               \
        }                                                           \
    } while (0)
#define OK(call) CHECK((call) == __WASI_ERRNO_SUCCESS)
#define FAILS(errno_, call) CHECK((call) == (errno_))

enum { STDIN, STDOUT, STDERR, APP, SECRET, NONE = 77 };

static void say(const char *text) {
    __wasi_ciovec_t vector = {(const uint8_t *)text, strlen(text)};
    __wasi_size_t written;
    (void)__wasi_fd_write(STDERR, &vector, 1, &written);
}

static void complain(const char *function, int line, const char *condition) {
    char text[400];
    snprintf(text, sizeof text, "%s, line %d: %s\n", function, line, condition);
    say(text);
}

static __wasi_fd_t opened(__wasi_fd_t directory, const char *path, __wasi_oflags_t how) {
    __wasi_fd_t fd = NONE;
    __wasi_rights_t rights = ~(__wasi_rights_t)__WASI_RIGHTS_FD_WRITE;
    OK(__wasi_path_open(directory, 0, path, how, rights, ~0ull, 0, &fd));
    return fd;
}

static void arguments(void) {
    __wasi_size_t count = 0, size = 0;
    OK(__wasi_args_sizes_get(&count, &size));
    CHECK(count == 2 && size == strlen("program") + 1 + strlen("an argument") + 1);
    uint8_t *values[2] = {0}, buffer[64] = {0};
    if (count == 2) {
        OK(__wasi_args_get(values, buffer));
        CHECK(values[0] && !strcmp((char *)values[0], "program"));
        CHECK(values[1] && !strcmp((char *)values[1], "an argument"));
    }
}

static void environment(void) {
    __wasi_size_t count = 0, size = 0;
    OK(__wasi_environ_sizes_get(&count, &size));
    CHECK(count == 1 && size == strlen("NAME=value") + 1);
    uint8_t *values[1] = {0}, buffer[64] = {0};
    if (count == 1) {
        OK(__wasi_environ_get(values, buffer));
        CHECK(values[0] && !strcmp((char *)values[0], "NAME=value"));
    }
}

static void clocks(void) {
    __wasi_timestamp_t resolution, first, second, now = 0;
    for (__wasi_clockid_t clock = 0; clock < 4; clock++) {
        resolution = 0, first = 0, second = 0;
        OK(__wasi_clock_res_get(clock, &resolution));
        CHECK(resolution > 0 && resolution <= 1000000000);
        OK(__wasi_clock_time_get(clock, 1, &first));
        OK(__wasi_clock_time_get(clock, 1, &second));
        CHECK(second >= first && second > 0);
    }
    OK(__wasi_clock_time_get(__WASI_CLOCKID_REALTIME, 1, &now));
    CHECK(now > 1600000000ull * 1000000000);
    FAILS(__WASI_ERRNO_INVAL, __wasi_clock_time_get((__wasi_clockid_t){9}, 1, &now));
    FAILS(__WASI_ERRNO_INVAL, __wasi_clock_res_get((__wasi_clockid_t){9}, &resolution));
}

static void randomness(void) {
    uint8_t one[32] = {0}, other[32] = {0}, none[32] = {0};
    OK(__wasi_random_get(one, sizeof one));
    OK(__wasi_random_get(other, sizeof other));
    CHECK(memcmp(one, other, sizeof one) && memcmp(one, none, sizeof one));
}

static void streams(void) {
    __wasi_ciovec_t out[2] = {{(const uint8_t *)"to standard ", 12}, {(const uint8_t *)"output\n", 7}};
    uint8_t byte;
    __wasi_iovec_t in = {&byte, 1};
    __wasi_size_t size = 0;
    __wasi_filesize_t position;
    __wasi_filestat_t stat;
    __wasi_fdstat_t fdstat;
    OK(__wasi_fd_write(STDOUT, out, 2, &size));
    CHECK(size == 19);
    OK(__wasi_fd_read(STDIN, &in, 1, &size));
    CHECK(size == 0);
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_write(STDIN, out, 1, &size));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_read(STDOUT, &in, 1, &size));
    FAILS(__WASI_ERRNO_SPIPE, __wasi_fd_seek(STDOUT, 0, __WASI_WHENCE_CUR, &position));
    OK(__wasi_fd_fdstat_get(STDOUT, &fdstat));
    CHECK(fdstat.fs_filetype != __WASI_FILETYPE_CHARACTER_DEVICE && fdstat.fs_rights_base & __WASI_RIGHTS_FD_WRITE);
    OK(__wasi_fd_fdstat_set_flags(STDOUT, __WASI_FDFLAGS_NONBLOCK));
    OK(__wasi_fd_fdstat_get(STDOUT, &fdstat));
    CHECK(fdstat.fs_flags == __WASI_FDFLAGS_NONBLOCK);
    FAILS(__WASI_ERRNO_INVAL, __wasi_fd_fdstat_set_flags(STDOUT, __WASI_FDFLAGS_SYNC));
    OK(__wasi_fd_filestat_get(STDOUT, &stat));
    CHECK(stat.filetype == __WASI_FILETYPE_UNKNOWN);
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_write(NONE, out, 1, &size));
}

static void preopens(void) {
    __wasi_prestat_t stat;
    memset(&stat, 255, sizeof stat);
    uint8_t name[16] = {0};
    OK(__wasi_fd_prestat_get(APP, &stat));
    CHECK(stat.tag == __WASI_PREOPENTYPE_DIR && stat.u.dir.pr_name_len == strlen("/etc/app"));
    OK(__wasi_fd_prestat_dir_name(APP, name, 8));
    CHECK(!memcmp(name, "/etc/app", 9));
    FAILS(__WASI_ERRNO_NAMETOOLONG, __wasi_fd_prestat_dir_name(APP, name, 7));
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_prestat_get(SECRET + 1, &stat));
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_prestat_get(STDOUT, &stat));
}

static void reading(void) {
    __wasi_fd_t fd = opened(APP, "key", 0);
    uint8_t first[3] = {0}, rest[16] = {0};
    __wasi_iovec_t vectors[2] = {{first, 3}, {rest, 16}};
    __wasi_size_t size = 0;
    __wasi_filesize_t position = 0;
    OK(__wasi_fd_read(fd, vectors, 2, &size));
    CHECK(size == 10 && !memcmp(first, "012", 3) && !memcmp(rest, "3456789", 8));
    OK(__wasi_fd_tell(fd, &position));
    CHECK(position == 10);
    OK(__wasi_fd_seek(fd, -4, __WASI_WHENCE_END, &position));
    CHECK(position == 6);
    OK(__wasi_fd_seek(fd, 1, __WASI_WHENCE_CUR, &position));
    CHECK(position == 7);
    FAILS(__WASI_ERRNO_INVAL, __wasi_fd_seek(fd, -8, __WASI_WHENCE_CUR, &position));
    OK(__wasi_fd_pread(fd, vectors, 1, 2, &size));
    CHECK(size == 3 && !memcmp(first, "234", 3));
    OK(__wasi_fd_read(fd, vectors, 2, &size));
    CHECK(size == 3 && !memcmp(first, "789", 3));
    OK(__wasi_fd_seek(fd, 100, __WASI_WHENCE_SET, &position));
    OK(__wasi_fd_read(fd, vectors, 2, &size));
    CHECK(size == 0);
    OK(__wasi_fd_advise(fd, 0, 10, __WASI_ADVICE_SEQUENTIAL));
    FAILS(__WASI_ERRNO_INVAL, __wasi_fd_advise(fd, 0, 10, (__wasi_advice_t){6}));
    OK(__wasi_fd_sync(fd));
    FAILS(__WASI_ERRNO_INVAL, __wasi_fd_sync(STDOUT));
    OK(__wasi_fd_datasync(fd));
    FAILS(__WASI_ERRNO_INVAL, __wasi_fd_datasync(STDOUT));
    OK(__wasi_fd_close(fd));
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_read(fd, vectors, 2, &size));
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_close(fd));
    FAILS(__WASI_ERRNO_ISDIR, __wasi_fd_read(APP, vectors, 2, &size));
    FAILS(__WASI_ERRNO_ISDIR, __wasi_fd_tell(APP, &position));
}

static void paths(void) {
    static const struct {
        const char *path;
        __wasi_errno_t errno_;
    } cases[] = {
        {"key", 0},
        {"tls/../key", 0},
        {"./tls/./../key", 0},
        {"no", __WASI_ERRNO_NOENT},
        {"", __WASI_ERRNO_NOENT},
        {"key/", __WASI_ERRNO_NOTDIR},
        {"key/x", __WASI_ERRNO_NOTDIR},
        {"..", __WASI_ERRNO_PERM},
        {"../secret/token", __WASI_ERRNO_PERM},
        {"tls/../../secret/token", __WASI_ERRNO_PERM},
        {"/etc/app/key", __WASI_ERRNO_PERM},
        {"\xff", __WASI_ERRNO_ILSEQ},
    };
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        __wasi_filestat_t stat;
        __wasi_fd_t fd = NONE;
        memset(&stat, 255, sizeof stat);
        __wasi_errno_t opens = __wasi_path_open(APP, 0, cases[index].path, 0, __WASI_RIGHTS_FD_READ, 0, 0, &fd);
        __wasi_errno_t stats = __wasi_path_filestat_get(APP, 0, cases[index].path, &stat);
        CHECK(opens == cases[index].errno_);
        CHECK(stats == cases[index].errno_);
        if (!cases[index].errno_) {
            CHECK(fd == SECRET + 1);
            CHECK(stat.filetype == __WASI_FILETYPE_REGULAR_FILE && stat.size == 10);
            OK(__wasi_fd_close(fd));
        }
    }
    uint8_t link[8];
    __wasi_size_t size;
    FAILS(__WASI_ERRNO_INVAL, __wasi_path_readlink(APP, "key", link, sizeof link, &size));
    FAILS(__WASI_ERRNO_NOENT, __wasi_path_readlink(APP, "no", link, sizeof link, &size));
    __wasi_fd_t fd = opened(APP, "key", 0);
    __wasi_filestat_t stat;
    memset(&stat, 255, sizeof stat);
    OK(__wasi_fd_filestat_get(fd, &stat));
    CHECK(stat.filetype == __WASI_FILETYPE_REGULAR_FILE && stat.size == 10);
    FAILS(__WASI_ERRNO_NOTDIR, __wasi_path_filestat_get(fd, 0, "key", &stat));
    OK(__wasi_fd_close(fd));
}

static void listing(void) {
    __wasi_fd_t fd = opened(APP, ".", __WASI_OFLAGS_DIRECTORY);
    static const char *const names[] = {".", "..", "key", "tls"};
    static const __wasi_filetype_t kinds[] = {
        __WASI_FILETYPE_DIRECTORY, __WASI_FILETYPE_DIRECTORY, __WASI_FILETYPE_REGULAR_FILE, __WASI_FILETYPE_DIRECTORY};
    uint8_t buffer[40];
    __wasi_dircookie_t cookie = 0;
    for (int index = 0; index < 4; index++) {
        __wasi_dirent_t entry;
        __wasi_size_t size = 0;
        memset(buffer, 0, sizeof buffer);
        OK(__wasi_fd_readdir(fd, buffer, sizeof buffer, cookie, &size));
        CHECK(size == (index == 3 ? sizeof entry + 3 : sizeof buffer));
        memcpy(&entry, buffer, sizeof entry);
        CHECK(entry.d_namlen == strlen(names[index]));
        CHECK(!memcmp(buffer + sizeof entry, names[index], strlen(names[index])));
        CHECK(entry.d_type == kinds[index]);
        cookie = entry.d_next;
    }
    __wasi_size_t size = 1;
    OK(__wasi_fd_readdir(fd, buffer, sizeof buffer, cookie, &size));
    CHECK(size == 0);
    OK(__wasi_fd_close(fd));
}

static void writing(void) {
    __wasi_fd_t fd = opened(APP, "key", 0), none = NONE;
    __wasi_ciovec_t out = {(const uint8_t *)"x", 1};
    __wasi_size_t size;
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_write(fd, &out, 1, &size));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_pwrite(fd, &out, 1, 0, &size));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_allocate(fd, 0, 100));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_filestat_set_size(fd, 0));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_filestat_set_times(fd, 0, 0, __WASI_FSTFLAGS_ATIM_NOW));
    OK(__wasi_fd_close(fd));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_open(APP, 0, "key", 0, __WASI_RIGHTS_FD_WRITE, 0, 0, &none));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_open(APP, 0, "new", __WASI_OFLAGS_CREAT, 0, 0, 0, &none));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_create_directory(APP, "new"));
    FAILS(__WASI_ERRNO_EXIST, __wasi_path_create_directory(APP, "tls"));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_filestat_set_times(APP, 0, "key", 0, 0, __WASI_FSTFLAGS_ATIM_NOW));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_link(APP, 0, "key", APP, "new"));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_remove_directory(APP, "tls"));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_rename(APP, "key", SECRET, "new"));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_symlink("key", APP, "new"));
    FAILS(__WASI_ERRNO_ROFS, __wasi_path_unlink_file(APP, "key"));
}

static void rights(void) {
    __wasi_fd_t fd = opened(APP, "key", 0);
    __wasi_fdstat_t stat;
    uint8_t byte;
    __wasi_iovec_t in = {&byte, 1};
    __wasi_size_t size;
    OK(__wasi_fd_fdstat_get(fd, &stat));
    CHECK(stat.fs_filetype == __WASI_FILETYPE_REGULAR_FILE);
    CHECK(stat.fs_rights_base & __WASI_RIGHTS_FD_READ && !(stat.fs_rights_base & __WASI_RIGHTS_FD_WRITE));
    OK(__wasi_fd_fdstat_set_rights(fd, stat.fs_rights_base & ~__WASI_RIGHTS_FD_READ, 0));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_read(fd, &in, 1, &size));
    FAILS(__WASI_ERRNO_NOTCAPABLE, __wasi_fd_fdstat_set_rights(fd, stat.fs_rights_base, 0));
    OK(__wasi_fd_close(fd));
}

static void renumbering(void) {
    __wasi_fd_t fd = opened(APP, "key", 0), other = opened(SECRET, "token", 0);
    uint8_t bytes[4];
    __wasi_iovec_t in = {bytes, 4};
    __wasi_size_t size = 0;
    OK(__wasi_fd_renumber(other, fd));
    OK(__wasi_fd_read(fd, &in, 1, &size));
    CHECK(size == 3 && !memcmp(bytes, "abc", 3));
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_close(other));
    FAILS(__WASI_ERRNO_BADF, __wasi_fd_renumber(fd, NONE));
    OK(__wasi_fd_close(fd));
}

static void polling(void) {
    __wasi_subscription_t in[3];
    __wasi_event_t out[3];
    __wasi_size_t count = 0;
    __wasi_timestamp_t before = 0, after = 0;
    memset(in, 0, sizeof in);
    in[0].userdata = 11;
    in[0].u.tag = __WASI_EVENTTYPE_CLOCK;
    in[0].u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
    in[0].u.u.clock.timeout = 30 * 1000000;
    (void)__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &before);
    OK(__wasi_poll_oneoff(in, out, 1, &count));
    (void)__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &after);
    CHECK(count == 1 && out[0].userdata == 11 && out[0].error == 0 && out[0].type == __WASI_EVENTTYPE_CLOCK);
    CHECK(after - before >= 30 * 1000000);
    in[0].u.u.clock.timeout = 3600ull * 1000000000;
    in[1].userdata = 12;
    in[1].u.tag = __WASI_EVENTTYPE_FD_READ;
    in[1].u.u.fd_read.file_descriptor = STDIN;
    in[2].userdata = 13;
    in[2].u.tag = __WASI_EVENTTYPE_FD_WRITE;
    in[2].u.u.fd_write.file_descriptor = NONE;
    OK(__wasi_poll_oneoff(in, out, 3, &count));
    CHECK(count == 2 && out[0].userdata == 12 && out[0].error == 0);
    CHECK(out[1].userdata == 13 && out[1].error == __WASI_ERRNO_BADF);
    FAILS(__WASI_ERRNO_INVAL, __wasi_poll_oneoff(in, out, 0, &count));
}

// libc has no names for all of these.
#define IMPORT(name) __attribute__((__import_module__("wasi_snapshot_preview1"), __import_name__(#name)))
IMPORT(proc_raise) extern int32_t proc_raise(int32_t);
IMPORT(sched_yield) extern int32_t sched_yield_(void);
IMPORT(sock_accept) extern int32_t sock_accept(int32_t, int32_t, void *);
IMPORT(sock_recv) extern int32_t sock_recv(int32_t, void *, int32_t, int32_t, void *, void *);
IMPORT(sock_send) extern int32_t sock_send(int32_t, void *, int32_t, int32_t, void *);
IMPORT(sock_shutdown) extern int32_t sock_shutdown(int32_t, int32_t);

static void sockets_and_signals(void) {
    uint8_t unused[16];
    FAILS(__WASI_ERRNO_NOTSOCK, sock_accept(STDOUT, 0, unused));
    FAILS(__WASI_ERRNO_NOTSOCK, sock_recv(STDOUT, unused, 0, 0, unused, unused));
    FAILS(__WASI_ERRNO_NOTSOCK, sock_send(STDOUT, unused, 0, 0, unused));
    FAILS(__WASI_ERRNO_NOTSOCK, sock_shutdown(APP, 3));
    FAILS(__WASI_ERRNO_BADF, sock_shutdown(NONE, 3));
    FAILS(__WASI_ERRNO_NOSYS, proc_raise(9));
    OK(sched_yield_());
}

int main(void) {
    arguments();
    environment();
    clocks();
    randomness();
    streams();
    preopens();
    reading();
    paths();
    listing();
    writing();
    rights();
    renumbering();
    polling();
    sockets_and_signals();
    __wasi_proc_exit(failures ? 1 : 42);
}
