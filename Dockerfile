# Two stages: llama-cpp-python needs a compiler to build and none to run.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY agentlab agentlab
COPY cli cli
COPY configs configs
# For any x86-64 processor with AVX2, not for the one that builds the image.
ENV CMAKE_ARGS=-DGGML_NATIVE=off
RUN python -m venv /opt/agentlab && /opt/agentlab/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home agentlab && mkdir /work && chown agentlab /work
COPY --from=build /opt/agentlab /opt/agentlab
ENV PATH=/opt/agentlab/bin:$PATH AGENTLAB_CACHE=/opt/models OMP_WAIT_POLICY=passive
# The embedded model is part of the image, so that a container needs no network.
RUN mkdir /opt/models && AGENTLAB_HOME=/opt/models agentlab models pull smollm2-135m
USER agentlab
WORKDIR /work
VOLUME /work
ENTRYPOINT ["agentlab"]
CMD ["nas", "demo"]
