package provisioner

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/pvindex"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// world is a Provisioner in a fixture.World.
type world struct {
	*fixture.World
	*Provisioner
}

func newWorld(t *testing.T, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{World: fixture.NewWorld(pvindex.Indexers(), objects...)}
	w.restart()
	return w
}

// restart replaces the Provisioner, as after the end of its process.
func (w *world) restart() {
	w.Provisioner = New(Config{
		Clusters: Clusters{
			Provisioner: DefaultName, ClusterID: fixture.ClusterID, Secrets: w.Client.CoreV1(),
			Classes: storagelisters.NewStorageClassLister(w.Classes),
		},
		Timeout: time.Minute, Images: rbdutil.NewImages(w.Ceph), Trash: w.Trash, Live: w.Client.CoreV1(),
		Index:   w.Volumes,
		Nodes:   corelisters.NewNodeLister(w.Nodes),
		Claims:  corelisters.NewPersistentVolumeClaimLister(w.Claims),
		Volumes: corelisters.NewPersistentVolumeLister(w.Volumes),
		Events:  w.Events,
	})
}

// provision provisions the volume of a claim.
func (w *world) provision(t *testing.T, opts controller.ProvisionOptions) *corev1.PersistentVolume {
	t.Helper()
	return fixture.Provision(t, w, opts)
}
