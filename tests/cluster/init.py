"""Process 1 of a namespace: reaps what is left to it, and does nothing else. Run by path, with -I -S."""

import os
import signal


def main() -> None:
    """Never returns. SIGKILL from outside ends it, and everything in its pid namespace with it."""
    # NB: blocked before the first child can exist, so that no SIGCHLD is missed between two waits
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()
