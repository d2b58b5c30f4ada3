"""What is remembered of indexes when the agent's process ends in the middle of something.

Covers: what was begun and never ended; lines that a crash cut short; names that would leave the directory.
"""

import os
from pathlib import Path

from wasmpool_agent.supervisor.journal import Journal
from wasmpool_agent.supervisor.promises import ClaimKey

KEY = ClaimKey("uid", "hello-1")


def test_nothing_is_known_of_a_claim_that_never_ran(tmp_path: Path) -> None:
    record = Journal(tmp_path).read(KEY)
    assert not record.begun | record.completed | record.failed


def test_what_began_and_did_not_end_is_lost(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begun(KEY, 0, 1, 2)
    journal.ended(KEY, 0, completed=True)
    journal.ended(KEY, 2, completed=False)
    record = Journal(tmp_path).read(KEY)
    assert (record.completed, record.failed, record.lost) == ({0}, {2}, {1})


def test_a_line_cut_short_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begun(KEY, 1)
    (file,) = (tmp_path / "runs").iterdir()
    for torn in ("beg", "begun 23", "completed 1"):
        file.write_text("begun 1\n" + torn)
        assert Journal(tmp_path).read(KEY).lost == {1}


def test_what_follows_a_line_cut_short_is_not_lost_with_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begun(KEY, 1)
    (file,) = (tmp_path / "runs").iterdir()
    file.write_text("begun 1\nbegun 2")
    journal.begun(KEY, 30)
    assert journal.read(KEY).lost == {1, 30} | {2}
    file.write_text("begun 1\nbeg")
    journal.begun(KEY, 30)
    assert journal.read(KEY).lost == {1, 30}


def test_names_from_the_api_stay_inside_the_directory(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begun(ClaimKey("../../x", "/etc/passwd"), 0)
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "runs"]


def test_claims_that_nobody_has_assigned_for_long_are_forgotten(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path), ClaimKey("uid", "other-2")
    journal.begun(KEY, 0)
    journal.begun(other, 0)
    for file in (tmp_path / "runs").iterdir():
        os.utime(file, (1000, 1000))
    journal.forget_before(999, set())
    assert journal.read(KEY).begun == {0}
    journal.forget_before(1001, {other})
    assert not journal.read(KEY).begun
    assert journal.read(other).begun == {0}
