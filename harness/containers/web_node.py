"""The web producer, from outside: a node that sends tasks when it is asked to over HTTP."""

from collections.abc import Mapping
from pathlib import Path

import requests

from harness.containers.engine import Engine
from harness.containers.node import Node
from harness.containers.worker import agent_spec
from harness.errors import EngineError

HTTP_PORT = 8000
NAME = "web"
_PROBE_TIMEOUT_S = 3


class WebNode(Node):
    """The web producer, on loopback and on its network; ready when it answers."""

    def __init__(
        self,
        engine: Engine,
        *,
        image: str,
        app: str,
        app_folder: Path,
        run_folder: Path,
        network: str,
        broker_url: str,
        routes: str = "",
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            engine: what runs it.
            image: the node image, with FastAPI and uvicorn in it.
            app: what ``celery -A`` gets; it is shown, and not imported.
            app_folder: the folder that `routes` is imported from.
            run_folder: the run's folder, with `journal` and the result tables in it.
            network: where the broker is.
            broker_url: as seen from inside `network`.
            routes: the module with the app's own routes; see `harness.inside.web`. Empty for none.
            env: more environment; it wins over all that the harness sets.
            labels: more labels.
        """
        spec = agent_spec(
            name=NAME,
            image=image,
            module="web",
            command=(routes,) if routes else (),
            app_folder=app_folder,
            run_folder=run_folder,
            broker_url=broker_url,
            env={"HARNESS_APP": app, **(env or {})},
            ports=(HTTP_PORT,),
            labels=labels,
        )
        super().__init__(engine, spec, network=network, missing=self._lacks)

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
