package rbdutil

import "strings"

// MaxMonitors is how many monitors the kernel client accepts (CEPH_MAX_MON). With some
// hundred, librados aborts the process.
const MaxMonitors = 31

// Cluster is how to connect to a Ceph cluster: its monitors, a user and the user's key.
// Operations with the same monitors, user and key share one connection.
type Cluster struct {
	// Monitors are addresses as Ceph's mon_host takes them: host, host:port or
	// [IPv6]:port, in the order of the StorageClass.
	Monitors []string
	// User is the cephx user without "client.".
	User string
	// Key is the user's secret.
	Key Key
}

// String describes the cluster in logs and errors, without the key.
func (c Cluster) String() string {
	return "Ceph at " + strings.Join(c.Monitors, ",") + " as client." + c.User
}
