# The image of Weft: one static binary and nothing else.
#
#   From source; needs no Rust, but a registry for the `rust` image:
#     docker build --tag weft .
#
#   From this machine's Rust; no image is pulled, so it also works where no registry can be reached:
#     cargo static && docker build --target local --tag weft .
#
# `docker-compose up` uses the image `weft` if there is one, and else builds it from source.
# glibc answers names of /etc/hosts and of the DNS from inside the static binary, so no library has to be copied.

# First, so that building it stops here, before any image is pulled.
FROM scratch AS local
COPY target/x86_64-unknown-linux-gnu/release/weft /weft
ENV PATH=/ WEFT_DATA_DIR=/var/lib/weft WEFT_SOCKET=/run/weft/weft.sock
VOLUME /var/lib/weft
EXPOSE 9338/tcp 9338/udp
ENTRYPOINT ["/weft"]
CMD ["up"]

FROM rust:1.95 AS build
WORKDIR /src
COPY . .
# The target is named, or the flag would also reach procedural macros, which cannot be static.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package weft --target "$target" \
    && cp "target/$target/release/weft" /weft

FROM scratch
COPY --from=build /weft /weft
ENV PATH=/ WEFT_DATA_DIR=/var/lib/weft WEFT_SOCKET=/run/weft/weft.sock
VOLUME /var/lib/weft
EXPOSE 9338/tcp 9338/udp
ENTRYPOINT ["/weft"]
CMD ["up"]
