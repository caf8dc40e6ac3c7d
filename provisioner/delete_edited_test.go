package provisioner

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Besides the image of the volume, there are images of another volume, of another cluster
// and without an owner. They must be kept.
func TestDeleteOfVolumesEditedByHand(t *testing.T) {
	t.Parallel()
	const (
		image     = "kube/kubernetes-dynamic-pvc-1e7f"
		noClass   = `the volume lacks annotations for its admin user, and its class cannot replace them (StorageClass "rbd" does not exist)` + annotate
		noRBD     = "the image of the volume is unknown, because the volume has no rbd source with monitors, pool and image: delete the image (`rbd rm`), remove the volume's finalizers (`kubectl patch`) and delete the volume"
		create    = " does not exist: create it with the output of `ceph auth get-key` under \"key\""
		owned     = "image has another owner: the metadata of "
		ownerless = owned + `kube/vm names no owner; if it is the image of volume pvc-1e7f, set its owner with: rbd image-meta set kube/vm rbd-provisioner.ceph.com/image '{"volumeName":"pvc-1e7f"}'`
	)
	source := func(edit func(*corev1.RBDPersistentVolumeSource)) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) { edit(v.Spec.RBD) }
	}
	named := func(image string) func(*corev1.PersistentVolume) {
		return source(func(s *corev1.RBDPersistentVolumeSource) { s.RBDImage = image })
	}
	replaced := func(by corev1.PersistentVolumeSource) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) { v.Spec.PersistentVolumeSource = by }
	}
	annotated := func(pairs ...string) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) {
			for i := 0; i < len(pairs); i += 2 {
				v.Annotations[pairs[i]] = pairs[i+1]
			}
		}
	}
	without := func(keys ...string) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) {
			for _, key := range keys {
				delete(v.Annotations, key)
			}
		}
	}
	type edits = []func(*corev1.PersistentVolume)
	for name, test := range map[string]struct {
		edits edits
		class bool // exists
		err   string
		stays bool // the volume's own image is kept, although there is no error
	}{
		"another volume's image": {edits: edits{named("kubernetes-dynamic-pvc-2")},
			err: owned + `kube/kubernetes-dynamic-pvc-2 names claim shop/www-web-0 (volume "pvc-2", cluster "here"), not volume "pvc-1e7f" of cluster "here"`},
		"another volume's image, as of the predecessor": {edits: edits{named("kubernetes-dynamic-pvc-2"), annotated(annPredecessor, "ceph.com/rbd")},
			err: owned + `kube/kubernetes-dynamic-pvc-2 names claim shop/www-web-0 (volume "pvc-2", cluster "here"), not volume "pvc-1e7f" of cluster "here"`},
		"another cluster's image": {edits: edits{named("kubernetes-dynamic-pvc-3")},
			err: owned + `kube/kubernetes-dynamic-pvc-3 names claim with UID 3 (volume "pvc-1e7f", cluster "there"), not volume "pvc-1e7f" of cluster "here"`},
		"an image without an owner":                        {edits: edits{named("vm")}, err: ownerless},
		"an image without an owner, as of the predecessor": {edits: edits{named("vm"), annotated(annPredecessor, "ceph.com/rbd")}, err: ownerless},
		"a volume of another name": {edits: edits{func(v *corev1.PersistentVolume) { v.Name = "restored" }},
			err: owned + image + ` names claim shop/www-web-0 (volume "pvc-1e7f", cluster "here"), not volume "restored" of cluster "here"`},
		"a volume without a name": {edits: edits{func(v *corev1.PersistentVolume) { v.Name = "" }},
			err: owned + image + ` names claim shop/www-web-0 (volume "pvc-1e7f", cluster "here"), not volume "" of cluster "here"`},
		"an image that is not there": {edits: edits{named("lost")}, stays: true},
		"an image of other case":     {edits: edits{named("Kubernetes-Dynamic-PVC-1e7f")}, stays: true},
		"another pool":               {edits: edits{source(func(s *corev1.RBDPersistentVolumeSource) { s.RBDPool = "data" })}, stays: true},
		"a pool that is not there": {edits: edits{source(func(s *corev1.RBDPersistentVolumeSource) { s.RBDPool = "lost" })},
			err: "open pool lost: pool not found: the volume is kept because pool lost may come back; if it will not, remove the volume's finalizers (`kubectl patch`) and delete the volume"},

		"no image":     {edits: edits{named("")}, err: noRBD},
		"no pool":      {edits: edits{source(func(s *corev1.RBDPersistentVolumeSource) { s.RBDPool = "" })}, err: noRBD},
		"no monitors":  {edits: edits{source(func(s *corev1.RBDPersistentVolumeSource) { s.CephMonitors = nil })}, err: noRBD},
		"a hostPath":   {edits: edits{replaced(corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}})}, err: noRBD},
		"a CSI volume": {edits: edits{replaced(corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "rbd.csi.ceph.com"}})}, err: noRBD},
		"a CephFS":     {edits: edits{replaced(corev1.PersistentVolumeSource{CephFS: &corev1.CephFSPersistentVolumeSource{}})}, err: noRBD},
		"no source":    {edits: edits{replaced(corev1.PersistentVolumeSource{})}, err: noRBD},

		"no annotations":                       {edits: edits{func(v *corev1.PersistentVolume) { v.Annotations = nil }}, err: noClass},
		"no annotations, but the class":        {edits: edits{func(v *corev1.PersistentVolume) { v.Annotations = nil }}, class: true},
		"no secret's name":                     {edits: edits{without(annDeletionSecretName)}, err: noClass},
		"no secret's name, but the class":      {edits: edits{without(annDeletionSecretName)}, class: true},
		"no secret's namespace":                {edits: edits{without(annDeletionSecretNamespace)}, err: noClass},
		"no secret's namespace, but the class": {edits: edits{without(annDeletionSecretNamespace)}, class: true},
		"no admin":                             {edits: edits{without(annAdminID)}, err: noClass},
		"no admin, but the class":              {edits: edits{without(annAdminID)}, class: true},
		"an empty secret's name":               {edits: edits{annotated(annDeletionSecretName, "")}, err: noClass},
		"an empty secret's namespace":          {edits: edits{annotated(annDeletionSecretNamespace, "")}, err: noClass},
		"an empty admin":                       {edits: edits{annotated(annAdminID, "")}, err: noClass},
		"empty annotations, but the class":     {edits: edits{annotated(annDeletionSecretName, "", annDeletionSecretNamespace, "", annAdminID, "")}, class: true},
		"a secret of another name":             {edits: edits{annotated(annDeletionSecretName, "lost")}, class: true, err: "admin secret ceph/lost" + create},
		"a secret of another namespace":        {edits: edits{annotated(annDeletionSecretNamespace, "shop")}, class: true, err: "admin secret shop/admin" + create},
		"a secret that is a path":              {edits: edits{annotated(annDeletionSecretName, "../admin")}, err: "admin secret ceph/../admin" + create},
		"a secret in blanks":                   {edits: edits{annotated(annDeletionSecretName, " admin")}, err: "admin secret ceph/ admin" + create},
		"a class of another name":              {edits: edits{without(annAdminID), func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "other" }}, class: true, err: `the volume lacks annotations for its admin user, and its class cannot replace them (StorageClass "other" does not exist)` + annotate},
		"no class's name":                      {edits: edits{without(annAdminID), func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "" }}, class: true, err: `the volume lacks annotations for its admin user, and its class cannot replace them (StorageClass "" does not exist)` + annotate},

		"nonsense in what is for others":     {edits: edits{annotated("imageFormat", "1", "imageFeatures", "magic", "pv.kubernetes.io/provisioned-by", "x")}},
		"without the annotations for others": {edits: edits{without("imageFormat", "imageFeatures")}},
		"ours, as of the predecessor":        {edits: edits{annotated(annPredecessor, DefaultName)}},
		"other capacity":                     {edits: edits{func(v *corev1.PersistentVolume) { v.Spec.Capacity = nil }}},
		"no claim": {edits: edits{func(v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil }},
			err: "ignored because the volume was bound to no claim"},
		"a claim of another's": {edits: edits{func(v *corev1.PersistentVolume) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "shop", Name: "www-web-1", UID: "2"}
		}}},
		"other ways to mount": {edits: edits{source(func(s *corev1.RBDPersistentVolumeSource) {
			s.FSType, s.ReadOnly, s.RadosUser, s.Keyring, s.SecretRef = "magic", true, "nobody", "nowhere", nil
		})}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, others := newEditedWorld(t)
			if test.class {
				fixture.Add(t, w.Classes, fixture.Class(nil))
			}
			volume := w.Release(t, w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim())))
			volume.Spec.StorageClassName = "rbd" // as the library sets it
			for _, edit := range test.edits {
				edit(volume)
			}
			w.Store(t, volume)
			w.Ceph.Before = func(_ context.Context, op string, c rbdutil.Cluster, _ rbdutil.ImageRef) error {
				if want := "Ceph at 10.0.0.1:6789,10.0.0.2:6789 as client.kube"; c.String() != want {
					t.Errorf("%s on %s", op, c)
				}
				return nil
			}
			err := w.Delete(t.Context(), volume)
			if diff := cmp.Diff(test.err, fixture.TextOf(err)); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			fixture.WantNoKey(t, fixture.TextOf(err))
			want := others
			if err != nil || test.stays {
				want = append([]string{image}, others...)
			}
			w.WantImages(t, want...)
		})
	}
}

// newEditedWorld returns a world with images of other owners than pvc-1e7f, and their names.
func newEditedWorld(t *testing.T) (w *world, images []string) {
	t.Helper()
	w = newWorld(t)
	w.provision(t, fixture.Options(fixture.Class(nil), fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.UID = "2" })))
	for name, owner := range map[string]rbdutil.Owner{
		"kubernetes-dynamic-pvc-3": {ClaimUID: "3", VolumeName: "pvc-1e7f", ClusterID: "there"},
		"vm":                       {},
	} {
		w.Ceph.Put(rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: name}, Size: 1 << 30, Record: rbdutil.Record{Owner: owner}})
	}
	return w, w.Ceph.Names()
}
