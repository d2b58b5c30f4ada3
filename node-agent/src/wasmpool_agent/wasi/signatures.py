"""The functions of wasi_snapshot_preview1 and the types of their parameters. All but proc_exit return an errno."""

from typing import Final

MODULE: Final = "wasi_snapshot_preview1"

# i: i32 (u32, size, pointer, descriptor), I: i64 (u64, timestamp, file size, rights)
_TABLE: Final = """
args_get ii
args_sizes_get ii
environ_get ii
environ_sizes_get ii
clock_res_get ii
clock_time_get iIi
fd_advise iIIi
fd_allocate iII
fd_close i
fd_datasync i
fd_fdstat_get ii
fd_fdstat_set_flags ii
fd_fdstat_set_rights iII
fd_filestat_get ii
fd_filestat_set_size iI
fd_filestat_set_times iIIi
fd_pread iiiIi
fd_prestat_get ii
fd_prestat_dir_name iii
fd_pwrite iiiIi
fd_read iiii
fd_readdir iiiIi
fd_renumber ii
fd_seek iIii
fd_sync i
fd_tell ii
fd_write iiii
path_create_directory iii
path_filestat_get iiiii
path_filestat_set_times iiiiIIi
path_link iiiiiii
path_open iiiiiIIii
path_readlink iiiiii
path_remove_directory iii
path_rename iiiiii
path_symlink iiiii
path_unlink_file iii
poll_oneoff iiii
proc_exit i
proc_raise i
random_get ii
sched_yield
sock_accept iii
sock_recv iiiiii
sock_send iiiii
sock_shutdown ii
"""

SIGNATURES: Final[dict[str, str]] = {
    name: kinds.replace("I", "Q").replace("i", "I")
    for name, _, kinds in (line.partition(" ") for line in _TABLE.strip().splitlines())
}
"""Function to the types of its parameters, as wasmtime_async spells them: I for i32, Q for i64, both unsigned."""

WITHOUT_RESULT: Final = frozenset({"proc_exit"})
