/* A guest that does what its first argument says: one program for most of what the worker's tests want to see. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(what, "args")) {
        for (int i = 0; i < argc; i++)
            printf("arg %d: %s\n", i, argv[i]);
    } else if (!strcmp(what, "env")) {
        for (char **entry = environ; *entry != NULL; entry++)
            printf("env: %s\n", *entry);
    } else if (!strcmp(what, "exit")) {
        printf("leaving");
        exit(number);
    } else if (!strcmp(what, "abort")) {
        abort();
    } else if (!strcmp(what, "streams")) {
        fprintf(stdout, "to stdout\n");
        fprintf(stderr, "to stderr\n");
    } else if (!strcmp(what, "sleep")) {
        struct timespec before, after, pause = {number / 1000, (number % 1000) * 1000000L};
        clock_gettime(CLOCK_MONOTONIC, &before);
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &after);
        printf("slept %lld ms\n", (after.tv_sec - before.tv_sec) * 1000LL + (after.tv_nsec - before.tv_nsec) / 1000000);
    } else if (!strcmp(what, "clock")) {
        printf("now %lld\n", (long long)time(NULL));
    } else if (!strcmp(what, "spin")) {
        for (volatile uint64_t i = 0;; i++) {
        }
    } else if (!strcmp(what, "stdin")) {
        printf("read %d\n", getchar());
    } else if (!strcmp(what, "open")) {
        fprintf(stderr, "open: %s\n", open("/etc/passwd", O_RDONLY) < 0 ? strerror(errno) : "opened");
        struct stat status;
        fprintf(stderr, "stat of stdout: %s\n", fstat(1, &status) ? strerror(errno) : "known");
        fprintf(stderr, "isatty: %d\n", isatty(1));
        fprintf(stderr, "seek: %s\n", lseek(1, 0, SEEK_SET) < 0 ? strerror(errno) : "sought");
        close(1);
        fprintf(stderr, "write after close: %s\n", write(1, "x", 1) < 0 ? strerror(errno) : "written");
    } else if (!strcmp(what, "random")) {
        unsigned char bytes[32];
        unsigned sum = 0;
        if (getentropy(bytes, sizeof bytes) != 0)
            return 9;
        for (size_t i = 0; i < sizeof bytes; i++)
            sum |= bytes[i];
        printf("random: %s\n", sum ? "yes" : "no");
    } else if (!strcmp(what, "long")) {
        for (int i = 0; i < number; i++)
            putchar('a' + i % 26);
        putchar('\n');
    } else if (!strcmp(what, "lines")) {
        for (int i = 0; i < number; i++)
            printf("line %d\n", i);
    } else if (!strcmp(what, "bytes")) {
        fwrite("\xff\xfe caf\xc3\xa9 \x01\n", 1, 11, stdout);
    } else if (!strcmp(what, "grow")) {
        size_t blocks = 0;
        for (volatile char *block; (block = malloc(65536)) != NULL; blocks++)
            *block = 1;
        printf("blocks %zu\n", blocks);
    } else {
        fprintf(stderr, "what? %s\n", what);
        return 2;
    }
    return 0;
}
