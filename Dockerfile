# syntax=docker/dockerfile:1
# The distilbert-kd command in a small image; docs/docker.md shows how to build, run and pin it.
#
# A tag moves. For a build that can be repeated, name a digest:
#   --build-arg BASE_IMAGE=python:3.11-slim-bookworm@sha256:<digest>
ARG BASE_IMAGE=python:3.11-slim-bookworm


FROM ${BASE_IMAGE} AS build

# Where torch comes from. The default has no CUDA, which saves gigabytes; empty: PyPI, whose build for Linux has it.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
# Extras of the package, such as "demo", separated by commas.
ARG EXTRAS=""

# The base image's pip installs into the environment, which so carries none itself.
RUN python3 -m venv --without-pip /opt/venv
WORKDIR /src

# Torch alone comes from its index, and in a layer of its own that outlives changes of the code. What it needs
# follows with the rest.
COPY constraints.txt ./
RUN python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps -c constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} torch

COPY pyproject.toml README.md LICENSE ./
COPY distilbert_kd distilbert_kd
RUN python3 -m pip --python /opt/venv/bin/python install --no-cache-dir -c constraints.txt ".${EXTRAS:+[${EXTRAS}]}"


FROM ${BASE_IMAGE}

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="distilbert-kd" \
      org.opencontainers.image.description="Distil a BERT classifier into half its layers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Open to every user, as /tmp is, so that `docker run --user "$(id -u)"` can write as well.
RUN useradd --uid 10001 --create-home --no-log-init distil \
    && install -d -m 1777 /hf /workspace

COPY --from=build /opt/venv /opt/venv
COPY recipes /recipes

ENV PATH=/opt/venv/bin:${PATH} \
    HF_HOME=/hf \
    OMP_WAIT_POLICY=passive \
    PYTHONUNBUFFERED=1

USER 10001
WORKDIR /workspace
VOLUME ["/hf"]
# `docker stop` then ends a run as Ctrl-C does. Python, as process 1, would not notice the default SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["distilbert-kd"]
CMD ["--help"]
