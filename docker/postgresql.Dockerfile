# A database server. BASE is either the official image or a bootstrapped Debian with the package postgresql; nothing
# below may depend on which.
ARG BASE
FROM ${BASE}

ENV LANG=C.UTF-8 \
    PGDATA=/srv/postgresql/data \
    PATH=/opt/postgresql/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

COPY postgresql.conf pg_hba.conf start-postgresql /etc/celery-harness/

# The data lie outside of /var/lib/postgresql, which the official image declares a volume. The cluster is made here, so
# that a start takes a fraction of a second. Its administrator gets a password at the start.
RUN set -e; \
    ln -s "$(ls -d /usr/lib/postgresql/* | sort -V | tail -n 1)" /opt/postgresql; \
    mkdir -p /srv/postgresql; \
    chown postgres:postgres /srv/postgresql

USER postgres
RUN initdb --username=harness --encoding=UTF8 --locale=C.UTF-8 --auth=reject --no-sync

ENTRYPOINT []
CMD ["/bin/sh", "/etc/celery-harness/start-postgresql"]
