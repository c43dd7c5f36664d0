# What an app's image stands on: BASE, which is a plain Python, with the Debian packages that the app's settings name.
ARG BASE
FROM ${BASE}

# The app's packages, separated by blanks. A package that cannot be had ends the build.
ARG PACKAGES=""
RUN if [ -n "$PACKAGES" ]; then \
        apt-get -o Acquire::http::Timeout=30 update \
            && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $PACKAGES \
            && rm -rf /var/lib/apt/lists/*; \
    fi

# As in the node image: only beat under a shifted clock needs libfaketime, and it may not be there to be had.
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
        echo "celery-harness: no libfaketime in the app's image, so beat cannot run under a shifted clock"; \
    fi

# The official Python comes without its bytecode, which no process of a node can write.
RUN python3 -m compileall -q -j 0 "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" || true
