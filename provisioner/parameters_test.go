package provisioner

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// leastParameters are a class's with nothing in it that may be left out.
var leastParameters = map[string]string{
	"monitors": "10.0.0.1:6789", "adminSecretName": "ceph-admin", "userSecretName": "ceph-user",
}

// absent, as a value, takes a parameter away.
const absent = "\x00absent"

// rawParameters are the least with some changed.
func rawParameters(changes map[string]string) map[string]string {
	raw := maps.Clone(leastParameters)
	maps.Copy(raw, changes)
	maps.DeleteFunc(raw, func(_, value string) bool { return value == absent })
	return raw
}

func TestParametersThatAreRight(t *testing.T) {
	t.Parallel()
	const all = rbdutil.Layering | rbdutil.ExclusiveLock | rbdutil.ObjectMap | rbdutil.FastDiff | rbdutil.DeepFlatten
	type set = map[string]string
	for name, test := range map[string]struct {
		change set
		want   func(*parameters)
	}{
		"the least gets every default": {set{}, func(*parameters) {}},

		"several monitors":                  {set{"monitors": "b, a:3300,[::1]:6789"}, func(p *parameters) { p.monitors = []string{"b", "a:3300", "[::1]:6789"} }},
		"a comma behind the monitors":       {set{"monitors": "a,"}, func(p *parameters) { p.monitors = []string{"a"} }},
		"the user follows the admin":        {set{"adminId": "kube"}, func(p *parameters) { p.adminID, p.userID = "kube", "kube" }},
		"a user beside the admin":           {set{"adminId": "kube", "userId": "node"}, func(p *parameters) { p.adminID, p.userID = "kube", "node" }},
		"a user without an admin":           {set{"userId": "node"}, func(p *parameters) { p.userID = "node" }},
		"a user id with dots and dashes":    {set{"userId": "csi-rbd.node_1"}, func(p *parameters) { p.userID = "csi-rbd.node_1" }},
		"an empty adminId is the default's": {set{"adminId": ""}, func(*parameters) {}},
		"an empty userId is the admin's":    {set{"adminId": "kube", "userId": ""}, func(p *parameters) { p.adminID, p.userID = "kube", "kube" }},

		"the admin's namespace":                         {set{"adminSecretNamespace": "ceph"}, func(p *parameters) { p.adminSecret.Namespace = "ceph" }},
		"an empty namespace of the admin is default":    {set{"adminSecretNamespace": ""}, func(*parameters) {}},
		"the user's namespace":                          {set{"userSecretNamespace": "ceph"}, func(p *parameters) { p.userSecret.Namespace = "ceph" }},
		"an empty namespace of the user is the claim's": {set{"userSecretNamespace": ""}, func(*parameters) {}},
		"a secret's name with dots":                     {set{"adminSecretName": "ceph.admin.v2"}, func(p *parameters) { p.adminSecret.Name = "ceph.admin.v2" }},
		"a keyring in place of the user's secret": {set{"userSecretName": absent, "keyring": "/etc/ceph/keyring"},
			func(p *parameters) { p.userSecret, p.keyring = types.NamespacedName{}, "/etc/ceph/keyring" }},
		"a keyring and an empty secret": {set{"userSecretName": "", "keyring": "/keyring"},
			func(p *parameters) { p.userSecret, p.keyring = types.NamespacedName{}, "/keyring" }},
		"a keyring beside the user's secret": {set{"keyring": "/etc/ceph/ceph.client.node.keyring"}, func(p *parameters) { p.keyring = "/etc/ceph/ceph.client.node.keyring" }},
		"an empty keyring is none":           {set{"keyring": ""}, func(*parameters) {}},

		"a pool":                                 {set{"pool": "kube"}, func(p *parameters) { p.pool = "kube" }},
		"an empty pool is the default":           {set{"pool": ""}, func(*parameters) {}},
		"a pool with dots and underscores":       {set{"pool": "Kube.ssd_1-a"}, func(p *parameters) { p.pool = "Kube.ssd_1-a" }},
		"a pool with image in its name":          {set{"pool": "image-pool_images"}, func(p *parameters) { p.pool = "image-pool_images" }},
		"a data pool":                            {set{"dataPool": "kube-ec"}, func(p *parameters) { p.layout.DataPool = "kube-ec" }},
		"image format 2":                         {set{"imageFormat": "2"}, func(*parameters) {}},
		"an empty image format is 2":             {set{"imageFormat": ""}, func(*parameters) {}},
		"empty features are layering":            {set{"imageFeatures": ""}, func(*parameters) {}},
		"blank features are layering":            {set{"imageFeatures": " \t"}, func(*parameters) {}},
		"features without layering":              {set{"imageFeatures": "exclusive-lock"}, func(p *parameters) { p.layout.Features = rbdutil.ExclusiveLock }},
		"all features, with blanks between them": {set{"imageFeatures": "layering, exclusive-lock, object-map, fast-diff, deep-flatten"}, func(p *parameters) { p.layout.Features = all }},
		"the smallest objects":                   {set{"objectSize": "4Ki"}, func(p *parameters) { p.layout.ObjectSize = 4 << 10 }},
		"the largest objects":                    {set{"objectSize": "32Mi"}, func(p *parameters) { p.layout.ObjectSize = 32 << 20 }},
		"objects in bytes":                       {set{"objectSize": "4194304"}, func(p *parameters) { p.layout.ObjectSize = 4 << 20 }},
		"objects in parts of a Mi":               {set{"objectSize": "0.5Mi"}, func(p *parameters) { p.layout.ObjectSize = 512 << 10 }},
		"an empty object size is Ceph's":         {set{"objectSize": ""}, func(*parameters) {}},
		"ext4":                                   {set{"fsType": "ext4"}, func(p *parameters) { p.fsType = "ext4" }},
		"xfs":                                    {set{"fsType": "xfs"}, func(p *parameters) { p.fsType = "xfs" }},
		"ext3":                                   {set{"fsType": "ext3"}, func(p *parameters) { p.fsType = "ext3" }},
		"btrfs":                                  {set{"fsType": "btrfs"}, func(p *parameters) { p.fsType = "btrfs" }},
		"an empty file system is the node's":     {set{"fsType": ""}, func(*parameters) {}},

		"keys in lower case": {set{"adminid": "kube", "fstype": "xfs", "datapool": "ec", "userid": "node"}, func(p *parameters) {
			p.adminID, p.fsType, p.layout.DataPool, p.userID = "kube", "xfs", "ec", "node"
		}},
		"required keys in upper case": {set{
			"monitors": absent, "MONITORS": "a", "adminSecretName": absent, "ADMINSECRETNAME": "ceph-admin",
			"userSecretName": absent, "UserSecretname": "ceph-user",
		}, func(p *parameters) { p.monitors = []string{"a"} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := parameters{
				monitors: []string{"10.0.0.1:6789"},
				adminID:  "admin", adminSecret: types.NamespacedName{Namespace: "default", Name: "ceph-admin"},
				userID: "admin", userSecret: types.NamespacedName{Name: "ceph-user"},
				pool: "rbd", layout: rbdutil.Layout{Features: rbdutil.Layering},
			}
			test.want(&want)
			got, errs := parseParameters(rawParameters(test.change))
			if len(errs) > 0 {
				t.Fatal(errs.ToAggregate())
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(parameters{})); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEveryParameterIsRead(t *testing.T) {
	t.Parallel()
	// A value that is wrong for every one of them, so that none can be passed over.
	const wrong = "\twrong@"
	for _, key := range parameterKeys {
		_, errs := parseParameters(rawParameters(map[string]string{key: wrong}))
		if len(errs) == 0 || errs[0].Field != "parameters."+key {
			t.Errorf("%s: %q goes unnoticed: %v", key, wrong, errs)
		}
	}
}
