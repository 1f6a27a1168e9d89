# The serving images: `--target cpu` (OpenVINO, no torch) and `--target gpu` (torch on the CUDA 12 line).
#   docker buildx build --target cpu -t kennel/serving-cpu:local -f container/serving.Dockerfile .
# Settings are environment variables (docs/reference.md); the model is mounted or unpacked at /opt/ml/model.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS code
WORKDIR /code/opt/kennel
COPY container/serve bin/serve
COPY artifact artifact
COPY serving serving
# Two clones of one commit give the same layer: no times, umasks or bytecode of the machine that built it. The
# bytecode is made here, so that a read-only container does not compile at every start.
RUN find . -name __pycache__ -prune -exec rm -r {} + \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /code artifact serving \
 && chmod -R u=rwX,go=rX /code && chmod 755 bin/serve && find /code -exec touch -h -d @0 {} +

# The published Python images hold the standard library without bytecode, so that each process of each start compiles
# what it imports: half a second until a server answers.
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS bytecode
WORKDIR /usr/local/lib/python3.11
RUN python -m compileall -q --invalidation-mode unchecked-hash \
      -x '/(site-packages|test|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data)/' "$PWD" \
 && mkdir /bytecode \
 && find . -path ./site-packages -prune -o -name '*.pyc' -exec cp --parents -t /bytecode {} + \
 && chmod -R u=rwX,go=rX /bytecode && find /bytecode -exec touch -h -d @0 {} +

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS cpu-packages
# The cache is a mount of the builder, no part of a layer.
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,source=requirements/serving-cpu.txt,target=/tmp/requirements.txt \
    pip install --cache-dir /var/cache/pip --no-compile --no-deps --require-hashes --prefix /packages -r /tmp/requirements.txt
# OpenVINO's plugins for other devices and readers of other formats, and what no server imports.
WORKDIR /packages/lib/python3.11/site-packages
RUN rm -rf openvino/include openvino/tools openvino/libs/cache.json openvino/libs/libopenvino_c.so* \
      openvino/libs/libtbbmalloc_proxy* openvino/libs/*_gpu_plugin* openvino/libs/*_npu_plugin* \
      openvino/libs/*_auto_plugin* openvino/libs/*_auto_batch_plugin* openvino/libs/*_hetero_plugin* \
 && find openvino/libs -name '*_frontend.so*' ! -name '*_ir_frontend.so*' -delete \
 && rm -rf numpy/f2py numpy/distutils numpy/_core/include numpy/_core/lib numpy/random/lib \
 && find . -depth -type d -name tests -exec rm -r {} + \
 && find . \( -name '*.pyi' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /packages -p /usr/local . \
 && find /packages -exec touch -h -d @0 {} +

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS serving
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
      org.opencontainers.image.title="Kennel serving"
ENV PATH=/opt/kennel/bin:$PATH PYTHONPATH=/opt/kennel PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=bytecode /bytecode /usr/local/lib/python3.11
EXPOSE 8080
ENTRYPOINT ["serve"]

FROM serving AS gpu
ARG TORCH_INDEX_URL=
# Installed here, not in a stage of its own: copying gigabytes of CUDA libraries between stages takes minutes.
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,source=requirements/serving-gpu.txt,target=/tmp/requirements.txt \
    --mount=type=bind,source=container/install_packages,target=/tmp/install_packages \
    sh /tmp/install_packages /tmp/requirements.txt "${TORCH_INDEX_URL}"
COPY --from=code /code/ /
# One process for the one model on the device; set it or KENNEL_WORKERS higher where the decoding is the limit.
# torch asks for the name of a user that need not have one, and for a temporary folder, which on a read-only disk
# only /dev/shm is.
ENV KENNEL_ENGINE=torch SAGEMAKER_MODEL_SERVER_WORKERS=1 USER=kennel TMPDIR=/dev/shm
USER 10001
ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision="${REVISION}" org.opencontainers.image.version="${VERSION}"

FROM serving AS cpu
COPY --from=cpu-packages /packages /usr/local
COPY --from=code /code/ /
USER 10001
ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.revision="${REVISION}" org.opencontainers.image.version="${VERSION}"
