# rbd-provisioner: one Go program linked with librbd, and its shared libraries. The image has no shell and no package
# manager. To inspect a running pod, use `kubectl debug --target=rbd-provisioner`.
#
#   docker build --build-arg VERSION=v1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" --tag rbd-provisioner:v1.2.3 .
#
# The program is compiled in the base image that its libraries are copied from, so both have the same version of librbd.
# The base image must be a Debian release with the Go version of go.mod or later. Debian 13 (trixie) has Go 1.24 and
# Ceph 18.2. The architecture is that of the build machine, because of cgo.
ARG BASE_IMAGE=docker.io/library/debian:trixie-slim

FROM ${BASE_IMAGE} AS build

# The versions are not pinned, because a point release of Debian would break the build.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      ca-certificates \
      gcc \
      golang-go \
      libc6-dev \
      librados-dev \
      librbd-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb

# Use only the Go version of the release: a newer `go` line in go.mod is an error, not a download.
ENV CGO_ENABLED=1 GOTOOLCHAIN=local
ARG GOPROXY=https://proxy.golang.org,direct

WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .

ARG VERSION=v0.0.0-dev
RUN go build -trimpath -buildvcs=false \
      -ldflags "-s -w \
        -X github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app.version=${VERSION}" \
      -o /rootfs/usr/local/bin/rbd-provisioner ./cmd/rbd-provisioner

# /rootfs becomes the image. It has the libraries of the program, their licences, and the dpkg records of their packages,
# which vulnerability scanners read. The program must run in it as the user of the image. All timestamps have one value, so
# that the layer changes only if the libraries change.
RUN set -eu; \
    mkdir -p /rootfs/etc /rootfs/usr/lib /rootfs/usr/lib64 /rootfs/var/lib/dpkg/status.d; \
    ln -s usr/lib /rootfs/lib; \
    ln -s usr/lib64 /rootfs/lib64; \
    ldd /rootfs/usr/local/bin/rbd-provisioner > /tmp/ldd; \
    cat /tmp/ldd; \
    if grep 'not found' /tmp/ldd; then exit 1; fi; \
    grep --only-matching '/[^ ]*' /tmp/ldd > /tmp/libraries; \
    while read -r library; do \
      cp --dereference --parents "${library}" /rootfs/; \
      package="$(dpkg-query --search "$(realpath "${library}")")"; \
      package="${package%%:*}"; \
      dpkg-query --status "${package}" > "/rootfs/var/lib/dpkg/status.d/${package}"; \
      cp --dereference --parents "/usr/share/doc/${package}/copyright" /rootfs/; \
    done < /tmp/libraries; \
    cp --dereference /etc/os-release /rootfs/etc/os-release; \
    echo 'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin' > /rootfs/etc/passwd; \
    echo 'nogroup:x:65534:' > /rootfs/etc/group; \
    echo 'hosts: files dns' > /rootfs/etc/nsswitch.conf; \
    cp LICENSE /rootfs/LICENSE; \
    chroot --userspec=65534:65534 /rootfs /usr/local/bin/rbd-provisioner --version; \
    mkdir /out; \
    mv /rootfs/usr/local/bin/rbd-provisioner /out/; \
    find /rootfs -exec touch --no-dereference --date=@0 {} +

FROM scratch
COPY --from=build /rootfs/ /
COPY --from=build /out/rbd-provisioner /usr/local/bin/rbd-provisioner
ARG VERSION=v0.0.0-dev
ARG COMMIT=
LABEL org.opencontainers.image.title="rbd-provisioner" \
      org.opencontainers.image.description="Provisions PersistentVolumes of the in-tree type rbd with Ceph RBD images" \
      org.opencontainers.image.source="https://github.com/rbd-provisioner/rbd-provisioner" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/usr/local/bin
USER 65534:65534
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/rbd-provisioner"]
