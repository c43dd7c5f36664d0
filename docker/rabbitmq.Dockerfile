# The broker. BASE is either the official image with the management plugin or a bootstrapped Debian with the
# package rabbitmq-server; nothing below may depend on which.
ARG BASE
FROM ${BASE}

# /opt/rabbitmq and /opt/erlang are the official image's, /usr/lib/rabbitmq/bin is Debian's. There, the programs of
# the same names in /usr/sbin are wrappers that insist on a user and a configuration of their own.
# RABBITMQ_CONFIG_FILES names an empty folder, so that no file of a base's own is read beside ours.
ENV PATH=/opt/rabbitmq/sbin:/opt/erlang/bin:/opt/openssl/bin:/usr/lib/rabbitmq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/srv/rabbitmq \
    RABBITMQ_CONFIG_FILE=/etc/celery-harness/rabbitmq.conf \
    RABBITMQ_ADVANCED_CONFIG_FILE=/etc/celery-harness/advanced.config \
    RABBITMQ_CONFIG_FILES=/etc/celery-harness/conf.d \
    RABBITMQ_ENABLED_PLUGINS_FILE=/etc/celery-harness/enabled_plugins \
    RABBITMQ_MNESIA_BASE=/srv/rabbitmq/mnesia \
    RABBITMQ_LOGS=-

COPY rabbitmq.conf advanced.config enabled_plugins /etc/celery-harness/

# The data lie outside /var/lib/rabbitmq, which the official image declares a volume, and whatever uid the server runs
# under may write them. The Erlang cookie is made in HOME at the first start, so no two brokers share one by accident.
#
# The server looks through every plugin that is installed, enabled or not, and through its folder for every module it
# loads. Without those that nothing here needs, it starts in half the processor time.
RUN set -e; \
    mkdir -p /etc/celery-harness/conf.d /srv/rabbitmq/mnesia; \
    cd "$(dirname "$(readlink -f "$(command -v rabbitmq-server)")")/../plugins"; \
    export RABBITMQ_PLUGINS_DIR="$PWD"; \
    rabbitmq-plugins --quiet list --minimal > /tmp/installed; \
    rabbitmq-plugins --quiet list --minimal --implicitly-enabled > /tmp/needed; \
    grep -q -x rabbitmq_management /tmp/needed; \
    for plugin in $(grep -v -x -F -f /tmp/needed /tmp/installed); do rm -rf "$plugin"-[0-9]*; done; \
    rm -rf /tmp/installed /tmp/needed /srv/rabbitmq/.erlang.cookie; \
    chown -R rabbitmq:rabbitmq /etc/celery-harness /srv/rabbitmq; \
    chmod -R a+rwX /srv/rabbitmq

USER rabbitmq
ENTRYPOINT []
CMD ["rabbitmq-server"]
