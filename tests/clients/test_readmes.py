"""The Python client's README: its examples do what it says, on a real gateway, and its tables name what there is."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tokengate_client
from tokengate_client import Session, TokengateError, TooManyAttempts

from tests.e2e.harness import PASSWORD, Gateway

CLIENT = Path(__file__).parents[2] / "clients" / "python"
README = (CLIENT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

_PRINTED = [
    "200\n",
    "{200}\n200\n",
    "['nightly export']\n",
    "600.0\n",
]
# The keyring of a machine without one: kept in memory.
_KEYRING = """
import keyring, keyring.backend
class Keyring(keyring.backend.KeyringBackend):
    priority = 1
    kept = {}
    def get_password(self, service, username): return self.kept.get((service, username))
    def set_password(self, service, username, password): self.kept[service, username] = password
    def delete_password(self, service, username): del self.kept[service, username]
keyring.set_keyring(Keyring())
"""


def run(gateway: Gateway, home: Path, code: str) -> subprocess.CompletedProcess[str]:
    here = code.replace("https://api.example.com", f"http://127.0.0.1:{gateway.port}").replace(
        "correct horse", PASSWORD
    )
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(CLIENT)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", here],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env=environ,
    )


def test_every_example_is_tested() -> None:
    assert len(BLOCKS) == len(_PRINTED)


@pytest.mark.parametrize(("block", "printed"), list(zip(BLOCKS, _PRINTED, strict=True)), ids=range(len(BLOCKS)))
def test_an_example_prints_what_it_should(gateway: Gateway, tmp_path: Path, block: str, printed: str) -> None:
    code = _KEYRING + block if "keyring" in block else block
    ran = run(gateway, tmp_path, code)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == printed


def test_the_file_goes_on_where_it_ended(gateway: Gateway, tmp_path: Path) -> None:
    code = next(block for block in BLOCKS if "FileStore" in block)
    assert run(gateway, tmp_path, code).returncode == 0
    ran = run(gateway, tmp_path, code.replace(f'session.login("alice", "{PASSWORD}")', "raise SystemExit(7)"))
    assert (ran.returncode, ran.stdout) == (0, "['nightly export']\n")


def test_every_option_is_told() -> None:
    names = [name for name in inspect.signature(Session.__init__).parameters if name != "self"]
    told = README.partition("\n## Options\n")[2].partition("\n## ")[0]
    assert [name for name in names if f"| `{name}` |" not in told] == []


def test_every_error_is_told_with_its_code_and_its_text() -> None:
    for name in tokengate_client.__all__:
        kind = getattr(tokengate_client, name)
        if not isinstance(kind, type) or not issubclass(kind, TokengateError) or name in {"TokengateError", "Refused"}:
            continue
        text = str(TooManyAttempts(40)) if kind is TooManyAttempts else kind.text
        assert f"| `{name}` | `{kind.code}` | {text} |" in README


def test_every_method_is_told() -> None:
    told = README.partition("\n## The session\n")[2].partition("\n## ")[0]
    names = [name for name in vars(Session) if not name.startswith("_") and name not in {"is_stale", "revoked"}]
    assert len(names) > 8
    assert [name for name in names if f"`{name}" not in told] == []


def test_the_wheel_has_all_its_modules_and_says_that_it_is_typed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=CLIENT, check=True, capture_output=True, timeout=50)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("tokengate_client/")}
    modules = {f"tokengate_client/{path.name}" for path in (CLIENT / "tokengate_client").glob("*.py")}
    assert names == modules | {"tokengate_client/py.typed"}
