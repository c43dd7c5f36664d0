# A key-value server. BASE is either the official image or a bootstrapped Debian with the package redis-server; nothing
# below may depend on which.
ARG BASE
FROM ${BASE}

COPY redis.conf start-redis /etc/celery-harness/

USER redis
WORKDIR /tmp
ENTRYPOINT []
CMD ["/bin/sh", "/etc/celery-harness/start-redis"]
