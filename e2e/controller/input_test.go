//go:build e2e

package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// The tables in package provisioner cover all inputs. The tests here cover those that depend on
// Ceph or the API server.

// TestExoticInput has unusual but valid input.
func TestExoticInput(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	mon := e.Monitors[0]
	host, _, _ := strings.Cut(mon, ":")
	e.PutSecret(t, "only", e.Key.Reveal())
	renameKey(t, e, "only", "whatever")
	image := func(size uint64, order int, features ...string) framework.ImageInfo {
		return framework.ImageInfo{Format: 2, Size: size, Order: order, Features: features}
	}
	plain := image(1<<30, 22, "layering")
	type class = []framework.ClassOption
	parameter := framework.Parameter
	for name, test := range map[string]struct {
		class    class
		size     string
		image    framework.ImageInfo
		capacity string
		monitors []string
	}{
		"1500mi":        {size: "1500Mi", image: image(1500<<20, 22, "layering"), capacity: "1500Mi"},
		"exponent":      {size: "1e3", image: image(1<<20, 22, "layering"), capacity: "1Mi"},
		"half-a-gi":     {size: "0.5Gi", image: image(512<<20, 22, "layering"), capacity: "512Mi"},
		"milli":         {size: "1m", image: image(1<<20, 22, "layering"), capacity: "1Mi"},
		"1025mi":        {size: "1073741825", image: image(1025<<20, 22, "layering"), capacity: "1025Mi"},
		"objects-4ki":   {class: class{parameter("objectSize", "4Ki")}, size: "1Mi", image: image(1<<20, 12, "layering"), capacity: "1Mi"},
		"objects-32mi":  {class: class{parameter("objectSize", "32768Ki")}, size: "1Mi", image: image(1<<20, 25, "layering"), capacity: "1Mi"},
		"own-data-pool": {class: class{parameter("dataPool", e.Pool)}, image: plain},
		"features": {class: class{parameter("imageFeatures", ",object-map, exclusive-lock,exclusive-lock")},
			image: image(1<<30, 22, "exclusive-lock", "object-map", "fast-diff")},
		"keys-in-upper-case": {class: class{framework.NoParameter("pool"), parameter("POOL", e.Pool)}, image: plain},
		"key-of-any-name":    {class: class{parameter("adminSecretName", "only")}, image: plain},

		"mon-without-port":  {class: class{parameter("monitors", host)}, image: plain, monitors: []string{host}},
		"mon-in-blanks":     {class: class{parameter("monitors", " ,\t"+mon+" ,\n,")}, image: plain, monitors: []string{mon}},
		"mon-twice":         {class: class{parameter("monitors", mon+","+mon)}, image: plain, monitors: []string{mon, mon}},
		"mon-in-two-forms":  {class: class{parameter("monitors", host+","+mon)}, image: plain, monitors: []string{host, mon}},
		"mon-and-a-zero":    {class: class{parameter("monitors", host+":06789")}, image: plain, monitors: []string{host + ":06789"}},
		"mon-behind-a-dead": {class: class{parameter("monitors", "127.0.0.1:1,"+mon)}, image: plain, monitors: []string{"127.0.0.1:1", mon}},
		"mon-31-times":      {class: class{parameter("monitors", strings.Repeat(mon+",", 31))}, image: plain, monitors: times(mon, 31)},
	} {
		if test.size == "" {
			test.size, test.capacity = "1Gi", "1Gi"
		}
		if test.monitors == nil {
			test.monitors = e.Monitors
		}
		volume := e.AwaitBound(t, e.Claim(t, name, e.Class(t, name, test.class...), framework.Size(test.size)))
		if diff := cmp.Diff(test.image, e.ImageInfo(t, framework.ImageOf(volume))); diff != "" {
			t.Errorf("%s: image (-want +got):\n%s", name, diff)
		}
		if got := volume.Spec.Capacity.Storage().String(); got != test.capacity {
			t.Errorf("%s: capacity %s, want %s", name, got, test.capacity)
		}
		if diff := cmp.Diff(test.monitors, volume.Spec.RBD.CephMonitors); diff != "" {
			t.Errorf("%s: monitors (-want +got):\n%s", name, diff)
		}
	}
}

