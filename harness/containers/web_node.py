"""The web producer as a node: it sends a task for each HTTP request that asks for one."""

from dataclasses import replace

import requests

from harness.containers.app_node import AppNode
from harness.containers.engine import Engine
from harness.containers.node import Node
from harness.errors import EngineError
from harness.records.values import Json

HTTP_PORT = 8000
NAME = "web"
_PROBE_TIMEOUT_S = 3
_POST_TIMEOUT_S = 10
_SHOWN = 300
"""The most characters of an answer that are shown."""


class WebNode(Node):
    """The web producer, on loopback and on its network; ready when it answers."""

    def __init__(self, engine: Engine, app: AppNode, *, routes: str = "", port: int = 0) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            app: the app's settings, with FastAPI and uvicorn in its image. The app's name is shown; it is not imported.
            routes: the module with the app's own routes; see `harness.inside.web`. Empty for none.
            port: its port on this machine, which a restart does not change; if it is 0, the engine picks one.
        """
        command = (routes,) if routes else ()
        spec = app.spec(NAME, command, module="web", env={"HARNESS_APP": app.app}, ports=(HTTP_PORT,))
        if port:
            spec = replace(spec, kept_ports={HTTP_PORT: port})
        super().__init__(engine, spec, network=app.network, missing=self._lacks)

    @property
    def url(self) -> str:
        """Its URL, such as ``http://127.0.0.1:32768``; a restart may change it."""
        host, port = self.container.host_port(HTTP_PORT)
        return f"http://{host}:{port}"

    def post(self, path: str, body: Json) -> tuple[int, str]:
        """Post a JSON value to a path, and return the status and the beginning of the answer. Raises EngineError."""
        try:
            with requests.Session() as http:
                http.trust_env = False
                answer = http.post(f"{self.url}{path}", json=body, timeout=_POST_TIMEOUT_S)
        except requests.RequestException as error:
            raise EngineError(f"{self.name} does not answer: {error}") from error
        return answer.status_code, answer.text[:_SHOWN]

    def _lacks(self) -> str | None:
        try:
            # A proxy that the environment names cannot reach this machine's loopback.
            with requests.Session() as http:
                http.trust_env = False
                answer = http.get(f"{self.url}/health", timeout=_PROBE_TIMEOUT_S)
        except (requests.RequestException, EngineError) as error:
            return f"an answer over HTTP ({error})"
        return None if answer.ok else f"a healthy answer over HTTP ({answer.status_code})"
