package rbdutil

import "strings"

// MaxMonitors is how many monitors the kernel's client takes (its CEPH_MAX_MON).
// At some hundred, librados ends the process that it is in.
const MaxMonitors = 31

// Cluster says how to reach one Ceph cluster and as whom. It is comparable by
// Identity: two equal Clusters may share one connection.
type Cluster struct {
	// Monitors are addresses as Ceph's mon_host takes them: host, host:port or
	// [IPv6]:port, in the order of the StorageClass.
	Monitors []string
	// User is the cephx user without "client.".
	User string
	// Key is the user's secret.
	Key Key
}

// String names the cluster in logs and errors, without the key.
func (c Cluster) String() string {
	return "Ceph at " + strings.Join(c.Monitors, ",") + " as client." + c.User
}
