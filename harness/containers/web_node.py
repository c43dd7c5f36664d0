"""The web producer, from outside: a node that sends tasks when it is asked to over HTTP."""

import requests

from harness.containers.app_node import AppNode
from harness.containers.engine import Engine
from harness.containers.node import Node
from harness.errors import EngineError

HTTP_PORT = 8000
NAME = "web"
_PROBE_TIMEOUT_S = 3


class WebNode(Node):
    """The web producer, on loopback and on its network; ready when it answers."""

    def __init__(self, engine: Engine, app: AppNode, *, routes: str = "") -> None:
        """Nothing is started yet.

        Args:
            engine: what runs it.
            app: what it is a node of, with FastAPI and uvicorn in its image. The app is shown, and not imported.
            routes: the module with the app's own routes; see `harness.inside.web`. Empty for none.
        """
        command = (routes,) if routes else ()
        spec = app.spec(NAME, command, module="web", env={"HARNESS_APP": app.app}, ports=(HTTP_PORT,))
        super().__init__(engine, spec, network=app.network, missing=self._lacks)

    @property
    def url(self) -> str:
        """Where it answers, such as ``http://127.0.0.1:32768``; after a restart it may be another."""
        host, port = self.container.host_port(HTTP_PORT)
        return f"http://{host}:{port}"

    def _lacks(self) -> str | None:
        try:
            # A proxy that the environment names has no way to this machine's loopback.
            with requests.Session() as http:
                http.trust_env = False
                answer = http.get(f"{self.url}/health", timeout=_PROBE_TIMEOUT_S)
        except (requests.RequestException, EngineError) as error:
            return f"an answer over HTTP ({error})"
        return None if answer.ok else f"a healthy answer over HTTP ({answer.status_code})"
