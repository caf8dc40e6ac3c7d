package provisioner

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
)

func TestClaimSize(t *testing.T) {
	t.Parallel()
	const (
		storage = "claim: spec.resources.requests.storage: "
		small   = "requested size is too small, minimum is 1Mi"
		large   = "requested size is too large, maximum is 1000000Gi (256000000 objects of 4Mi; a larger objectSize allows more)"
		tiny    = "requested size is too large, maximum is 1000000Mi (256000000 objects of 4Ki; a larger objectSize allows more)"
		huge    = "requested size is too large, maximum is 8000000Gi (256000000 objects of 32Mi; a larger objectSize allows more)"
	)
	for name, test := range map[string]struct {
		request    string
		objectSize string
		bytes      uint64
		capacity   string
		err        string
	}{
		"a whole number of Gi":              {request: "1Gi", bytes: 1 << 30, capacity: "1Gi"},
		"1500Mi":                            {request: "1500Mi", bytes: 1500 << 20, capacity: "1500Mi"},
		"half a Gi":                         {request: "0.5Gi", bytes: 512 << 20, capacity: "512Mi"},
		"1.5Gi":                             {request: "1.5Gi", bytes: 1536 << 20, capacity: "1536Mi"},
		"1024Mi are a Gi":                   {request: "1024Mi", bytes: 1 << 30, capacity: "1Gi"},
		"a decimal unit is rounded up":      {request: "1G", bytes: 954 << 20, capacity: "954Mi"},
		"a decimal fraction is rounded up":  {request: "1.1G", bytes: 1050 << 20, capacity: "1050Mi"},
		"an exponent is rounded up":         {request: "1e3", bytes: 1 << 20, capacity: "1Mi"},
		"a large exponent is rounded up":    {request: "1E9", bytes: 954 << 20, capacity: "954Mi"},
		"one byte is one MiB":               {request: "1", bytes: 1 << 20, capacity: "1Mi"},
		"a Ki is one MiB":                   {request: "1Ki", bytes: 1 << 20, capacity: "1Mi"},
		"a part of a byte is one MiB":       {request: "1m", bytes: 1 << 20, capacity: "1Mi"},
		"a nano byte is one MiB":            {request: "1n", bytes: 1 << 20, capacity: "1Mi"},
		"parts of a byte above a MiB":       {request: "1048576001m", bytes: 2 << 20, capacity: "2Mi"},
		"one byte less than a Mi":           {request: "1048575", bytes: 1 << 20, capacity: "1Mi"},
		"one byte more than a Gi":           {request: "1073741825", bytes: 1025 << 20, capacity: "1025Mi"},
		"10Ti":                              {request: "10Ti", bytes: 10 << 40, capacity: "10Ti"},
		"as many objects as there may be":   {request: "1000000Gi", bytes: 1000000 << 30, capacity: "1000000Gi"},
		"as many as may be of the smallest": {request: "1000000Mi", objectSize: "4Ki", bytes: 1000000 << 20, capacity: "1000000Mi"},
		"as many as may be of the largest":  {request: "8000000Gi", objectSize: "32Mi", bytes: 8000000 << 30, capacity: "8000000Gi"},

		"16Ei":                            {request: "16Ei", err: storage + `Invalid value: "9223372036854775807": ` + large},
		"8Ei":                             {request: "8Ei", err: storage + `Invalid value: "9223372036854775807": ` + large},
		"the largest number":              {request: "9223372036854775807", err: storage + `Invalid value: "9223372036854775807": ` + large},
		"a number that is larger":         {request: "99999999999999999999", err: storage + `Invalid value: "99999999999999999999": ` + large},
		"7Ei":                             {request: "7Ei", err: storage + `Invalid value: "7Ei": ` + large},
		"1Pi":                             {request: "1Pi", err: storage + `Invalid value: "1Pi": ` + large},
		"one byte more than there may be": {request: "1073741824000001", err: storage + `Invalid value: "1073741824000001": ` + large},
		"1Ti of the smallest objects":     {request: "1Ti", objectSize: "4Ki", err: storage + `Invalid value: "1Ti": ` + tiny},
		"8Pi of the largest objects":      {request: "8Pi", objectSize: "32Mi", err: storage + `Invalid value: "8Pi": ` + huge},
		"zero":                            {request: "0", err: storage + `Invalid value: "0": ` + small},
		"zero with a unit":                {request: "0Gi", err: storage + `Invalid value: "0": ` + small},
		"a negative size":                 {request: "-1Gi", err: storage + `Invalid value: "-1Gi": ` + small},
		"a large negative size":           {request: "-16Ei", err: storage + `Invalid value: "-9223372036854775807": ` + small},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, class, claim := newInputWorld(t), leastClass(map[string]string{"objectSize": test.objectSize}), fixture.Claim(fixture.Requesting(test.request))
			if test.err != "" {
				w.wantRejected(t, class, claim, test.err)
				return
			}
			objects := uint64(4 << 20)
			if test.objectSize != "" {
				quantity := resource.MustParse(test.objectSize)
				objects = uint64(quantity.Value())
			}
			w.wantProvisioned(t, class, claim, sizeIs(test.bytes, test.capacity), objectsOf(objects))
		})
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	const noSize = "claim: spec.resources.requests.storage: Required value: the size of the volume, such as 1Gi"
	for name, test := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   func(*outcome)
		err    string
	}{
		"a device": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) },
			want:   func(m *outcome) { m.Volume.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) },
		},
		"a limit is ignored": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}
			},
			want: unchanged,
		},
		"a name of 253 characters": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Name = strings.Repeat("a.", 126) + "a" },
			want: func(m *outcome) {
				m.Image.Record.ClaimName = strings.Repeat("a.", 126) + "a"
			},
		},
		"no request": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = nil },
			err:    noSize,
		},
		"a request for something else": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
			},
			err: noSize,
		},
		"a limit is not a request": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.Resources.Requests, c.Spec.Resources.Limits = nil, c.Spec.Resources.Requests
			},
			err: noSize,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, claim := newInputWorld(t), fixture.Claim(test.change)
			if test.err != "" {
				w.wantRejected(t, leastClass(nil), claim, test.err)
				return
			}
			w.wantProvisioned(t, leastClass(nil), claim, test.want)
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
		"ROX alone":               {[]corev1.PersistentVolumeAccessMode{rox}, `spec.accessModes[0]: Invalid value: "ReadOnlyMany": a new volume is empty, and nodes could never write to it, ` + allowed},
		"RWX":                     {[]corev1.PersistentVolumeAccessMode{rwx}, `spec.accessModes[0]: Invalid value: "ReadWriteMany": two nodes that write to a file system on an RBD image corrupt it, ` + allowed},
		"RWX beside what we have": {[]corev1.PersistentVolumeAccessMode{rwo, rwx}, `spec.accessModes[1]: Invalid value: "ReadWriteMany": two nodes that write to a file system on an RBD image corrupt it, ` + allowed},
		"RWOP":                    {[]corev1.PersistentVolumeAccessMode{rwop}, `spec.accessModes[0]: Invalid value: "ReadWriteOncePod": Kubernetes enforces it for CSI volumes only, not for rbd volumes, ` + allowed},
		"an unknown mode":         {[]corev1.PersistentVolumeAccessMode{"ReadWriteSometimes"}, `spec.accessModes[0]: Invalid value: "ReadWriteSometimes": ` + allowed},
		"each mistake is reported": {[]corev1.PersistentVolumeAccessMode{rox, rwop}, `[spec.accessModes[0]: Invalid value: "ReadOnlyMany": a new volume is empty, and nodes could never write to it, ` + allowed +
			`, spec.accessModes[1]: Invalid value: "ReadWriteOncePod": Kubernetes enforces it for CSI volumes only, not for rbd volumes, ` + allowed + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, claim := newInputWorld(t), fixture.Claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = test.modes })
			if test.err != "" {
				w.wantRejected(t, leastClass(nil), claim, "claim: "+test.err)
				return
			}
			w.wantProvisioned(t, leastClass(nil), claim, func(m *outcome) { m.Volume.Spec.AccessModes = test.modes })
		})
	}
}

