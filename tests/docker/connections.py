"""Connections that break."""

from urllib.parse import quote

import requests

from harness.stack.stack import Stack


def close_connections(stack: Stack) -> int:
    """Have the broker close every connection of the stack's vhost. Returns how many."""
    base = f"{stack.broker.management_url}/api"
    session = requests.Session()
    session.auth, session.trust_env = stack.broker.administrator, False
    found = session.get(f"{base}/vhosts/{stack.login.vhost}/connections", timeout=10).json()
    for one in found:
        session.delete(f"{base}/connections/{quote(one['name'], safe='')}", timeout=10)
    return len(found)
