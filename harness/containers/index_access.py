"""This machine's access to packages: index, certificates and proxies, made ready for a build in a container.

All of it is handed over in files that are mounted, and is in no layer, label or environment of an image. pip itself
tells its configuration, whatever files it is in. What only uv has been told, pip is told too.
"""

import ast
import os
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from harness.errors import ImageError
from harness.project.needs import Mount

BUILD_INSIDE = "/harness-build"
"""The folder of the files inside."""

_TAKEN = (
    "index-url",
    "extra-index-url",
    "no-index",
    "find-links",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
    "prefer-binary",
    "only-binary",
    "no-binary",
)
"""The options that are taken of pip's configuration; the others say how to install on this machine."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_LOOPBACK = re.compile(r"//(?:[^/@\s]*@)?(?:localhost|127(?:\.\d+){3}|\[::1\])(?:[:/]|$)", re.IGNORECASE)
_PIP_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Access:
    """The index, certificates and proxies with which a container fetches packages as this machine does."""

    files: Mapping[str, bytes]
    """Files below BUILD_INSIDE, by name."""
    mounts: tuple[Mount, ...] = ()
    """Folders of this machine that hold packages."""
    on_host: bool = False
    """True if an index or a proxy listens on this machine's loopback."""
    secrets: tuple[str, ...] = ()
    """Texts that must not be shown."""

    def masked(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "****")
        return text


def pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine by name, of the environment and of all its files.

    Raises:
        ImageError: pip is missing, or its configuration is damaged.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command.
            command, capture_output=True, text=True, check=True, timeout=_PIP_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise ImageError(f"pip cannot tell its configuration: {said[-1] if said else error}.") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"pip did not tell its configuration within {_PIP_TIMEOUT_S} s.") from None
    return dict(_in_order(done.stdout.splitlines()))


