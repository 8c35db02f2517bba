# Propulsion for NVIDIA GPUs, for training and serving, alone and on Ray; kernels are compiled here.
#   docker build -f cluster/deploy/containers/cuda.Dockerfile -t propulsion:cuda .
# The toolkit is of the CUDA that PyTorch's wheels bring; the final image takes CUDA from them.
ARG CUDA=nvidia/cuda:13.0.2
ARG ARCHITECTURES=80,86,89,90,100,120

FROM ${CUDA}-devel-ubuntu24.04 AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*
ENV VIRTUAL_ENV=/opt/propulsion PATH=/opt/propulsion/bin:$PATH UV_LINK_MODE=copy
RUN python3.12 -m venv /opt/propulsion
WORKDIR /src
COPY pyproject.toml ./
COPY propulsion/version.py propulsion/version.py
COPY requirements requirements
COPY cluster/deploy/containers/install.sh cluster/deploy/containers/install.sh
RUN cluster/deploy/containers/install.sh cuda
COPY . .
ARG ARCHITECTURES
RUN python -m propulsion.kernels.build --device cuda --architectures "${ARCHITECTURES}" \
    && python -m propulsion.kernels.build --device cpu \
    && uv pip install --no-cache --no-deps --no-build-isolation .

FROM ${CUDA}-base-ubuntu24.04
# Debian and Ubuntu keep one version of a package: a pin would break the build and guard nothing.
# Triton compiles its launchers with gcc when they are first used; KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libnuma1 python3.12-dev wget \
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
