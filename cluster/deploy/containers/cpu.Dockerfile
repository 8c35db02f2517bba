# Propulsion for CPUs, for training and serving, alone and on Ray.
#   docker build -f cluster/deploy/containers/cpu.Dockerfile -t propulsion:cpu .
ARG PYTHON=python:3.11.13

FROM ${PYTHON}-bookworm AS build
ENV VIRTUAL_ENV=/opt/propulsion PATH=/opt/propulsion/bin:$PATH UV_LINK_MODE=copy
RUN python -m venv /opt/propulsion
WORKDIR /src
COPY pyproject.toml ./
COPY propulsion/version.py propulsion/version.py
COPY requirements requirements
COPY cluster/deploy/containers/install.sh cluster/deploy/containers/install.sh
RUN cluster/deploy/containers/install.sh cpu
COPY . .
RUN python -m propulsion.kernels.build --device cpu \
    && uv pip install --no-cache --no-deps --no-build-isolation .

FROM ${PYTHON}-slim-bookworm
# Debian keeps one version of a package: a pin would break the build and guard nothing. vLLM needs
# libnuma; KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libnuma1 wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 propulsion \
    && useradd --uid 10001 --gid 10001 --create-home propulsion
COPY --from=build /opt/propulsion /opt/propulsion
ENV PATH=/opt/propulsion/bin:$PATH PYTHONUNBUFFERED=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 10001:10001
WORKDIR /home/propulsion
EXPOSE 8000
# Of `propulsion serve`; Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8000/health"]
ENTRYPOINT ["propulsion"]
CMD ["--help"]
