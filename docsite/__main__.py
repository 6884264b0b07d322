"""python -m docsite generate | build: see the package."""

from __future__ import annotations

import argparse
import shutil
import sys

from docsite import build, generated


def main() -> int:
    parser = argparse.ArgumentParser(prog="docsite", description=__doc__)
    parser.add_argument("what", choices=("generate", "build"))
    if parser.parse_args().what == "generate":
        for path in generated.write():
            sys.stdout.write(f"{path.relative_to(generated.ROOT)}\n")
        return 0
    made = build.build(build.default())
    site = generated.ROOT / "build" / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(made, site)
    sys.stdout.write(f"{site.relative_to(generated.ROOT)}/index.html\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
