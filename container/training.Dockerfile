# The training image: torch with its CUDA libraries from wheels, on a slim Python. The host brings the driver.
#   docker buildx build -t kennel/training:local -f container/training.Dockerfile .
# Runs the job laid out under /opt/ml, as SageMaker does with `docker run IMAGE train`.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS code
# tini reaps the children of PID 1; SageMaker's `train` argument keeps it from being the entrypoint itself.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
WORKDIR /code/opt/kennel
COPY container/train bin/train
COPY artifact artifact
COPY scoring scoring
COPY training training
# Two clones of one commit give the same layer: no times, umasks or bytecode of the machine that built it.
RUN cp /usr/bin/tini bin/tini \
 && find . -name __pycache__ -prune -exec rm -r {} + \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /code artifact scoring training \
 && chmod -R u=rwX,go=rX /code && chmod 755 bin/train bin/tini && find /code -exec touch -h -d @0 {} +

# hadolint ignore=DL3006
FROM ${BASE_IMAGE}
ARG TORCH_INDEX_URL=
# Installed here, not in a stage of its own: copying gigabytes of CUDA libraries between stages takes minutes.
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,source=requirements/training.txt,target=/tmp/requirements.txt \
    --mount=type=bind,source=container/install_packages,target=/tmp/install_packages \
    sh /tmp/install_packages /tmp/requirements.txt "${TORCH_INDEX_URL}"
COPY --from=code /code/ /
# The folders libraries write to beside /opt/ml, for any user and a read-only root with a /tmp; USER because torch
# asks for the name of a user that need not have one.
ENV PATH=/opt/kennel/bin:$PATH PYTHONPATH=/opt/kennel PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache USER=kennel
# Root, which is whose the folders under /opt/ml are; any other user works where they are writable.
ENTRYPOINT ["train"]
ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="Kennel training" \
      org.opencontainers.image.revision="${REVISION}" org.opencontainers.image.version="${VERSION}"
