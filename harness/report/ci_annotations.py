"""The remarks that CI systems show at a job: commands in the log for GitHub Actions, a file of links for GitLab."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from harness.audit.audit import Audit
from harness.audit.run_folder import HOME, keep_out_of_version_control
from harness.printable import printable
from harness.records.regular_file import replacing
from harness.records.values import Json
from harness.records.verdict import Finding, Verdict

GITLAB_FILE = Path(HOME) / "gitlab-annotations.json"
"""The file in the folder of the project that GitLab reads as `artifacts:reports:annotations`."""
_SECTION = "Celery Harness"
_MOST = 9
"""The most findings of a kind. GitHub shows ten of a kind for a step; the tenth says that there are more."""
_LONGEST = 4_000
"""The most bytes of a title or a message as it is written; GitHub cuts off what is longer than 4 KB."""
_CUT = "…"
_COMMANDS = {Verdict.FAIL: "error", Verdict.UNKNOWN: "warning"}


def of_audit(name: str, audited: Audit, folder: Path) -> Iterator[str]:
    """Yield the commands that annotate a step of GitHub Actions.

    A broken promise is an error, and a finding that is unknown a warning.
    """
    for verdict in (Verdict.FAIL, Verdict.UNKNOWN):
        found = [one for one in audited.findings if one.verdict is verdict]
        for one in found[:_MOST]:
            yield command(_COMMANDS[verdict], f"{name}: {one.code}", _words(one, folder))
        if len(found) > _MOST:
            more = f"and {len(found) - _MOST} more; the summary of the step and the report have all of them."
            yield command(_COMMANDS[verdict], name, more)


def _words(finding: Finding, folder: Path) -> str:
    return "\n".join([finding.sentence, *finding.reason_lines, f"run folder: {folder}"])


def command(kind: str, title: str, text: str) -> str:
    """Return a command of GitHub Actions in one line, in which nothing of the texts can begin another one."""
    return f"::{kind} title={_escaped(printable(title), ':,')}::{_escaped(printable(text))}"


def _escaped(text: str, more: str = "") -> str:
    """Return a text as it stands in a command; one that would be too long is cut off, between two characters."""
    made = [f"%{ord(one):02X}" if one in f"%\r\n{more}" else one for one in text]
    if _bytes(made) <= _LONGEST:
        return "".join(made)
    left, kept = _LONGEST - len(_CUT.encode()), list[str]()
    for one in made:
        left -= _bytes([one])
        if left < 0:
            break
        kept.append(one)
    return "".join([*kept, _CUT])


def _bytes(parts: Iterable[str]) -> int:
    return sum(len(one.encode()) for one in parts)


def link_for_gitlab(name: str, verdict: Verdict, report: Path, environ: Mapping[str, str]) -> None:
    """Add a link to a report to the file of this job. Raises OSError.

    Args:
        name: of the run.
        verdict: of the run.
        report: the report, which the job keeps as an artefact.
        environ: the variables of the job. Without its address there is no link.
    """
    address, project = environ.get("CI_JOB_URL"), Path(environ.get("CI_PROJECT_DIR") or Path.cwd())
    if not address or not report.absolute().is_relative_to(project.absolute()):
        return
    inside = report.absolute().relative_to(project.absolute()).as_posix()
    link = {"label": printable(f"{name}: {verdict.value}"), "url": f"{address}/artifacts/file/{quote(inside)}"}
    target = project / GITLAB_FILE
    target.parent.mkdir(exist_ok=True)
    keep_out_of_version_control(target.parent)
    links = [*_links_in(target, address), {"external_link": link}]
    with replacing(target) as partial:
        partial.write_text(json.dumps({_SECTION: links}, indent=2) + "\n", encoding="utf-8")


def _links_in(path: Path, address: str) -> list[Json]:
    """Return the links of this job that the file has already; a file of another job, or of nobody's, has none."""
    try:
        links = json.loads(path.read_text(encoding="utf-8"))[_SECTION]
        return [one for one in links if str(one["external_link"]["url"]).startswith(f"{address}/")]
    except (OSError, ValueError, TypeError, KeyError):
        return []
