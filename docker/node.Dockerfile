# Celery's worker and beat, the mailbox and the web producer. BASE is either the official slim Python 3.13 or a
# bootstrapped Debian with Python 3.13. The harness's own code is not in here: it is mounted, so an edit needs no build.
ARG BASE
FROM ${BASE}

# Only beat under a shifted clock needs libfaketime. The official Python has none, and the build may have no way to
# Debian's packages: then the image is built without it, and the line beginning with "celery-harness:" is told to the
# caller. The link is where the caller finds the library, whatever the architecture.
RUN find_library() { find /usr/lib -path '*/faketime/libfaketime.so.1' | head -n 1; }; \
    if [ -z "$(find_library)" ]; then \
        apt-get -o Acquire::http::Timeout=10 -o Acquire::Retries=0 update \
            && apt-get install --yes --no-install-recommends libfaketime; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    library="$(find_library)"; \
    mkdir -p /opt/faketime; \
    if [ -n "$library" ]; then \
        ln -s "$library" /opt/faketime/libfaketime.so.1; \
    else \
        echo "celery-harness: no libfaketime in the node image, so beat cannot run under a shifted clock"; \
    fi

COPY wheels /tmp/wheels

# pip leaves its bytecode beside the source, and compileall adds what it left out, so no process compiles at its start.
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps --no-compile /tmp/wheels/*.whl \
    && /opt/venv/bin/pip check \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib \
    && python3 -m compileall -q -j 0 "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && rm -rf /tmp/wheels

# A node runs as the caller's uid, which has no entry in /etc/passwd and therefore no home.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app
ENTRYPOINT []
CMD ["celery", "--version"]
