# The wheels are built in a first stage: the final image has no compiler, no cache and no source.
FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels metronome-usage \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin metronome \
    && install --directory --owner metronome --group metronome /data
ENV METRONOME_HOST=0.0.0.0 \
    METRONOME_DATA=/data \
    PYTHONDONTWRITEBYTECODE=1
USER metronome
VOLUME /data
EXPOSE 8080
# The health check uses METRONOME_PORT, which may be changed.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('METRONOME_PORT') or 8080}/health/live\", timeout=4)"]
ENTRYPOINT ["metronome"]
CMD ["serve"]
