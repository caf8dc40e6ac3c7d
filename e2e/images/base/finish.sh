#!/bin/sh
# Reduces a new debootstrap system to the content of Docker's slim image of the same release. It runs inside the system:
#
#   finish.sh RELEASE ARCHIVE-MIRROR SECURITY-MIRROR
set -eu
release=$1 archive=$2 security=$3
export DEBIAN_FRONTEND=noninteractive

# Paths that dpkg must not unpack. The licences are kept.
cat > /etc/dpkg/dpkg.cfg.d/docker <<'EOF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
EOF

# Services must not start during a build.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d

cat > /etc/apt/apt.conf.d/docker <<'EOF'
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "3";
APT::AutoRemove::SuggestsImportant "false";
EOF

rm -f /etc/apt/sources.list
cat > /etc/apt/sources.list.d/debian.sources <<EOF
Types: deb
URIs: $archive
Suites: $release $release-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: $security
Suites: $release-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF

apt-get update
apt-get upgrade --yes

find /usr/share/doc -mindepth 2 ! -name copyright ! -type d -delete
find /usr/share/doc -mindepth 1 -type d -empty -delete
rm -rf /usr/share/info/* /usr/share/lintian /usr/share/locale/* /usr/share/man/*
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*
# shellcheck disable=SC2115 # the paths are those of the new system
rm -rf /dev/* /run/* /tmp/* /etc/hostname /etc/resolv.conf
: > /etc/machine-id
