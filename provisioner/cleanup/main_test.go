package cleanup

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// world is a fixture.World with a Provisioner that creates and deletes images.
type world struct {
	*fixture.World
	*provisioner.Provisioner
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{World: fixture.NewWorld(pvindex.Indexers())}
	w.Provisioner = provisioner.New(provisioner.Config{
		Clusters: w.clusters(), Timeout: time.Minute, Images: rbdutil.NewImages(w.Ceph), Trash: w.Trash, Live: w.Client.CoreV1(),
		Index:   w.Volumes,
		Nodes:   corelisters.NewNodeLister(w.Nodes),
		Claims:  corelisters.NewPersistentVolumeClaimLister(w.Claims),
		Volumes: corelisters.NewPersistentVolumeLister(w.Volumes),
		Events:  w.Events,
	})
	return w
}

func (w *world) clusters() provisioner.Clusters {
	return provisioner.Clusters{
		Provisioner: fixture.Provisioner, ClusterID: fixture.ClusterID, Secrets: w.Client.CoreV1(),
		Classes: storagelisters.NewStorageClassLister(w.Classes),
	}
}

// provisioned returns a world with one volume that is to be deleted, and its image.
func provisioned(t *testing.T) (*world, *corev1.PersistentVolume) {
	t.Helper()
	w := newWorld(t)
	return w, w.Release(t, fixture.Provision(t, w, fixture.Options(fixture.Class(nil), fixture.Claim())))
}
