// Wants a frame of 24 MiB and is linked with 32 MiB of memory (512 pages of 64 KiB), more than the pool "small" allows:
// it is refused before it runs.
#include <stdio.h>

static unsigned char frame[24 * 1024 * 1024];

int main(int argc, char **argv) {
    (void)argv;
    for (unsigned i = 0; i < sizeof frame; i++) {
        frame[i] = (unsigned char)(i * (unsigned)argc);
    }
    printf("%d\n", frame[sizeof frame / 2]);
    return 0;
}
