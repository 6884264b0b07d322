"""What `tokengate demo` prints is true: the lines that it gives to paste do what stands above them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.e2e.wire import ask, request
from tests.web.sites import Demo


def test_the_three_lines_to_paste_do_what_they_say(brief_demo: Demo) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    first, second, third = re.findall(r"^\d\. .*\n(.*)\n", brief_demo.said, re.MULTILINE)
    assert "sleep 4;" in second  # a second longer than these tokens live
    ran = subprocess.run(
        ["bash", "-c", f"{first}\necho; echo ====\n{second}\necho; echo ====\n{third}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env={"PATH": os.environ["PATH"]},
    )
    told = [
        re.findall(r"^(?:HTTP/1\.1 (\d+)|x-gateway-error: (\w+))", part, re.MULTILINE | re.IGNORECASE)
        for part in parts(ran.stdout)
    ]
    assert [[status or code for status, code in each] for each in told] == [
        ["200"],
        ["401", "expired_token", "200"],
        ["204", "401", "revoked_token"],
    ]
    assert '"x-auth-request-user": "u-demo"' in parts(ran.stdout)[0]


def parts(text: str) -> list[str]:
    return text.split("====\n")


def test_a_demo_that_is_moved_says_where_it_is_and_issues_its_tokens_there(brief_demo: Demo) -> None:
    assert f"tokengate demo: open {brief_demo.url} in a browser" in brief_demo.said
    assert "Access tokens live for 3 seconds here." in brief_demo.said
    metadata = ask(brief_demo.port, request("GET", "/.well-known/oauth-authorization-server", {"Connection": "close"}))
    assert metadata.json()["issuer"] == brief_demo.url