func times(text string, n int) []string {
	return strings.Split(strings.Repeat(text+",", n-1)+text, ",")
}

// renameKey changes the name of the key in a Secret.
func renameKey(t *testing.T, e *framework.Env, secret, name string) {
	t.Helper()
	patch := fmt.Sprintf(`{"data":{"key":null},"stringData":{%q:%q}}`, name, e.Key.Reveal())
	_, err := e.Client.CoreV1().Secrets(e.Namespace).Patch(t.Context(), secret, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// TestInputThatCephMustNotSee has input with which Ceph would hang, abort or leak.
func TestInputThatCephMustNotSee(t *testing.T) {
	t.Parallel()
	s := &surroundings{newEnv(t)}
	start(t, s.Env)
	const storage = "spec.resources.requests.storage: Invalid value: "
	// It is a cephx key, but of a type that Ceph does not know.
	s.PutSecret(t, "odd", "CQAAAAAAAAAAABAABwcHBwcHBwcHBwcHBwcHBw==")
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("127.1.%d.%d", i/200, i%200+1))
	}
	parameter := framework.Parameter
	for name, test := range map[string]struct {
		class []framework.ClassOption
		size  string
		want  string
	}{
		// The API server cannot count so far.
		"16ei":         {size: "16Ei", want: storage + `"9223372036854775807": requested size is too large, maximum is 1000000Gi`},
		"8ei":          {size: "8Ei", want: storage + `"9223372036854775807": requested size is too large, maximum is 1000000Gi`},
		"1pi":          {size: "1Pi", want: storage + `"1Pi": requested size is too large, maximum is 1000000Gi`},
		"1pi-with-map": {class: []framework.ClassOption{parameter("imageFeatures", "exclusive-lock,object-map")}, size: "1Pi", want: storage + `"1Pi": requested size is too large`},
		"1ti-of-4ki":   {class: []framework.ClassOption{parameter("objectSize", "4Ki")}, size: "1Ti", want: storage + `"1Ti": requested size is too large, maximum is 1000000Mi (256000000 objects of 4Ki`},
		"300-monitors": {class: []framework.ClassOption{parameter("monitors", strings.Join(many, ","))}, size: "1Gi", want: "nodes accept at most 31 monitors, got 300"},
		"mapped-ipv4":  {class: []framework.ClassOption{parameter("monitors", "[::ffff:10.111.0.1]:6789")}, size: "1Gi", want: "give the IPv4 address itself, 10.111.0.1, without brackets"},
		"odd-key":      {class: []framework.ClassOption{parameter("adminSecretName", "odd")}, size: "1Gi", want: "admin secret " + s.Namespace + "/odd: not a cephx key: it has an unknown type"},
	} {
		claim := s.Claim(t, name, s.Class(t, name, test.class...), framework.Size(test.size))
		s.AwaitEvent(t, claim, framework.Timeout, "ProvisioningFailed", test.want)
		s.WantImage(t, s.ImageFor(claim), false)
		s.DeleteClaim(t, name)
	}
	// The provisioner still works.
	s.AwaitBound(t, s.Claim(t, "good", s.Class(t, "good")))
}

