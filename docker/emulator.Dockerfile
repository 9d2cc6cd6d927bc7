# AWS on one machine, for docker/compose.yaml: ministack, with what infra/data.yaml makes and the clients of fixtures/clients in it.
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim
FROM ${DEBIAN_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=extra_ca \
    if [ -s /run/secrets/extra_ca ]; then export PIP_CERT=/run/secrets/extra_ca; fi \
    && python3 -m venv /opt/emulator \
    && /opt/emulator/bin/pip install --no-cache-dir --disable-pip-version-check ministack==1.5.33 boto3==1.43.106
COPY infra/data.yaml docker/emulator.py /opt/emulator/
COPY fixtures/clients /opt/emulator/clients
EXPOSE 4566
STOPSIGNAL SIGKILL
USER 10001:10001
ENTRYPOINT ["/opt/emulator/bin/python", "/opt/emulator/emulator.py"]
