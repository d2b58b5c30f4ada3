// What libc makes of WASI preview 1's files: streams, directories, descriptors. Exits with 42.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, strerror(errno));         \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

int main(int count, char **values) {
    char text[64] = {0};
    CHECK(count == 2 && !strcmp(values[1], "an argument"));
    CHECK(getenv("NAME") && !strcmp(getenv("NAME"), "value"));
    CHECK(getchar() == EOF && !isatty(0) && !isatty(1));

    FILE *file = fopen("/etc/app/key", "r");
    CHECK(file);
    CHECK(fread(text, 1, sizeof text, file) == 10 && !strcmp(text, "0123456789") && feof(file));
    CHECK(!fseek(file, -2, SEEK_END) && fgetc(file) == '8' && ftell(file) == 9);
    CHECK(!fclose(file));

    char *large = malloc(3000001);
    file = fopen("/secret/large", "r");
    CHECK(file && fread(large, 1, 3000001, file) == 3000000 && large[0] == 'a' && large[2999999] == 'a');
    CHECK(!fclose(file));

    struct stat found;
    CHECK(!stat("/etc/app/tls/../key", &found) && S_ISREG(found.st_mode) && found.st_size == 10 && found.st_nlink == 1);
    CHECK(!stat("/etc/app/tls/", &found) && S_ISDIR(found.st_mode));
    CHECK(stat("/etc/app/no", &found) == -1 && errno == ENOENT);
    CHECK(stat("/etc/app/key/no", &found) == -1 && errno == ENOTDIR);
    CHECK(access("/etc/app/key", R_OK) == 0);
    CHECK(readlink("/etc/app/key", text, sizeof text) == -1 && errno == EINVAL);

    int directory = open("/etc/app", O_RDONLY | O_DIRECTORY);
    CHECK(directory >= 0);
    int below = openat(directory, "tls/ca.crt", O_RDONLY);
    CHECK(below >= 0 && pread(below, text, 4, 0) == 4 && !memcmp(text, "cert", 4));
    CHECK(lseek(below, 1, SEEK_SET) == 1 && read(below, text, 64) == 3);
    CHECK(fstat(below, &found) == 0 && found.st_size == 4);
    struct pollfd poll_ = {.fd = below, .events = POLLRDNORM};
    CHECK(poll(&poll_, 1, 1000) == 1 && poll_.revents & POLLRDNORM);
    CHECK(write(below, "x", 1) == -1);
    CHECK(!close(below));
    CHECK(openat(directory, "../secret/large", O_RDONLY) == -1);
    CHECK(openat(directory, "tls", O_WRONLY) == -1 && errno == EISDIR);
    CHECK(!close(directory));

    int names = 0, dots = 0, files = 0;
    DIR *listing = opendir("/secret/many");
    CHECK(listing);
    for (struct dirent *entry; (entry = readdir(listing)); names++) {
        dots += entry->d_name[0] == '.';
        files += entry->d_type == DT_REG;
    }
    CHECK(names == dots + files && dots <= 2 && files == 1000);
    rewinddir(listing);
    CHECK(readdir(listing));
    CHECK(!closedir(listing));

    CHECK(!fopen("/etc/app/key", "w") && errno == EROFS);
    CHECK(!fopen("/etc/app/new", "w") && errno == EROFS);
    CHECK(open("/etc/app/key", O_RDWR) == -1 && errno == EROFS);
    CHECK(mkdir("/etc/app/new", 0700) == -1 && errno == EROFS);
    CHECK(mkdir("/etc/app/tls", 0700) == -1 && errno == EEXIST);
    CHECK(unlink("/etc/app/key") == -1 && errno == EROFS);
    CHECK(rmdir("/etc/app/tls") == -1 && errno == EROFS);
    CHECK(rename("/etc/app/key", "/etc/app/new") == -1 && errno == EROFS);
    CHECK(!fopen("/elsewhere", "r"));

    struct timespec before, after, pause = {0, 20000000};
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(!nanosleep(&pause, NULL));
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000ll + after.tv_nsec - before.tv_nsec >= 20000000);
    CHECK(!getentropy(text, sizeof text));
    printf("to standard output\n");
    return 42;
}
