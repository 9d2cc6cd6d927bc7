# The image of the gateway, `edit-router serve`: one program, the C library that it needs, and the authorities of the public web.
#
#   docker build --file docker/router.Dockerfile --tag edit-router .
#
# docker/Dockerfile says how it is kept buildable by Docker and podman. docker/lambda takes its program for the function.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

# ---- The program. Up to its last instruction as in docker/Dockerfile, with the same caches.
FROM ${RUST_IMAGE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY docker/Cargo.toml docker/
COPY crates crates
COPY router-lambda router-lambda
COPY agent agent
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=secret,id=extra_ca \
    --mount=type=cache,id=edit-cargo-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=edit-cargo-target,target=/source/target,sharing=locked \
    if [ -s /run/secrets/extra_ca ]; then export CARGO_HTTP_CAINFO=/run/secrets/extra_ca; fi \
    && find agent crates router-lambda -name '*.rs' -exec touch {} + \
    && LIBZ_SYS_STATIC=1 cargo build --release --locked --package router-lambda --bin edit-router \
    && install -D --mode 0755 target/release/edit-router /out/edit-router \
    && touch --date "@${SOURCE_DATE_EPOCH}" /out/edit-router

# ---- What it needs. The packages' own descriptions go along, for whoever looks for weaknesses in the image.
FROM ${DEBIAN_IMAGE} AS root
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgcc-s1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/edit-router /usr/local/bin/
WORKDIR /root-of-it
RUN ldd /usr/local/bin/edit-router >/tmp/libraries \
    && grep -o '/[^ ]*' /tmp/libraries >/tmp/paths \
    && xargs cp --dereference --parents --target-directory . </tmp/paths \
    && cp --parents /etc/ssl/certs/ca-certificates.crt . \
    && echo 'gateway:x:10001:10001::/nonexistent:/usr/sbin/nologin' >etc/passwd \
    && echo 'gateway:x:10001:' >etc/group \
    && mkdir -p var/lib/dpkg/status.d \
    && for package in ca-certificates libc6 libgcc-s1; do dpkg --status "$package" >"var/lib/dpkg/status.d/$package"; done \
    && find . -exec touch --no-dereference --date @0 {} +

FROM scratch
COPY --from=root /root-of-it/ /
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/edit-router", "health"]
ENTRYPOINT ["/usr/local/bin/edit-router"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="edit-router" \
      org.opencontainers.image.description="The gateway of edit environments: finds the environment of a session, wakes it, and shows it." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
USER 10001:10001
COPY --from=build /out/edit-router /usr/local/bin/
