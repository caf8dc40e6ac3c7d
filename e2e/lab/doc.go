// Package lab runs on one Debian machine, from packages and Go modules only, the
// systems that the provisioner works with in production:
//
//   - a Ceph cluster: one monitor, one manager and one OSD that keeps its
//     objects in memory, with the pool "kube" and a client "client.kube" that
//     may use this pool only;
//   - a Kubernetes control plane of the last release whose kubelet mounts rbd
//     volumes: etcd, API server, controller manager and scheduler, as processes;
//   - nodes: User-Mode Linux kernels, each one process of the host, which run
//     udev, containerd and the kubelet and map images with the kernel's rbd
//     client.
//
// A lab has a name. All its processes are in one network namespace, rbdlab-NAME,
// without a route to the outside. So every lab uses the same addresses, and
// labs are isolated from each other.
//
//	10.111.0.1        the host's side: monitors, API server (443), etcd on 127.0.0.1
//	10.96.0.1         the same API server, at its service address
//	10.111.0.10+i     node i
//	10.244.i.0/24     the pods of node i
//
// There is neither DNS nor kube-proxy. Pods reach each other by address, and the
// only service that they can use is the API server's.
//
// On disk a lab has a run directory (sockets, process records, the data of etcd
// and the monitor; a tmpfs) and a state directory (logs, configuration, node
// disks). The logs are kept until the next start of a lab of the same name. The
// Kubernetes programs and the nodes' disks with their container images are slow
// to create and the same for all labs. They are kept in a cache directory, under
// a hash of their inputs.
//
// The programs of Ceph are those of the host's packages, version 16, or version
// 18 of Debian 13. The latter are in the cache too, in a directory with a small
// Debian 13. Each of its processes has a mount namespace in which /usr is that
// directory's, so that it sees all other files at the paths of the host, and no
// mount remains. Tests run in the same way with the client libraries of 18.
//
// A lab does not depend on the process that started it. Any other process can
// attach to it with Open or stop it. Down finds processes by their network
// namespace, never by name, and so also after an interrupted start.
//
// Faults are signals: a Daemon can be paused, resumed, killed and started again
// with the same arguments. An OSD that is killed loses its objects, because they
// are in memory, unless the cluster is Durable.
//
// A node mounts the host's root directory below an overlay in its own memory. It
// uses the host's programs and cannot write to the host's files. The exception
// is /etc/ceph, a directory of the lab (CephDir) that all nodes share. On the
// host, a node's processes have their own PID namespace and can write to the
// directories of the lab only. Kill nodes with Daemon.Kill or Down only, for the
// reason that killProcess explains.
//
// The package needs root and Linux on amd64, the only platform for which
// User-Mode Linux is packaged. It needs neither KVM nor a container engine, and
// no rbd module in the host's kernel.
package lab
