package provisioner

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func requesting(quantity string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(quantity)}
	}
}

func TestClaimSize(t *testing.T) {
	t.Parallel()
	const storage = "spec.resources.requests.storage: Invalid value: "
	for name, test := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   uint64
		err    string
	}{
		"a whole number of Gi":            {change: requesting("1Gi"), want: 1 << 30},
		"1500Mi":                          {change: requesting("1500Mi"), want: 1500 << 20},
		"half a Gi":                       {change: requesting("0.5Gi"), want: 512 << 20},
		"1.5Gi":                           {change: requesting("1.5Gi"), want: 1536 << 20},
		"a decimal unit is rounded up":    {change: requesting("1G"), want: 954 << 20},
		"an exponent is rounded up":       {change: requesting("1e3"), want: 1 << 20},
		"one byte is one MiB":             {change: requesting("1"), want: 1 << 20},
		"a part of a byte is one MiB":     {change: requesting("1m"), want: 1 << 20},
		"one byte more than a Gi":         {change: requesting("1073741825"), want: 1025 << 20},
		"10Ti":                            {change: requesting("10Ti"), want: 10 << 40},
		"8191Pi, the largest of its unit": {change: requesting("8191Pi"), want: 8191 << 50},
		"16Ei are more than can be said": {change: requesting("16Ei"),
			err: storage + `"9223372036854775807": 9223372036854775807 bytes is more than an image can hold (9223372036853727232)`},
		"8Ei are one byte too many": {change: requesting("8Ei"),
			err: storage + `"9223372036854775807": 9223372036854775807 bytes is more than an image can hold (9223372036853727232)`},
		"nothing":           {change: requesting("0"), err: storage + `"0": a size of 0 bytes is not a volume`},
		"less than nothing": {change: requesting("-1Gi"), err: storage + `"-1Gi": a size of -1073741824 bytes is not a volume`},
		"no request": {change: func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = nil },
			err: storage + `"0": a size of 0 bytes is not a volume`},
		"a limit is not a request": {change: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests, c.Spec.Resources.Limits = nil, c.Spec.Resources.Requests
		}, err: storage + `"0": a size of 0 bytes is not a volume`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			size, errs := sizeOf(claimOf(test.change))
			if diff := cmp.Diff(test.err, textOf(errs.ToAggregate())); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if size != test.want {
				t.Errorf("size %d, want %d", size, test.want)
			}
			if size%rbdutil.MiB != 0 {
				t.Errorf("size %d is no whole number of MiB", size)
			}
		})
	}
}

func TestClaimAccessModes(t *testing.T) {
	t.Parallel()
	const (
		rwo, rox, rwx, rwop = corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod
		allowed             = "allowed: ReadWriteOnce, alone or with ReadOnlyMany"
	)
	for name, test := range map[string]struct {
		modes []corev1.PersistentVolumeAccessMode
		err   string
	}{
		"RWO":                     {modes: []corev1.PersistentVolumeAccessMode{rwo}},
		"RWO and ROX":             {modes: []corev1.PersistentVolumeAccessMode{rwo, rox}},
		"ROX and RWO":             {modes: []corev1.PersistentVolumeAccessMode{rox, rwo}},
		"none at all":             {},
		"ROX alone":               {[]corev1.PersistentVolumeAccessMode{rox}, `spec.accessModes[0]: Invalid value: "ReadOnlyMany": a new volume is empty, and nobody could ever write to it, ` + allowed},
		"RWX":                     {[]corev1.PersistentVolumeAccessMode{rwx}, `spec.accessModes[0]: Invalid value: "ReadWriteMany": a file system on an RBD image breaks when two nodes write to it, ` + allowed},
		"RWX beside what we have": {[]corev1.PersistentVolumeAccessMode{rwo, rwx}, `spec.accessModes[1]: Invalid value: "ReadWriteMany": a file system on an RBD image breaks when two nodes write to it, ` + allowed},
		"RWOP":                    {[]corev1.PersistentVolumeAccessMode{rwop}, `spec.accessModes[0]: Invalid value: "ReadWriteOncePod": Kubernetes enforces it for CSI volumes only, not for rbd volumes, ` + allowed},
		"a mode of the future":    {[]corev1.PersistentVolumeAccessMode{"ReadWriteSometimes"}, `spec.accessModes[0]: Invalid value: "ReadWriteSometimes": ` + allowed},
		"each mistake is reported": {[]corev1.PersistentVolumeAccessMode{rox, rwop}, `[spec.accessModes[0]: Invalid value: "ReadOnlyMany": a new volume is empty, and nobody could ever write to it, ` + allowed +
			`, spec.accessModes[1]: Invalid value: "ReadWriteOncePod": Kubernetes enforces it for CSI volumes only, not for rbd volumes, ` + allowed + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, errs := sizeOf(claimOf(func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = test.modes }))
			if diff := cmp.Diff(test.err, textOf(errs.ToAggregate())); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestClaimSources(t *testing.T) {
	t.Parallel()
	const why = ": this provisioner makes empty volumes only; remove it, or choose a class that can copy from it"
	snapshot := &corev1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "monday"}
	snapshotRef := &corev1.TypedObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "monday"}
	for name, test := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		err    string
	}{
		"none": {change: func(*corev1.PersistentVolumeClaim) {}},
		"another claim": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "db"}
			},
			err: `spec.dataSource: Invalid value: "PersistentVolumeClaim db"` + why,
		},
		"a snapshot": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource = snapshot },
			err:    `spec.dataSource: Invalid value: "VolumeSnapshot monday"` + why,
		},
		"a snapshot in both fields, as the API server fills them, is one mistake": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource, c.Spec.DataSourceRef = snapshot, snapshotRef },
			err:    `spec.dataSource: Invalid value: "VolumeSnapshot monday"` + why,
		},
		"something of a populator, in the newer field alone": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: "Hello", Name: "world", Namespace: ptr.To("other")}
			},
			err: `spec.dataSourceRef: Invalid value: "Hello world"` + why,
		},
		"a selector": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} },
			err:    "spec.selector: Forbidden: a new volume has no labels to select by; remove it, or name an existing volume",
		},
		"all that can be wrong": {
			change: func(c *corev1.PersistentVolumeClaim) {
				requesting("0")(c)
				c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{"x"}
				c.Spec.DataSource, c.Spec.Selector = snapshot, &metav1.LabelSelector{}
			},
			err: `[spec.accessModes[0]: Invalid value: "x": allowed: ReadWriteOnce, alone or with ReadOnlyMany, ` +
				`spec.dataSource: Invalid value: "VolumeSnapshot monday"` + why +
				`, spec.selector: Forbidden: a new volume has no labels to select by; remove it, or name an existing volume, ` +
				`spec.resources.requests.storage: Invalid value: "0": a size of 0 bytes is not a volume]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, errs := sizeOf(claimOf(test.change))
			if diff := cmp.Diff(test.err, textOf(errs.ToAggregate())); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}