func TestClaimSources(t *testing.T) {
	t.Parallel()
	const why = ": this provisioner clones PersistentVolumeClaims only; remove it, or use a class that supports this data source"
	snapshot := &corev1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "monday"}
	snapshotRef := &corev1.TypedObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "monday"}
	for name, test := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		err    string
	}{
		"a claim of another API": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To("example.com"), Kind: "PersistentVolumeClaim", Name: "db"}
			},
			err: `spec.dataSource: Invalid value: "PersistentVolumeClaim db"` + why,
		},
		"a claim of another namespace": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "db", Namespace: ptr.To("other")}
			},
			err: `spec.dataSourceRef.namespace: Invalid value: "other": a clone must be in the namespace of its source`,
		},
		"a snapshot": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource = snapshot },
			err:    `spec.dataSource: Invalid value: "VolumeSnapshot monday"` + why,
		},
		"a snapshot in both fields, as the API server fills them, is one mistake": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.DataSource, c.Spec.DataSourceRef = snapshot, snapshotRef },
			err:    `spec.dataSource: Invalid value: "VolumeSnapshot monday"` + why,
		},
		"a source of a populator, in the newer field alone": {
			change: func(c *corev1.PersistentVolumeClaim) {
				c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("example.com"), Kind: "Hello", Name: "world", Namespace: ptr.To("other")}
			},
			err: `spec.dataSourceRef: Invalid value: "Hello world"` + why,
		},
		"a selector": {
			change: func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} },
			err:    "spec.selector: Forbidden: a new volume has no labels that a selector could match; remove the selector, or name an existing volume",
		},
		"all that can be wrong": {
			change: func(c *corev1.PersistentVolumeClaim) {
				fixture.Requesting("0")(c)
				c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{"x"}
				c.Spec.DataSource, c.Spec.Selector = snapshot, &metav1.LabelSelector{}
			},
			err: `[spec.accessModes[0]: Invalid value: "x": allowed: ReadWriteOnce, alone or with ReadOnlyMany, ` +
				`spec.dataSource: Invalid value: "VolumeSnapshot monday"` + why +
				`, spec.selector: Forbidden: a new volume has no labels that a selector could match; remove the selector, or name an existing volume, ` +
				`spec.resources.requests.storage: Invalid value: "0": requested size is too small, minimum is 1Mi]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newInputWorld(t).wantRejected(t, leastClass(nil), fixture.Claim(test.change), "claim: "+test.err)
		})
	}
}
