# An app's own image: its dependencies in a virtual environment, on BASE. The environment was filled in a container that
# had the index, the certificates and the proxies of the caller; none of them is in here.
# Each instruction costs seconds on some engines, so there are no more than needed.
ARG BASE
FROM ${BASE}

ADD venv.tar /opt/venv/

# A node runs as the caller's uid, which has no entry in /etc/passwd and therefore no home.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
