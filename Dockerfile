# A static binary and nothing else: no shell, no libraries, no user but a number.
#
#   docker build -t registry.example.com/holdfast:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t registry.example.com/holdfast:0.1.0 --push .
FROM rust:1.95-alpine AS build
# The C parts of the crypto library need a compiler.
RUN apk add --no-cache gcc musl-dev
WORKDIR /src
COPY . .
# On Alpine the host's own target is musl, and what is linked is static.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin holdfast && cp target/release/holdfast /holdfast

FROM scratch
COPY --from=build /holdfast /holdfast
USER 65532:65532
ENTRYPOINT ["/holdfast"]
CMD ["operator"]
