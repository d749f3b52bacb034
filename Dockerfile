# Two stages: Rust builds one program; what is shipped is that program on a small Debian without root.

FROM rust:1.95-slim-bookworm AS build
# ring and SQLite (the stand-in server's) have C sources.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock clippy.toml rustfmt.toml ./
COPY tds tds
COPY config config
COPY actors actors
COPY sim sim
COPY loadgen loadgen
COPY bench bench
COPY src src
RUN cargo build --locked --release --bin tdsbouncer && strip target/release/tdsbouncer

FROM debian:bookworm-slim
# The public authorities, for server_tls; curl, for the health check; tini, so that the proxy is not process 1, which the
# kernel's timer could not end (coordinator.fence).
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tdsbouncer \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin tdsbouncer \
    && install -d -o tdsbouncer -g tdsbouncer -m 0750 /run/tdsbouncer \
    && install -d /etc/tdsbouncer
COPY --from=build /src/target/release/tdsbouncer /usr/local/bin/tdsbouncer
COPY config/proxy.toml /usr/share/doc/tdsbouncer/proxy.toml
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/tdsbouncer/
USER 10001:10001
# Clients, health, metrics.
EXPOSE 1433 8080 9090
# Ready, not only alive: a draining proxy gets no new clients.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD curl --fail --silent --show-error --output /dev/null http://127.0.0.1:8080/health/ready
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "tdsbouncer"]
# Mount the configuration there.
CMD ["run", "--config", "/etc/tdsbouncer/proxy.toml"]
