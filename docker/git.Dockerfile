# A git server over ssh, for docker/compose.yaml: a repository for each client of fixtures/clients, made from fixtures/amelia-astro.
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && useradd --uid 10001 --create-home --home-dir /srv/git --shell /usr/bin/git-shell git \
    && usermod --password '*' git \
    && mkdir /keys
COPY fixtures/amelia-astro /srv/site
COPY fixtures/clients /srv/clients
COPY --chmod=0755 docker/git-server /usr/local/bin/
VOLUME ["/keys", "/srv/git"]
EXPOSE 22
ENTRYPOINT ["/usr/local/bin/git-server"]
