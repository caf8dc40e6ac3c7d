//go:build ceph

package librbd_test

import (
	"testing"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

const (
	pool     = "contract"
	dataPool = "contract-data"
)

// newStore returns a Store with timeouts for a slow machine.
func newStore(t *testing.T, opts librbd.Options) *librbd.Store {
	t.Helper()
	if opts.Timeout == 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.IdleTimeout == 0 {
		opts.IdleTimeout = time.Minute
	}
	store := librbd.New(opts)
	t.Cleanup(store.Close)
	return store
}

// newCluster creates the pools and a user with the documented capabilities.
func newCluster(t *testing.T) (cephcli.Admin, rbdutil.Cluster) {
	t.Helper()
	return newClusterWith(t, pool, dataPool)
}

// newClusterWith is newCluster with other pools. The user has the name of the first one.
func newClusterWith(t *testing.T, pools ...string) (cephcli.Admin, rbdutil.Cluster) {
	t.Helper()
	ceph := cephcli.FromEnv(t)
	for _, name := range pools {
		ceph.CreatePool(t, name)
	}
	key := ceph.CreateUser(t, pools[0], pools...)
	return ceph, rbdutil.Cluster{Monitors: ceph.Monitors(t), User: pools[0], Key: key}
}

func TestContract(t *testing.T) {
	t.Parallel()
	ceph, cluster := newCluster(t)
	rbdtest.Run(t, rbdtest.Harness{
		Store: newStore(t, librbd.Options{}), Cluster: cluster, Pool: pool, DataPool: dataPool,
		Watch: ceph.Watch, Write: ceph.Write, Snapshot: ceph.Snapshot, Clone: ceph.Clone, Group: ceph.Group,
		Lock: ceph.Lock, Mirror: ceph.Mirror, Migrate: ceph.Migrate, TrashByHand: ceph.TrashByHand,
		SetRecord: ceph.SetRecord, LeavePartial: ceph.LeavePartial,
	})
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	rbdtest.RunLimited(t, func(limiter rbdutil.Limiter) rbdutil.Store {
		return newStore(t, librbd.Options{Limiter: limiter})
	})
}