def _in_order(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each setting, the weaker one of two first."""
    for section in ("global", "install", ":env:"):
        for line in lines:
            key, separator, value = line.partition("=")
            if separator and key.rpartition(".")[0] == section:
                yield key.rpartition(".")[2], str(ast.literal_eval(value))


def access(pip: Mapping[str, str], environment: Mapping[str, str], variables: Sequence[str] = ()) -> Access:
    """Return the access of this machine.

    Args:
        pip: pip's settings, by name.
        environment: of this process.
        variables: the names of variables that requirements refer to.

    Raises:
        ImageError: a file that the configuration names is not there, or a variable is not set.
    """
    settings = {name: value for name, value in pip.items() if name in _TAKEN} | _of_uv(pip, environment)
    exported = _proxies(environment) | {
        "PIP_CONFIG_FILE": f"{BUILD_INSIDE}/pip.conf",
        "PIP_CACHE_DIR": "/harness-cache",
    }
    files: dict[str, bytes] = {}
    if (authorities := _authorities(pip, environment)) is not None:
        files["certificates.pem"] = authorities
        settings["cert"] = f"{BUILD_INSIDE}/certificates.pem"
        exported |= dict.fromkeys((*_CERTIFICATES, "GIT_SSL_CAINFO"), settings["cert"])
    if "client-cert" in pip:
        files["client.pem"] = _content(pip["client-cert"], "pip's client-cert")
        settings["client-cert"] = f"{BUILD_INSIDE}/client.pem"
    if (login := _netrc(environment)) is not None:
        files["netrc"] = login
        exported["NETRC"] = f"{BUILD_INSIDE}/netrc"
    mounts, settings["find-links"] = _links(settings.pop("find-links", ""))
    for name in variables:
        if name not in environment:
            raise ImageError(f"The requirements refer to ${{{name}}}, which is not set: set it in the environment.")
        exported[name] = environment[name]
    files["pip.conf"] = _pip_conf({name: value for name, value in settings.items() if value})
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exported.items()]
    files["environment.sh"] = "\n".join([*lines, ""]).encode()
    addresses = [*settings.values(), *(value for name, value in exported.items() if name.upper() != "NO_PROXY")]
    return Access(
        files=files,
        mounts=mounts,
        on_host=any(_LOOPBACK.search(address) for address in addresses),
        secrets=tuple(
            sorted({*_passwords(addresses), *(environment[name] for name in variables)} - {""}, key=len)[::-1]
        ),
    )


def of_this_machine(variables: Sequence[str] = ()) -> Access:
    """Return the access of this machine; `variables` and errors as of `access` and `pip_settings`."""
    return access(pip_settings(), os.environ, variables)


def build_proxies() -> dict[str, str]:
    """Return the proxies of this machine as arguments of a build; an engine keeps these out of the image."""
    return _proxies(os.environ)


# ------------------------------------------------------------------------------------------------ the parts


def _of_uv(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what only uv has been told."""
    said: dict[str, str] = {}
    index = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    if index and "index-url" not in pip:
        said["index-url"] = _address(index)
    more = f"{environment.get('UV_INDEX', '')} {environment.get('UV_EXTRA_INDEX_URL', '')}".split()
    if more and "extra-index-url" not in pip:
        said["extra-index-url"] = "\n".join(map(_address, more))
    if (links := environment.get("UV_FIND_LINKS")) and "find-links" not in pip:
        said["find-links"] = links.replace(",", "\n")
    if (hosts := environment.get("UV_INSECURE_HOST")) and "trusted-host" not in pip:
        said["trusted-host"] = "\n".join(hosts.split())
    return said


def _address(said: str) -> str:
    """Return the address of an index, which uv may give a name: `name=https://...`."""
    name, separator, address = said.partition("=")
    return address if separator and "/" not in name else said


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    names = (*_PROXIES, *(name.lower() for name in _PROXIES))
    return {name: environment[name] for name in names if environment.get(name)}


def _authorities(pip: Mapping[str, str], environment: Mapping[str, str]) -> bytes | None:
    """Return the certificates of the authorities that this machine trusts."""
    if "cert" in pip:
        return _content(pip["cert"], "pip's cert")
    for name in _CERTIFICATES:
        # A folder of certificates is the system's own way, and is in the file below as well.
        if (said := environment.get(name)) and not Path(said).is_dir():
            return _content(said, name)
    bundle = ssl.get_default_verify_paths().cafile
    return _content(bundle, "OpenSSL's cafile") if bundle and Path(bundle).is_file() else None


def _content(path: str, name: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ImageError(f"{name} is {path}, which cannot be read: {error.strerror}.") from None


def _netrc(environment: Mapping[str, str]) -> bytes | None:
    path = Path(environment.get("NETRC") or Path(environment.get("HOME", "/nonexistent"), ".netrc"))
    return _content(str(path), "NETRC") if path.is_file() else None


def _links(said: str) -> tuple[tuple[Mount, ...], str]:
    """Return the mounts of the local folders among pip's find-links, and find-links with the paths inside."""
    mounts: list[Mount] = []
    inside: list[str] = []
    for link in said.split():
        path = Path(unquote(urlsplit(link).path) if link.startswith("file:") else link).expanduser()
        if "://" in link and not link.startswith("file:"):
            inside.append(link)
        elif path.exists():
            # pip on this machine passes over one that is missing.
            inside.append(f"/harness-links-{len(mounts)}")
            mounts.append(Mount(host=path.resolve(), inside=inside[-1]))
    return tuple(mounts), "\n".join(inside)


def _pip_conf(settings: Mapping[str, str]) -> bytes:
    lines = [f"{name} = " + "\n    ".join(value.split("\n")) for name, value in sorted(settings.items())]
    return "\n".join(["[global]", *lines, ""]).encode()


def _passwords(addresses: Sequence[str]) -> Iterator[str]:
    """Yield the passwords in some addresses, and the user names that stand alone, which are tokens then."""
    for address in addresses:
        for login in re.findall(r"://([^/@\s]+)@", address):
            user, separator, password = login.partition(":")
            yield password if separator else user
