"""The order of the pages. A test holds that every page of the site is here, and that every page here is there."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator

Nav = dict[str, "str | Nav"]

NAV: Nav = {
    "Start": {
        "tokengate": "index.md",
        "Quick start": "quickstart.md",
        "The demo": "demo.md",
        "Examples": "examples.md",
        "README": "readme.md",
    },
    "Concepts": {
        "Concepts": "concepts.md",
        "Rotation of refresh tokens": "rotation.md",
        "Security": "security.md",
    },
    "Reference": {
        "Configuration": "configuration.md",
        "HTTP API": "http-api.md",
        "HTTP reference": "http-reference.md",
        "Metrics": "metrics.md",
        "JavaScript client": "clients/javascript.md",
        "Python client": "clients/python.md",
        "Changes": "changelog.md",
    },
    "Deploy": {
        "Deployment": "deployment.md",
        "Kubernetes": "kubernetes.md",
        "Existing backends": "backends.md",
        "Forward-auth": "forward-auth.md",
        "Other issuers": "issuers.md",
    },
    "Operate": {
        "Keys": "operations/keys.md",
        "Observability": "operations/observability.md",
        "Monitoring": "operations/monitoring.md",
        "Capacity": "operations/capacity.md",
        "Benchmarks": "benchmarks.md",
        "When Redis fails": "operations/failures.md",
    },
    "Migrate": {
        "From oauth2-proxy": "migrate/oauth2-proxy.md",
        "From SuperTokens": "migrate/supertokens.md",
        "From homemade JWT sessions": "migrate/homemade-jwt.md",
    },
    "Decisions": "decisions",  # every page of that folder, by its heading
}


def pages(nav: Nav = NAV) -> Iterator[str]:
    """Return every page and folder that the navigation names."""
    for entry in nav.values():
        if isinstance(entry, str):
            yield entry
        else:
            yield from pages(entry)


def toml(there: Container[str], folders: dict[str, list[str]], nav: Nav = NAV) -> str:
    """Return the navigation for zensical.toml, without the pages that are not there."""
    entries = []
    for title, entry in nav.items():
        if isinstance(entry, dict):
            below = toml(there, folders, entry)
            if below != "[]":
                entries.append(f"{{ {json.dumps(title)} = {below} }}")
        elif entry in folders:
            entries.append(f"{{ {json.dumps(title)} = {json.dumps(folders[entry])} }}")
        elif entry in there:
            entries.append(f"{{ {json.dumps(title)} = {json.dumps(entry)} }}")
    return f"[{', '.join(entries)}]"
