FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# A new volume at the folder of files belongs to whom the folder does.
RUN useradd --create-home --uid 10001 bitladder && install -d -m 0700 -o bitladder /var/lib/bitladder/files

WORKDIR /src
COPY requirements/dev.lock requirements/dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY bitladder bitladder
COPY dispatcher dispatcher
COPY workers workers
COPY calibration calibration
RUN --mount=type=cache,target=/root/.cache/pip pip install --constraint requirements/dev.lock ".[s3,top]"

USER bitladder
WORKDIR /home/bitladder
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["bitladder", "serve"]
