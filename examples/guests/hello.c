// Says hello, shows what the host gave it, and leaves with the exit code that it was asked for.
//
// env GREETING   whom to greet; "world" without it
// env EXIT_CODE  the exit code; 0 without it
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const char *greeting = getenv("GREETING");
    printf("hello, %s, from a slot\n", greeting ? greeting : "world");
    for (int i = 1; i < argc; i++) {
        printf("argument %d: %s\n", i, argv[i]);
    }
    const char *exit_code = getenv("EXIT_CODE");
    int code = exit_code ? atoi(exit_code) : 0;
    if (code != 0) {
        fprintf(stderr, "leaving with exit code %d, as asked\n", code);
    }
    return code;
}
