"""WASI preview 1, our own: every function that may block suspends its guest, so that a deadline or a removal ends it.

    signatures   the 46 functions and their types, in one table
    memory       the one place that checks a guest's pointers
    guest        what one guest may see of the world: arguments, environment, descriptors, clocks
    files        read-only trees in memory, which 0.2 has too
    functions    the table that the functions put themselves in
    preview1     the functions; preview1_files and preview1_paths have those of files and directories
    poll         poll_oneoff, which is a function of its own size
    linking      puts all of them on a linker

Pointers that reach beyond the memory give EFAULT, unknown descriptors EBADF, and what a guest has no right to is
ENOTCAPABLE; nothing here raises into the guest's stack.
"""
