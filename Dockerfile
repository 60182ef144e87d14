# The one image. Every process of the app is `python -m backend COMMAND`: api, migrate, admin, seed, openapi, secrets.
# Build: docker build -t mainstay .        With MySQL and MariaDB: docker build --build-arg EXTRAS=mysql -t mainstay .
FROM python:3.14.8-slim-bookworm AS builder
ARG EXTRAS=""
# Nothing of this stage is left over but /venv and /app.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN python -m venv --without-pip /venv
COPY requirements*.txt /
RUN python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --disable-pip-version-check \
    --require-hashes --only-binary :all: -r "/requirements${EXTRAS:+-$EXTRAS}.txt"
COPY alembic.ini LICENSE /app/
COPY backend /app/backend
COPY admin /app/admin
COPY frontend /app/frontend
# Packages bring their tests along, and extension modules what a debugger would want: a fifth of the whole.
# And the file system is read-only at run time, so this is the moment to compile:
# bytecode that is not compared with its source's time stays good whatever a build tool does to time stamps.
RUN find /venv/lib -depth -type d "(" -name tests -o -name testing ")" -exec rm -r {} + && \
    find /venv/lib -name "*.so" -exec strip --strip-debug {} + && \
    /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib /app


FROM python:3.14.8-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=https://github.com/example/mainstay
LABEL org.opencontainers.image.title="Mainstay" \
      org.opencontainers.image.description="A batteries-included FastAPI starter: API, console and pages" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
# Nobody installs anything here any more. The user gets a name, because libpq looks its own up.
RUN python -m pip uninstall --yes --quiet pip && \
    groupadd --gid 10001 app && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin app
COPY --from=builder /venv /venv
COPY --from=builder /app /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    SERVER__HOST=0.0.0.0 \
    SERVER__DRAIN_SECONDS=5 \
    PORT=8000
# A number, because Kubernetes cannot tell from a name that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/live', timeout=4)"]
ENTRYPOINT ["python", "-m", "backend"]
CMD ["api"]
