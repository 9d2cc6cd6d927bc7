# The image of the gateway, `edit-router serve`: one program, the C library that it needs, and the authorities of the public web.
#
#   docker build --file docker/router.Dockerfile --tag edit-router .
#
# docker/Dockerfile says how it is kept buildable by Docker and podman. docker/lambda takes its program for the function.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

# ---- The programs, as in docker/Dockerfile, which says why.
FROM ${RUST_IMAGE} AS build
# OpenSSL is the system's, so that Debian's security updates reach it. The versions are those of the day: what this stage
# installs is in no layer of the result.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libssl-dev lld-16 pkg-config \
    && ln -s ld.lld-16 /usr/bin/ld.lld \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# Named one by one: `rust-toolchain.toml` would have rustup fetch components that are not needed here.
COPY Cargo.toml Cargo.lock ./
COPY docker/Cargo.toml docker/
COPY crates crates
COPY router-lambda router-lambda
COPY agent agent
ARG SOURCE_DATE_EPOCH=0
# The caches make the second build a matter of our own crates. Those are always built: cargo goes by the time of a file, and a
# source that is older than the cache may differ from it all the same. zlib is built in, wherever the stage happens to have one.
RUN --mount=type=secret,id=extra_ca \
    --mount=type=cache,id=edit-cargo-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=edit-cargo-target,target=/source/target,sharing=locked \
    if [ -s /run/secrets/extra_ca ]; then export CARGO_HTTP_CAINFO=/run/secrets/extra_ca; fi \
    && find agent crates router-lambda -name '*.rs' -exec touch {} + \
    && LIBZ_SYS_STATIC=1 \
        LIBSQLITE3_FLAGS="-USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE" \
        AGENT_LINK_ARGUMENTS="-fuse-ld=lld -Wl,-O2 -Wl,--icf=all -Wl,-z,pack-relative-relocs" cargo build --release --locked --package edit-agent --package init --package router-lambda \
    && install -D --mode 0755 --target-directory /out/agent target/release/edit-agent target/release/edit-init \
    && install -D --mode 0755 --target-directory /out/router target/release/edit-router \
    && touch --date "@${SOURCE_DATE_EPOCH}" /out/*/*

# ---- What it needs. The packages' own descriptions go along, for whoever looks for weaknesses in the image.
FROM ${DEBIAN_IMAGE} AS root
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgcc-s1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/router/edit-router /usr/local/bin/
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
COPY --from=build /out/router/edit-router /usr/local/bin/
