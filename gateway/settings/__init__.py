"""What the operator says, read once and frozen: one TOML file, the environment, mounted secrets.

    values       how a duration, a size, an address, an origin, a name are written
    models       every key, its default and what it is for; `Settings` is the whole
    routes       the tables that there may be several of: [[routes]] and [[issuers]]
    cors         the table of other origins
    rules        combinations of good values that are not safe together
    environment  TOKENGATE_SECTION__KEY variables, laid over the file
    files        secrets, keys and users from files that nobody else may read
    load         file + environment + secrets -> Settings, or lines that name the keys

It imports no other room, and only app.py and cli.py import it.
"""

from gateway.settings.load import SettingsError, check_files, load, read_keys, read_users, sample
from gateway.settings.models import Settings
from gateway.settings.routes import Issuer, Route
from gateway.settings.values import Address, Origin

__all__ = (
    "Address",
    "Issuer",
    "Origin",
    "Route",
    "Settings",
    "SettingsError",
    "check_files",
    "load",
    "read_keys",
    "read_users",
    "sample",
)
