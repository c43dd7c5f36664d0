"""Time limits for the engine's answers, in seconds."""

from typing import Any

import requests
from requests.adapters import BaseAdapter

LOOK_S = 15.0
"""The limit for requests that only read. The others may take as long as the client allows."""
LONGEST_S = 600.0
"""The limit for requests that the client would wait for without limit, such as the import of a base."""
SILENT_S = 2.0
"""The limit for a request after one that had no answer, so that a silent engine is not waited for each time."""


def limit(session: requests.Session) -> None:
    """Bound every request of a session with the engine from now on."""
    silence = _Silence()
    for prefix, adapter in list(session.adapters.items()):
        session.mount(prefix, _Bounded(adapter, silence))


class _Silence:
    """Holds whether the last request had no answer."""

    lasts = False


class _Bounded(BaseAdapter):
    """Sends requests by another adapter, each with its own time limit."""

    def __init__(self, adapter: BaseAdapter, silence: _Silence) -> None:
        super().__init__()
        self._adapter = adapter
        self._silence = silence

    def send(self, request: requests.PreparedRequest, *more: Any, **options: Any) -> requests.Response:
        """Send one request; `options` must be named. Raises what the other adapter does."""
        timeout = options.get("timeout")
        asked_s = timeout[0] if isinstance(timeout, tuple) else timeout
        limits_s = [LONGEST_S if asked_s is None else asked_s]
        limits_s += [LOOK_S] if request.method in {"GET", "HEAD"} else []
        limits_s += [SILENT_S] if self._silence.lasts else []
        try:
            answer = self._adapter.send(request, *more, **{**options, "timeout": min(limits_s)})
        except requests.Timeout:
            self._silence.lasts = True
            raise
        self._silence.lasts = False
        return answer

    def close(self) -> None:
        """Close the other adapter."""
        self._adapter.close()
