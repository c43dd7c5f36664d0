"""The errors of pip, each explained in one sentence that names what to change."""

import re
from collections.abc import Callable, Sequence

_SYSTEM_PACKAGES = (
    (r"pg_config|libpq-fe\.h", "libpq-dev build-essential python3-dev"),
    (
        r"mysql_config|mysqlclient|mariadb_config|mysql\.h",
        "default-libmysqlclient-dev pkg-config build-essential python3-dev",
    ),
    (r"ffi\.h", "libffi-dev build-essential python3-dev"),
    (r"openssl/\w+\.h", "libssl-dev build-essential python3-dev"),
    (r"libxml/\w+\.h|xmlversion\.h|libxslt", "libxml2-dev libxslt1-dev build-essential python3-dev"),
    (
        r"jpeglib\.h|headers or library files could not be found for jpeg",
        "libjpeg-dev zlib1g-dev build-essential python3-dev",
    ),
    (r"zlib\.h", "zlib1g-dev build-essential python3-dev"),
    (r"lber\.h|ldap\.h", "libldap2-dev libsasl2-dev build-essential python3-dev"),
    (r"curl-config", "libcurl4-openssl-dev libssl-dev build-essential python3-dev"),
    (r"Python\.h", "build-essential python3-dev"),
    (r"pkg-config.*not found|pkg-config: (?:command )?not found", "pkg-config build-essential python3-dev"),
    (r"'cmake'|cmake.*not found", "cmake build-essential python3-dev"),
    (r"rustc|cargo", "cargo build-essential python3-dev"),
    (r"g\+\+|c\+\+.*(?:not found|No such file)|cc1plus", "build-essential python3-dev"),
    (r"gcc|cc.*No such file", "build-essential python3-dev"),
)
"""The words of a build that fails, and the Debian packages that it needs then."""
_UNREACHABLE = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Connection refused|ConnectTimeoutError"
    r"|Network is unreachable|CERTIFICATE_VERIFY_FAILED|ProxyError|(?:401|403|407) Client Error"
)
_NO_MATCH = re.compile(r"No matching distribution found for (?P<what>[^\n]+)")
_VERSIONS = re.compile(r"\(from versions: (?P<versions>[^)]*)\)")
_OTHER_PYTHON = re.compile(r"Package '(?P<what>[^']+)' requires a different Python: \S+ not in '(?P<demand>[^']+)'")
_PASSED_OVER = re.compile(r"Ignored the following versions that require a different python version: (?P<which>[^\n]+)")
_BUILD_FAILED = (
    re.compile(
        r"Failed to build (?:installable wheels for some pyproject\.toml based projects \()?'?(?P<what>[\w.-]+)"
    ),
    re.compile(r"Failed building wheel for (?P<what>[\w.-]+)"),
    re.compile(r"Encountered error while generating package metadata.*?╰─> (?:See above|(?P<what>[\w.-]+))", re.DOTALL),
)
_SDIST = re.compile(
    r"(?:Downloading|Using cached|Processing) (?:\S*/)?(?P<what>\w[\w.-]*?)-(?P<version>\d[\w.]*)\.(?:tar\.gz|zip)"
)
_CONFLICT = re.compile(r"The conflict is caused by:\n(?P<lines>(?:[ \t]+[^\n]+\n)+)")
_HASHES = re.compile(r"THESE PACKAGES DO NOT MATCH THE HASHES|Hashes are required in --require-hashes mode")
_NO_GIT = re.compile(r"Cannot find command 'git'")
_UNSATISFIABLE = "no version of it is in the index of this machine"


def explain(log: str, *, where: Callable[[str], str], python: str) -> str:
    """Return why pip failed; the last line of pip's own error if nothing is known about it.

    Args:
        log: all that was said.
        where: returns the file, with the line, that asks for a package.
        python: the version of the app's Python.
    """
    for explained in (_conflict, _different_python, _no_hash, _no_match, _no_build):
        if said := explained(log, where, python):
            return said
    if seen := _UNREACHABLE.search(log):
        return _unreachable(seen[0])
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR: ") if errors else "pip said no reason."


def _unreachable(seen: str) -> str:
    return (
        f"The index of this machine could not be reached from a container ({seen}): its address, certificates and "
        "proxies are those of pip's configuration and of the environment."
    )


def _no_match(log: str, where: Callable[[str], str], python: str) -> str:
    if (found := _NO_MATCH.search(log)) is None:
        return ""
    what = found["what"].partition(" (from")[0].strip()
    had = _VERSIONS.search(log)
    versions = [one.strip() for one in had["versions"].split(",")] if had else []
    if not versions or versions == ["none"]:
        # An index that does not answer has no versions either.
        if seen := _UNREACHABLE.search(log):
            return _unreachable(seen[0])
        there = _UNSATISFIABLE
        if passed := _PASSED_OVER.search(log):
            there = f"its versions are for other Pythons ({_last(passed['which'].split(';'))})"
    else:
        there = f"the index has {_last(versions)} for this Python"
    return f"{where(what)} asks for {what}, which cannot be had for Python {python}: {there}."


def _different_python(log: str, where: Callable[[str], str], python: str) -> str:
    if (found := _OTHER_PYTHON.search(log)) is None:
        return ""
    return (
        f"{where(found['what'])} asks for {found['what']}, which needs Python {found['demand']}, and the image has "
        f"{python}: set another `python` in the settings, or another version there."
    )


def _no_build(log: str, where: Callable[[str], str], python: str) -> str:
    if _NO_GIT.search(log):
        return (
            'A dependency comes from a Git repository, and the image has no git: set `apt = ["git"]` in the settings.'
        )
    what = next((found["what"] for one in _BUILD_FAILED if (found := one.search(log)) and found["what"]), "")
    sources = [(found["what"], found["version"]) for found in _SDIST.finditer(log)]
    if not what and ("metadata-generation-failed" in log or "subprocess-exited-with-error" in log) and sources:
        what = sources[-1][0]
    if not what:
        return ""
    version = next((version for name, version in sources if _same(name, what)), "")
    packages = next((needed for said, needed in _SYSTEM_PACKAGES if re.search(said, log)), "")
    listed = ", ".join(f'"{one}"' for one in packages.split())
    hint = (
        f"set `apt = [{listed}]` in the settings"
        if packages
        else "a package of Debian may be missing: see `apt` in the settings"
    )
    named = " ".join(filter(None, (what, version)))
    return (
        f"{where(what)} asks for {named}, which has no wheel for Python {python} and could not be built from its "
        f"source: {hint}, or take a version that has a wheel."
    )


def _conflict(log: str, where: Callable[[str], str], python: str) -> str:
    if (found := _CONFLICT.search(log)) is None:
        return ""
    lines = "; ".join(line.strip() for line in found["lines"].splitlines())
    first = found["lines"].strip().removeprefix("The user requested ").split()[0]
    return f"The dependencies contradict each other for Python {python}: {lines} ({where(first)})."


def _no_hash(log: str, where: Callable[[str], str], python: str) -> str:
    del python
    if _HASHES.search(log) is None:
        return ""
    return (
        f"The files of the index are not those whose hashes are in {where('')}, or some have no hash there; lock again."
    )


def _same(one: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _last(versions: Sequence[str]) -> str:
    shown = [one.strip() for one in versions if one.strip()][-5:]
    return ("..., " if len(versions) > len(shown) else "") + ", ".join(shown)
