"""``python -P -m harness.inside.web [ROUTES]``: serve the web producer, in its container."""

import logging
import os
import sys

from harness.errors import HarnessError
from harness.inside.web.server import load_routes, serve

_log = logging.getLogger("harness.web")


def main() -> None:
    """Serve the routes of the module named on the command line, or none.

    The environment: HARNESS_JOURNAL (the folder of journals), HARNESS_NODE (the node's name), CELERY_BROKER_URL,
    CELERY_RESULT_BACKEND (a database's), HARNESS_APP (shown), HARNESS_WEB_HOST (all interfaces of the container),
    HARNESS_WEB_PORT (8000).
    """
    # The server's access log, a line per request, goes to the same stream.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    host = os.environ.get("HARNESS_WEB_HOST", "0.0.0.0")  # noqa: S104 - the container's; the host publishes it on loopback.
    try:
        router = load_routes(sys.argv[1]) if sys.argv[1:] else None
        serve(router, host=host, port=int(os.environ.get("HARNESS_WEB_PORT", "8000")))
    except HarnessError as error:
        _log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
