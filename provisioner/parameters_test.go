package provisioner

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func TestValidParameters(t *testing.T) {
	t.Parallel()
	const (
		lock = rbdutil.ExclusiveLock
		maps = rbdutil.ExclusiveLock | rbdutil.ObjectMap
		diff = rbdutil.ExclusiveLock | rbdutil.ObjectMap | rbdutil.FastDiff
		all  = rbdutil.Layering | diff | rbdutil.DeepFlatten
	)
	longest := strings.Repeat("p", 189)
	both := func(changes ...func(*outcome)) func(*outcome) {
		return func(m *outcome) {
			for _, change := range changes {
				change(m)
			}
		}
	}
	type set = map[string]string
	for name, test := range map[string]struct {
		change set
		want   func(*outcome)
	}{
		"the least gets every default": {set{}, unchanged},

		"the user follows the admin":        {set{"adminId": "kube"}, usersAre("kube", "kube")},
		"a user beside the admin":           {set{"adminId": "kube", "userId": "node"}, usersAre("kube", "node")},
		"a user without an admin":           {set{"userId": "node"}, usersAre("admin", "node")},
		"a user id with dots and dashes":    {set{"userId": "csi-rbd.node_1"}, usersAre("admin", "csi-rbd.node_1")},
		"a user id that is not ASCII":       {set{"adminId": "köbe"}, usersAre("köbe", "köbe")},
		"an empty adminId is the default's": {set{"adminId": ""}, unchanged},
		"an empty userId is the admin's":    {set{"adminId": "kube", "userId": ""}, usersAre("kube", "kube")},

		"the admin's namespace":                         {set{"adminSecretNamespace": "ceph"}, adminSecretIs("ceph", "ceph-admin")},
		"an empty namespace of the admin is default":    {set{"adminSecretNamespace": ""}, unchanged},
		"the user's namespace":                          {set{"userSecretNamespace": "ceph"}, userSecretIs(&corev1.SecretReference{Namespace: "ceph", Name: "ceph-user"})},
		"an empty namespace of the user is the claim's": {set{"userSecretNamespace": ""}, unchanged},
		"a secret's name with dots":                     {set{"adminSecretName": "ceph.admin.v2"}, adminSecretIs("default", "ceph.admin.v2")},
		"a keyring in place of the user's secret":       {set{"userSecretName": absent, "keyring": "/etc/ceph/keyring"}, both(userSecretIs(nil), keyringIs("/etc/ceph/keyring"))},
		"a keyring and an empty secret":                 {set{"userSecretName": "", "keyring": "/keyring"}, both(userSecretIs(nil), keyringIs("/keyring"))},
		"a keyring beside the user's secret":            {set{"keyring": "/etc/ceph/ceph.client.node.keyring"}, keyringIs("/etc/ceph/ceph.client.node.keyring")},
		"an empty keyring is ignored":                   {set{"keyring": ""}, unchanged},

		"a pool":                             {set{"pool": "kube"}, poolIs("kube")},
		"an empty pool is the default":       {set{"pool": ""}, unchanged},
		"a pool with dots and underscores":   {set{"pool": "Kube.ssd_1-a"}, poolIs("Kube.ssd_1-a")},
		"a pool with image in its name":      {set{"pool": "image-pool_images"}, poolIs("image-pool_images")},
		"a pool with odd but harmless signs": {set{"pool": "a+b=c%d$e;f(g)*?#~"}, poolIs("a+b=c%d$e;f(g)*?#~")},
		"a pool that is not ASCII":           {set{"pool": "möhre"}, poolIs("möhre")},
		"a pool of the longest name":         {set{"pool": longest}, poolIs(longest)},
		"a data pool":                        {set{"dataPool": "data"}, dataPoolIs("data")},
		"a data pool that nodes could not":   {set{"dataPool": "my-image-data"}, dataPoolIs("my-image-data")},
		"an empty data pool is ignored":      {set{"dataPool": ""}, unchanged},
		"a data pool that is the pool":       {set{"dataPool": "rbd"}, unchanged},
		"a data pool that is the named pool": {set{"pool": "kube", "dataPool": "kube"}, poolIs("kube")},
		"image format 2":                     {set{"imageFormat": "2"}, unchanged},
		"an empty image format is 2":         {set{"imageFormat": ""}, unchanged},
		"empty features are layering":        {set{"imageFeatures": ""}, unchanged},
		"blank features are layering":        {set{"imageFeatures": " \t"}, unchanged},
		"features without layering":          {set{"imageFeatures": "exclusive-lock"}, featuresAre(lock, "exclusive-lock")},
		"features that need others":          {set{"imageFeatures": "object-map,exclusive-lock"}, featuresAre(maps, "exclusive-lock,object-map")},
		"features in another order, in part twice": {set{"imageFeatures": ",fast-diff,object-map,,exclusive-lock,fast-diff"},
			featuresAre(diff, "exclusive-lock,object-map,fast-diff")},
		"all features, with blanks between them": {set{"imageFeatures": "layering, exclusive-lock, object-map, fast-diff, deep-flatten"},
			featuresAre(all, "layering,exclusive-lock,object-map,fast-diff,deep-flatten")},
		"the smallest objects":               {set{"objectSize": "4Ki"}, objectsOf(4 << 10)},
		"the largest objects":                {set{"objectSize": "32Mi"}, objectsOf(32 << 20)},
		"objects in bytes":                   {set{"objectSize": "4194304"}, objectsOf(4 << 20)},
		"objects in parts of a Mi":           {set{"objectSize": "0.5Mi"}, objectsOf(512 << 10)},
		"objects in more Ki than a Mi has":   {set{"objectSize": "8192Ki"}, objectsOf(8 << 20)},
		"an empty object size is Ceph's":     {set{"objectSize": ""}, unchanged},
		"ext4":                               {set{"fsType": "ext4"}, fsTypeIs("ext4")},
		"xfs":                                {set{"fsType": "xfs"}, fsTypeIs("xfs")},
		"ext3":                               {set{"fsType": "ext3"}, fsTypeIs("ext3")},
		"btrfs":                              {set{"fsType": "btrfs"}, fsTypeIs("btrfs")},
		"an empty file system is the node's": {set{"fsType": ""}, unchanged},

		"a day in the trash":                {set{"trashRetention": "24h"}, retentionIs("24h0m0s")},
		"a week in the trash, with minutes": {set{"trashRetention": "167h60m"}, retentionIs("168h0m0s")},
		"a second in the trash":             {set{"trashRetention": "1000ms"}, retentionIs("1s")},
		"ten years in the trash":            {set{"trashRetention": "87600h"}, retentionIs("87600h0m0s")},
		"no time in the trash":              {set{"trashRetention": "0"}, unchanged},
		"no time in the trash, in seconds":  {set{"trashRetention": "0s"}, unchanged},
		"an empty time in the trash":        {set{"trashRetention": ""}, unchanged},

		"keys in lower case": {set{"adminid": "kube", "fstype": "xfs", "datapool": "data", "userid": "node"}, both(usersAre("kube", "node"), fsTypeIs("xfs"), dataPoolIs("data"))},
		"required keys in upper case": {set{
			"monitors": absent, "MONITORS": "a", "adminSecretName": absent, "ADMINSECRETNAME": "ceph-admin",
			"userSecretName": absent, "UserSecretname": "ceph-user",
		}, monitorsAre("a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newInputWorld(t)
			for _, key := range []string{"pool", "dataPool"} {
				if pool := test.change[key]; pool != "" {
					w.Ceph.AddPool(pool)
				}
			}
			w.wantProvisioned(t, leastClass(test.change), fixture.Claim(), test.want)
		})
	}
}
