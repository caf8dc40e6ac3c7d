# rbd-provisioner: one Go program linked with librbd, the shared libraries it loads, and nothing else. There is no shell
# and no package manager in the image; to look into a running pod use `kubectl debug --target=rbd-provisioner`.
#
#   docker build --build-arg VERSION=v1.2.3 --build-arg COMMIT="$(git rev-parse HEAD)" --tag rbd-provisioner:v1.2.3 .
#
# The program is built, and its libraries are taken, from one and the same base image, so the librbd it runs with is the
# one it was compiled against. Any Debian release may be given whose Go is not older than go.mod asks for:
# Debian 13 (trixie) has Go 1.24 and Ceph 18.2. The architecture is that of the machine that builds: cgo.
ARG BASE_IMAGE=docker.io/library/debian:trixie-slim

FROM ${BASE_IMAGE} AS build

# Versions are those of the Debian release: pinning them would break the build at its next point release.
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

# The release's own Go and no other: a newer `go` line in go.mod is an error here, not a download.
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

# /rootfs becomes the image: every library that the program loads, with its licence and with its package's dpkg record
# (where vulnerability scanners look when there is no package manager). It has to be enough to run the program in it,
# as the user of the image. Time stamps are set to one value, so that an unchanged set of libraries is an unchanged layer.
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
      org.opencontainers.image.description="Creates Ceph RBD images for Kubernetes claims and hands them out as rbd: PersistentVolumes" \
      org.opencontainers.image.source="https://github.com/rbd-provisioner/rbd-provisioner" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/usr/local/bin
USER 65534:65534
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/rbd-provisioner"]
