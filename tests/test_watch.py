"""When a changed file is taken up: by what is seen of it, once it stands still, and again after a refusal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.watch import RETRY_SECONDS, Watch
from tests.mounts import Mount


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def looks(watch: Watch, number: int) -> list[bool]:
    return [watch.changed() for _ in range(number)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text("one")
    return path


def test_files_that_stay_as_they_are_have_not_changed(file: Path) -> None:
    watch = Watch(lambda: [file, file.parent / "missing", Path("a\0b")])
    assert looks(watch, 3) == [False] * 3


def test_a_change_is_taken_up_at_the_second_look_and_only_once(file: Path) -> None:
    watch = Watch(lambda: [file])
    file.write_text("other")
    assert looks(watch, 3) == [False, True, True]  # until someone begins to read
    watch.begin()
    watch.used()
    assert looks(watch, 3) == [False] * 3


def test_a_file_that_is_still_being_written_is_left_alone(file: Path) -> None:
    watch = Watch(lambda: [file])
    for size in range(4, 10):
        file.write_text("x" * size)
        assert not watch.changed()
    assert watch.changed()


def test_what_changes_while_it_is_read_is_taken_up_once_more(file: Path) -> None:
    watch = Watch(lambda: [file])
    file.write_text("first")
    assert looks(watch, 2) == [False, True]
    watch.begin()
    file.write_text("second one")
    watch.used()
    assert looks(watch, 2) == [False, True]


def _replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(file.stat().st_mtime_ns,) * 2)
    os.replace(other, file)


CHANGES = {
    "replaced by a twin": _replaced,
    "removed": Path.unlink,
    "touched": lambda file: os.utime(file, (1, 1)),
    "given away": lambda file: file.chmod(0o604),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_is_another_by_its_place_its_time_and_its_mode(file: Path, change: object) -> None:
    assert callable(change)
    watch = Watch(lambda: [file])
    change(file)
    assert looks(watch, 2) == [False, True]


def test_a_file_that_comes_later_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "late"
    watch = Watch(lambda: [path])
    path.touch()
    assert looks(watch, 2) == [False, True]


def test_the_swap_of_a_mounted_volume_is_seen_behind_its_links(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "mount", {"gateway.toml": b"one", "a.pem": b"a"})
    link = tmp_path / "link"
    link.symlink_to(mount.path / "gateway.toml")
    for path in (mount.path / "gateway.toml", mount.path, link):
        watch = Watch(lambda path=path: [path])  # type: ignore[misc]  # mypy has no defaults of lambdas
        mount.swap({"gateway.toml": b"one", "a.pem": b"a"})
        assert looks(watch, 2) == [False, True]


@pytest.mark.parametrize(
    ("name", "seen"), [("b.pem", True), ("b.refresh.jwk", True), (".b.pem", False), ("README", False)]
)
def test_of_a_directory_the_keys_count(tmp_path: Path, name: str, seen: bool) -> None:
    (tmp_path / "a.pem").touch()
    watch = Watch(lambda: [tmp_path])
    (tmp_path / name).touch()
    assert looks(watch, 2) == [False, seen]


def test_a_key_that_is_written_over_in_its_directory_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.pem").touch()
    watch = Watch(lambda: [tmp_path])
    (tmp_path / "a.pem").write_text("more")
    assert looks(watch, 2) == [False, True]


def test_a_directory_that_cannot_be_read_is_a_change_and_no_error(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    watch = Watch(lambda: [keys])
    keys.rmdir()
    assert looks(watch, 2) == [False, True]
    keys.write_text("a file")
    assert looks(watch, 2) == [False, True]


def test_what_could_not_be_used_is_told_once_and_tried_again_later_and_at_each_change(file: Path) -> None:
    clock = Clock()
    watch = Watch(lambda: [file], clock)
    watch.begin()
    assert watch.refused("no TOML")
    assert looks(watch, 2) == [False, False]
    clock.now = RETRY_SECONDS
    assert watch.changed()
    watch.begin()
    assert not watch.refused("no TOML")  # the same again is no news
    assert not watch.changed()
    file.write_text("more")
    assert looks(watch, 2) == [False, True]
    watch.begin()
    assert watch.refused("another reason")
    clock.now += RETRY_SECONDS
    assert watch.changed()
    watch.begin()
    watch.used()
    clock.now += RETRY_SECONDS
    assert not watch.changed()
    assert watch.refused("another reason")  # after it was good, it is news again