// TestVolumesWrittenByHand has released volumes without a claim, as an administrator may create
// them to restore or move volumes. None of them may cause the loss of an image.
func TestVolumesWrittenByHand(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	start(t, e)
	victim := e.AwaitBound(t, e.Claim(t, "victim", e.Class(t, "victim")))
	image := framework.ImageOf(victim)
	nobodys := rbdutil.ImageRef{Pool: e.Pool, Name: "vm"}
	e.Ceph.Run(t, "rbd", "create", "--size", "1", nobodys.String())
	for name, test := range map[string]struct {
		edit func(*corev1.PersistentVolume)
		want []string
	}{
		"image-of-another": {func(v *corev1.PersistentVolume) { v.Spec.RBD.RBDImage = image.Name },
			[]string{image.String() + " is also the image of volume "}},
		"image-of-nobody": {func(v *corev1.PersistentVolume) { v.Spec.RBD.RBDImage = nobodys.Name },
			[]string{"image has another owner", "names no owner", "rbd image-meta set " + nobodys.String()}},
		"image-of-another-as-of-the-predecessor": {func(v *corev1.PersistentVolume) {
			v.Spec.RBD.RBDImage = image.Name
			v.Annotations["rbdProvisionerIdentity"] = e.Provisioner
		}, []string{image.String() + " is also the image of volume "}},
		"no-pool": {func(v *corev1.PersistentVolume) { v.Spec.RBD.RBDPool = "" }, // the API server's default is rbd
			[]string{"open pool rbd", "pool not found"}},
		"host-path": {func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/" + e.Namespace}}
		}, []string{"the image of the volume is unknown"}},
		"300-monitors": {func(v *corev1.PersistentVolume) {
			v.Spec.RBD.CephMonitors = nil
			for i := range 300 {
				v.Spec.RBD.CephMonitors = append(v.Spec.RBD.CephMonitors, fmt.Sprintf("127.2.%d.%d", i/200, i%200+1))
			}
		}, []string{"300 monitors are given, maximum is 31"}},
		"no-annotations": {func(v *corev1.PersistentVolume) {
			v.Annotations = map[string]string{"pv.kubernetes.io/provisioned-by": e.Provisioner}
		}, []string{"the volume lacks annotations for its admin user", "annotate the volume with"}},
		"odd-secret": {func(v *corev1.PersistentVolume) {
			v.Annotations["volume.kubernetes.io/provisioner-deletion-secret-name"] = "../" + framework.AdminSecret
		}, []string{"read admin secret " + e.Namespace + "/../" + framework.AdminSecret, "invalid resource name"}},
		"odd-admin": {func(v *corev1.PersistentVolume) { v.Annotations["rbd-provisioner.ceph.com/admin-id"] = "no body\n" },
			[]string{"access denied by Ceph", "check that secret " + e.Namespace + "/" + framework.AdminSecret}},
	} {
		volume := writtenByHand(e, name)
		test.edit(volume)
		volume, err := e.Client.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e.AwaitEvent(t, volume, framework.Timeout, "VolumeFailedDelete", test.want...)
		deleteObject(t, e, volume)
	}
	for _, ref := range []rbdutil.ImageRef{image, nobodys} {
		e.WantImage(t, ref, true)
	}
	e.RemoveImage(t, nobodys)
	// The provisioner still works, and knows the owner of this image.
	e.DeleteClaim(t, "victim")
	e.AwaitVolumeGone(t, victim)
	e.WantImage(t, image, false)
}

// writtenByHand returns a volume whose claim is gone, with an image that does not exist.
func writtenByHand(e *framework.Env, name string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: e.Namespace + "-" + name,
			Annotations: map[string]string{
				"pv.kubernetes.io/provisioned-by":                            e.Provisioner,
				"volume.kubernetes.io/provisioner-deletion-secret-name":      framework.AdminSecret,
				"volume.kubernetes.io/provisioner-deletion-secret-namespace": e.Namespace,
				"rbd-provisioner.ceph.com/admin-id":                          e.User,
			},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: e.Namespace, Name: name, UID: uuid.NewUUID(),
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{
				CephMonitors: e.Monitors, RBDPool: e.Pool, RBDImage: "lost", RadosUser: e.User,
			}},
		},
	}
}

// deleteObject deletes only a volume's object.
func deleteObject(t *testing.T, e *framework.Env, volume *corev1.PersistentVolume) {
	t.Helper()
	volumes := e.Client.CoreV1().PersistentVolumes()
	patch := `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`
	if _, err := volumes.Patch(t.Context(), volume.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := volumes.Delete(t.Context(), volume.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.AwaitVolumeGone(t, volume)
}
