// Package lab brings up, on one Debian machine and with nothing but packages
// and Go modules, everything that the provisioner meets in production:
//
//   - a Ceph cluster: one monitor, one manager and one OSD that keeps its
//     objects in memory, with the pool "kube" and a client "client.kube" that
//     may use this pool only;
//   - a Kubernetes control plane of the last release whose kubelet mounts rbd
//     volumes: etcd, API server, controller manager and scheduler, as plain
//     processes;
//   - nodes: User-Mode Linux kernels, each a process of its own, which run
//     udev, containerd and the kubelet and map images with the kernel's rbd
//     client.
//
// A lab has a name. Everything it runs lives in one network namespace,
// rbdlab-NAME, from which nothing leads to the outside: every lab uses the same
// addresses and two labs do not see each other.
//
//	10.111.0.1        the host's side: monitors, API server (443), etcd on 127.0.0.1
//	10.96.0.1         the same API server, at its service address
//	10.111.0.10+i     node i
//	10.244.i.0/24     the pods of node i
//
// There is neither DNS nor kube-proxy: pods reach each other by address, and no
// service but the API server's.
//
// On disk a lab has a run directory (sockets, process records, etcd's and the
// monitor's data; a tmpfs) and a state directory (logs, configuration, node
// disks). The logs outlive the lab, until the next one of the same name. What
// is slow to make and the same for all labs, the Kubernetes programs and the
// nodes' disks with their container images, is kept in a cache directory under
// a hash of what it was made from.
//
// A lab belongs to no process: the one that brought it up may end, or be
// killed, and any other can attach to it with Open or take it down. Down looks
// for processes by their network namespace, never by name, and so finds them in
// whatever state an interrupted start has left them.
//
// Faults are signals: a Daemon can be paused, resumed, killed and started again
// as it was. An OSD that is killed loses what it holds, because it holds it in
// memory, unless the cluster is made Durable.
//
// A node sees the host's root directory through an overlay in its own memory, so
// it has the host's programs, and no way to write to the host's files; but for
// /etc/ceph, which is a directory of the lab (CephDir) that all nodes share. On
// the host its processes have a PID namespace of their own and may write to the
// directories of the lab only. To kill a node in another way than by Daemon.Kill
// or Down is still a bad idea; killProcess says why.
//
// The package needs root and Linux on amd64, because User-Mode Linux is
// packaged for nothing else. It needs neither KVM nor a container engine, and
// no rbd in the host's kernel.
package lab
