# What stands for the load balancer in docker/compose.yaml: TLS with a certificate that it makes itself, and the headers that the
# gateway believes.
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nginx-light openssl \
    && rm -rf /var/lib/apt/lists/*
COPY docker/balancer.conf /etc/nginx/nginx.conf
COPY --chmod=0755 docker/balancer /usr/local/bin/
EXPOSE 8443
STOPSIGNAL SIGQUIT
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/balancer"]
