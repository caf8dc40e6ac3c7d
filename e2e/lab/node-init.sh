#!/bin/bash
# The first process of a User-Mode Linux. The other files in its directory on the
# host configure a node. Without a kubelet.yaml, this machine only imports
# container images into its disk and powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
here=${0%/*}

# A minimal Debian has Perl but no poweroff: this calls reboot(2).
power_off() {
	sync
	perl -e 'syscall(169, 0xfee1dead, 672274793, 0x4321fedc)'
}

die() {
	echo "$*"
	power_off
}

# Stage 1: the root directory is the host's, read-only. Switch to a copy-on-write
# view of it, so that no program here can change a file of the host.
if [ "$1" != inside ]; then
	mount -t proc proc /proc
	mount -t tmpfs -o size=512m tmpfs /mnt
	insmod "/usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
	mkdir /mnt/upper /mnt/work /mnt/root
	mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
	mkdir -p /mnt/root/oldroot
	# shellcheck disable=SC2015 # die is for a failure of either command
	cd /mnt/root && pivot_root . oldroot || die "no writable root"
	exec chroot . "$0" inside
fi

mount -t proc proc /proc
umount -l /oldroot
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
mount -t tmpfs tmpfs /run
mount --make-rshared /
ulimit -n 1048576
ip link set lo up

# modprobe searches /lib/modules only.
rm -rf /lib/modules
mkdir /lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" /lib/modules/

# Containers and volumes need a file system on a disk.
mkdir /disk
mount -t ext4 /dev/ubda /disk || die "no disk"
for dir in /var/lib/containerd /var/lib/kubelet /var/log; do
	mkdir -p "/disk/${dir##*/}" $dir
	mount --bind "/disk/${dir##*/}" $dir
done
mkdir -p /etc/containerd /etc/cni/net.d
cp "$here/containerd.toml" /etc/containerd/config.toml

# Each of these serial lines is a log file on the host, which is complete even if
# this machine is killed.
stty -F /dev/ttyS0 raw -echo
stty -F /dev/ttyS1 raw -echo
# The output goes through a pipe, because to a terminal it would have colours.
containerd > >(exec cat >/dev/ttyS1) 2>&1 &
containerd=$!
until ctr version >/dev/null 2>&1; do
	kill -0 $containerd || die "containerd has ended"
	sleep 0.2
done

if [ ! -e "$here/kubelet.yaml" ]; then
	mkdir /share
	mount -t hostfs -o "$here" hostfs /share
	result=imported
	while read -r image; do
		echo "importing $image"
		ctr -n k8s.io images import "$image" || result="cannot import $image"
	done <"$here/images"
	ctr -n k8s.io images list -q
	kill $containerd
	wait $containerd
	umount /var/lib/containerd /var/lib/kubelet /var/log /disk || result="cannot unmount the disk"
	echo "$result" >/share/result
	umount /share
	power_off
fi

node='' address='' gateway='' kubelet=''
# shellcheck source=/dev/null
. "$here/env" # node, address, gateway
hostname "$node"
echo "$node" >/etc/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$node" >/etc/hosts
rm -f /etc/resolv.conf
echo "nameserver $gateway" >/etc/resolv.conf
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
echo 1 >/proc/sys/net/ipv4/ip_forward
cp "$here/cni.conflist" /etc/cni/net.d/10-lab.conflist
mkdir -p /etc/ceph
mount -t hostfs -o "${here%/*}/etc-ceph" hostfs /etc/ceph

# rbd waits for udev to create its device, and the kubelet needs loop devices for
# volumes of mode Block.
/lib/systemd/systemd-udevd --daemon
modprobe -a rbd loop

# shellcheck disable=SC2013 # the file has one line of words
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
	echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
# The kubelet does not start without a clock rate in cpuinfo.
{ cat /proc/cpuinfo; printf 'cpu MHz\t\t: 1000.000\n\n'; } | awk '!/^$/ {print} END {print ""}' >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo

while :; do
	# The certificate may be incomplete after a kill, so each start creates a new one.
	"$kubelet" --config="$here/kubelet.yaml" --kubeconfig="$here/kubeconfig" --cert-dir=/run/kubelet \
		--node-ip="$address" --hostname-override="$node" >/dev/ttyS0 2>&1
	echo "the kubelet has ended: $?"
	sleep 1
done
