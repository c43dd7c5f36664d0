"""Pulling with Docker: own requests to the engine, each with a time limit for silence.

docker-py would wait without limit here. But its client is a session of requests, which takes a time-out.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping

import requests

from harness.containers.engine import PullError

_REGISTRY_TIMEOUT_S = 10
_PULL_SILENCE_S = 120


def pull(session: requests.Session, url: str, reference: str, *, name: Mapping[str, str], login: str | None) -> None:
    """Pull an image.

    Args:
        session: to the engine.
        url: of the engine, with the version of its API.
        reference: of the image.
        name: the same as `fromImage` and `tag`.
        login: the encoded credentials that the engine sends to the registry; None for none.

    Raises:
        PullError: the registry does not answer, or does not have it.
    """
    headers = {"X-Registry-Auth": login} if login else {}
    # The engine asks the registry for this at once, so a registry that does not answer shows soon. An engine
    # without this request answers "not found", as does a registry without the image: then the pull decides.
    looked = _call(session, "GET", f"{url}/distribution/{reference}/json", _REGISTRY_TIMEOUT_S, headers=headers)
    with looked as answer:
        if answer.status_code != requests.codes.not_found:
            _refuse_error(answer)
    pulled = _call(session, "POST", f"{url}/images/create", _PULL_SILENCE_S, headers=headers, params=name)
    with pulled as answer:
        _refuse_error(answer)
        for line in answer.iter_lines():
            # A line break that arrives in two pieces looks like an empty line.
            if line and (error := json.loads(line).get("error")):
                raise PullError(error)


@contextlib.contextmanager
def _call(
    session: requests.Session,
    method: str,
    url: str,
    silence_s: float,
    *,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """Send a request to the engine. Raises PullError if nothing arrives for `silence_s` seconds."""
    try:
        with session.request(
            method, url, headers=dict(headers), params=params, timeout=silence_s, stream=True
        ) as response:
            yield response
    except (requests.Timeout, requests.ConnectionError) as error:
        # While a body is read, requests reports a time-out as a connection error.
        if "timed out" not in str(error):
            raise
        raise PullError(f"no answer for {silence_s:g} s") from None


def _refuse_error(response: requests.Response) -> None:
    if response.ok:
        return
    try:
        reason = response.json()["message"]
    except (ValueError, KeyError):
        reason = response.text
    raise PullError(reason.strip() or f"the engine answered {response.status_code}")
