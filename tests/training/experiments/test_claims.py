from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from occ_perception.errors import TrainingError
from occ_perception.training.experiments.claims import ClaimedError, claim, holder_of

HOLD = """
import sys
from pathlib import Path
from rich.console import Console
from occ_perception.training.experiments.claims import claim
with claim(Path(sys.argv[1]), Console(stderr=True)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def heard() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_claim_names_its_holder_keeps_others_out_and_leaves_nothing(tmp_path: Path, heard: Console) -> None:
    path = tmp_path / "deep" / "run.lock"
    me = f"process {os.getpid()} on {socket.gethostname()}"
    assert holder_of(path) is None
    with claim(path, heard):
        assert holder_of(path) == me
        with pytest.raises(ClaimedError, match=me), claim(path, heard):
            pass
        assert holder_of(path) == me
    assert holder_of(path) is None
    assert not path.exists()
    assert said(heard) == ""


def test_the_claim_of_a_killed_process_is_taken_over_and_told(tmp_path: Path, heard: Console) -> None:
    path = tmp_path / "run.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert holder_of(path) == f"process {other.pid} on {socket.gethostname()}"
        with pytest.raises(ClaimedError, match=str(other.pid)), claim(path, heard):
            pass
        other.kill()
        other.wait()
    assert path.exists()
    assert holder_of(path) is None
    with claim(path, heard):
        assert f"stale claim of process {other.pid}" in said(heard)
        assert str(os.getpid()) in str(holder_of(path))
    assert not path.exists()


def test_looking_for_the_holder_never_takes_the_lock(
    tmp_path: Path, heard: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.lock"
    with claim(path, heard):
        with monkeypatch.context() as patch:
            patch.setattr("fcntl.flock", lambda *_: pytest.fail("the lock is asked for"))
            assert holder_of(path) == f"process {os.getpid()} on {socket.gethostname()}"
        path.write_text('{"pid": 7, "host": "elsewhere"}')
        assert holder_of(path) == "process 7 on elsewhere"
        path.write_text("")  # claimed, not yet signed
        assert holder_of(path) is None


def test_a_claim_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path, heard: Console) -> None:
    (tmp_path / "claims").write_text("no folder")
    with pytest.raises(TrainingError, match=r"run\.lock: cannot be written"), \
            claim(tmp_path / "claims" / "run.lock", heard):
        pass


def test_who_waits_gets_the_claim_when_its_holder_is_done(tmp_path: Path, heard: Console) -> None:
    path, order = tmp_path / "data.lock", []
    waiting = threading.Event()

    class Telling(io.StringIO):
        def write(self, text: str) -> int:
            waiting.set()
            return super().write(text)

    def second() -> None:
        with claim(path, Console(file=Telling(), width=200), wait=True):
            order.append("second")

    with claim(path, heard):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(20)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert not path.exists()


def test_a_claim_is_given_back_when_its_work_fails(tmp_path: Path, heard: Console) -> None:
    path = tmp_path / "run.lock"
    with pytest.raises(ZeroDivisionError), claim(path, heard):
        raise ZeroDivisionError
    assert not path.exists()
