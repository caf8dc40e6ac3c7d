# All components of the control plane, and kube-proxy, in one image. Containerd knows it under the names that kubeadm uses.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends conntrack etcd-server iptables \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
COPY kube-apiserver kube-controller-manager kube-proxy kube-scheduler /usr/local/bin/
