// Runs for ever and says so once a second.
#include <stdio.h>
#include <unistd.h>

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned tick = 1;; tick++) {
        printf("tick %u\n", tick);
        sleep(1);
    }
}
