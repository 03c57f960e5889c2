# syntax=docker/dockerfile:1
# One image for every role: `docker run … flux` serves, `docker run … flux serve --role worker` works for a control.
ARG RUST=1.94

FROM rust:${RUST}-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs start.order ./
COPY proto proto
COPY config config
COPY src src
# Cargo wants every target of the manifest to be there; these are not compiled.
COPY benches benches
COPY tests tests
# Dependencies are fetched and compiled once, for as long as the builder keeps its caches.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin flux && install target/dist/flux /usr/local/bin/flux

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates ffmpeg tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 flux \
    && useradd --uid 10001 --gid flux --no-create-home --home-dir /data --shell /usr/sbin/nologin flux \
    && install --directory --owner flux --group flux /data
COPY --from=build /usr/local/bin/flux /usr/local/bin/flux
USER 10001:10001
WORKDIR /data
# From outside of the container loopback cannot be reached, and other addresses need an API key: set API_KEY, or mount a
# /data/flux.toml with auth.keys. A worker needs a token (FLUX__WORKER__TOKEN) likewise.
ENV FLUX__SERVER__LISTEN=0.0.0.0:8080 \
    FLUX__SERVER__DATA_DIR=/data \
    FLUX__WORKER__LISTEN=0.0.0.0:50051
VOLUME /data
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
# No HEALTHCHECK: it would need a program to ask with. Ask from outside: GET /ready of the API, grpc.health.v1.Health of a
# worker.
# -s: reaps orphans also where the platform's own init is the first process.
ENTRYPOINT ["tini", "-s", "--", "flux"]
CMD ["serve"]
