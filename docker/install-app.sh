#!/bin/sh
# Fills /opt/venv with an app's dependencies. It runs in a container of its own, as the caller.
# $1 is `exact` if the requirements are complete, so that nothing is resolved.
set -eu
. /harness-build/environment.sh

say() { echo "celery-harness: $*"; }

pip() { /opt/venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }

version_of() {
    /opt/venv/bin/python -c 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))' "$1" 2>/dev/null
}

say "environment"
python3 -m venv /opt/venv

say "dependencies"
set -- "${1:-}" --requirement /harness-build/requirements.txt --constraint /harness-build/constraints.txt
if [ "$1" = exact ]; then set -- "$@" --no-deps; fi
shift
pip install "$@"

# The agent keeps results in a database through Celery, which says itself which SQLAlchemy it works with. What the app
# has brought stays as it is.
if celery="$(version_of celery)" && ! version_of sqlalchemy >/dev/null; then
    say "SQLAlchemy"
    pip freeze --all | grep '^[A-Za-z0-9._-]*==' >/tmp/installed.txt
    more=
    case "$celery" in 5.2.*) more='sqlalchemy<2.1' ;; esac
    # shellcheck disable=SC2086
    pip install --constraint /tmp/installed.txt "celery[sqlalchemy]==$celery" $more
fi

pip list --format=json >/harness-out/packages.json
