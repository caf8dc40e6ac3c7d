package provisioner

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParametersThatAreWrong(t *testing.T) {
	t.Parallel()
	const (
		subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
		label     = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
		blanks    = "there is white space around it"
		user      = "not a cephx user id"
		poolName  = `the kubelet cannot mount volumes of a pool with such a name (no "/", "@", ",", ":" or white space in it, no "-" or "." at its start)`
		poolImage = `the kubelet cannot unmount volumes of a pool with "-image-" in its name or "-image" at its end`
		file      = "not an absolute path of a file on the nodes"
		power     = " is not a power of two from 4Ki to 32Mi"
		features  = ", allowed: layering, exclusive-lock, object-map, fast-diff, deep-flatten"
		known     = "unknown parameter, allowed: monitors, adminId, adminSecretName, adminSecretNamespace, userId, userSecretName, userSecretNamespace, keyring, pool, dataPool, imageFormat, imageFeatures, objectSize, fsType"
		needsUser = "parameters.userSecretName: Required value: the Secret with the key of client.admin that nodes map the image with (or keyring, a file on every node)"
		needsMons = "parameters.monitors: Required value: the addresses of the Ceph monitors, separated by commas"
		typed     = "the kubelet's client takes plain addresses only: give each monitor's v1 address as host:port, without v1:, v2: and the brackets around them"
	)
	type set = map[string]string
	for name, test := range map[string]struct {
		change set
		want   string
	}{
		"no monitors":                         {set{"monitors": absent}, needsMons},
		"empty monitors":                      {set{"monitors": ""}, needsMons},
		"blank monitors":                      {set{"monitors": " \t"}, needsMons},
		"monitors that are commas":            {set{"monitors": ",,"}, invalid("monitors", ",,", "there is no address in it")},
		"a monitor that is wrong":             {set{"monitors": "a, b:x"}, invalid("monitors", "a, b:x", `"b:x": "x" is not a port`)},
		"monitors as `ceph mon dump` says":    {set{"monitors": "[v2:a:3300,v1:a:6789]"}, invalid("monitors", "[v2:a:3300,v1:a:6789]", typed)},
		"an adminId with its type":            {set{"adminId": "client.kube"}, invalid("adminId", "client.kube", `give the id without "client."`)},
		"an adminId in blanks":                {set{"adminId": "kube "}, invalid("adminId", "kube ", blanks)},
		"an adminId that is blank":            {set{"adminId": " "}, invalid("adminId", " ", blanks)},
		"an adminId with a comma":             {set{"adminId": "a,b"}, invalid("adminId", "a,b", user)},
		"an adminId like a flag":              {set{"adminId": "--id"}, invalid("adminId", "--id", user)},
		"an adminId with a line break":        {set{"adminId": "a\nb"}, invalid("adminId", "a\nb", user)},
		"a userId with its type":              {set{"userId": "client.node"}, invalid("userId", "client.node", `give the id without "client."`)},
		"a userId with a blank":               {set{"userId": "a b"}, invalid("userId", "a b", user)},
		"a userId with a quote":               {set{"userId": `a"b`}, invalid("userId", `a"b`, user)},
		"no adminSecretName":                  {set{"adminSecretName": absent}, "parameters.adminSecretName: Required value: the Secret with the key of client.admin"},
		"no adminSecretName of another id":    {set{"adminSecretName": "", "adminId": "kube"}, "parameters.adminSecretName: Required value: the Secret with the key of client.kube"},
		"an adminSecretName in upper case":    {set{"adminSecretName": "Ceph"}, invalid("adminSecretName", "Ceph", subdomain)},
		"an adminSecretName in blanks":        {set{"adminSecretName": " ceph"}, invalid("adminSecretName", " ceph", blanks)},
		"an adminSecretName with its path":    {set{"adminSecretName": "ceph/admin"}, invalid("adminSecretName", "ceph/admin", subdomain)},
		"an adminSecretNamespace with dots":   {set{"adminSecretNamespace": "a.b"}, invalid("adminSecretNamespace", "a.b", "must not contain dots")},
		"an adminSecretNamespace in blanks":   {set{"adminSecretNamespace": "ceph\n"}, invalid("adminSecretNamespace", "ceph\n", blanks)},
		"no userSecretName":                   {set{"userSecretName": absent}, needsUser},
		"no userSecretName of another id":     {set{"userSecretName": "", "userId": "node"}, strings.ReplaceAll(needsUser, "client.admin", "client.node")},
		"a userSecretName with underscore":    {set{"userSecretName": "ceph_user"}, invalid("userSecretName", "ceph_user", subdomain)},
		"a userSecretNamespace upper case":    {set{"userSecretNamespace": "Ceph"}, invalid("userSecretNamespace", "Ceph", label)},
		"a userSecretNamespace of a template": {set{"userSecretNamespace": "${pvc.namespace}"}, invalid("userSecretNamespace", "${pvc.namespace}", label)},

		"a keyring that is no path":          {set{"keyring": "keyring"}, invalid("keyring", "keyring", file)},
		"a keyring that is a folder":         {set{"keyring": "/etc/ceph/"}, invalid("keyring", "/etc/ceph/", file)},
		"a keyring with a blank":             {set{"keyring": "/etc/my ceph"}, invalid("keyring", "/etc/my ceph", file)},
		"a keyring with a command":           {set{"keyring": "/x;reboot"}, invalid("keyring", "/x;reboot", file)},
		"a keyring with two slashes":         {set{"keyring": "/etc//ceph"}, invalid("keyring", "/etc//ceph", file)},
		"a pool with a namespace":            {set{"pool": "kube/ns"}, invalid("pool", "kube/ns", poolName)},
		"a pool with an at sign":             {set{"pool": "kube@a"}, invalid("pool", "kube@a", poolName)},
		"a pool with a blank":                {set{"pool": "my pool"}, invalid("pool", "my pool", poolName)},
		"a pool with a colon":                {set{"pool": "a:b"}, invalid("pool", "a:b", poolName)},
		"a pool like a flag":                 {set{"pool": "-p"}, invalid("pool", "-p", poolName)},
		"a pool of Ceph's own":               {set{"pool": ".mgr"}, invalid("pool", ".mgr", poolName)},
		"a pool in blanks":                   {set{"pool": " kube"}, invalid("pool", " kube", blanks)},
		"a pool that the kubelet splits":     {set{"pool": "my-image-pool"}, invalid("pool", "my-image-pool", poolImage)},
		"a pool that the kubelet cuts short": {set{"pool": "my-image"}, invalid("pool", "my-image", poolImage)},
		"a data pool with a slash":           {set{"dataPool": "a/b"}, invalid("dataPool", "a/b", poolName)},

		"image format 1":           {set{"imageFormat": "1"}, `parameters.imageFormat: Unsupported value: "1": supported values: "2"`},
		"image format 2 in blanks": {set{"imageFormat": " 2"}, invalid("imageFormat", " 2", blanks)},
		"journaling": {set{"imageFeatures": "layering,exclusive-lock,journaling"},
			invalid("imageFeatures", "layering,exclusive-lock,journaling", "journaling: no kernel client maps an image with journaling"+features)},
		"a feature without what it needs": {set{"imageFeatures": "object-map"},
			invalid("imageFeatures", "object-map", "object-map needs exclusive-lock beside it"+features)},
		"a feature that is none": {set{"imageFeatures": "layering,magic"},
			invalid("imageFeatures", "layering,magic", `"magic" is not a feature that can be asked for`+features)},
		"objects of a decimal size":       {set{"objectSize": "4M"}, invalid("objectSize", "4M", "4000000 bytes"+power)},
		"objects of nothing":              {set{"objectSize": "0"}, invalid("objectSize", "0", "0 bytes"+power)},
		"objects of less than nothing":    {set{"objectSize": "-4Mi"}, invalid("objectSize", "-4Mi", "0 bytes"+power)},
		"objects that are too large":      {set{"objectSize": "64Mi"}, invalid("objectSize", "64Mi", "67108864 bytes"+power)},
		"objects larger than any number":  {set{"objectSize": "100Ei"}, invalid("objectSize", "100Ei", "9223372036854775807 bytes"+power)},
		"objects of a unit that is none":  {set{"objectSize": "4MiB"}, invalid("objectSize", "4MiB", "not a quantity such as 4Mi")},
		"objects of a unit of networks":   {set{"objectSize": "4Mb"}, invalid("objectSize", "4Mb", "not a quantity such as 4Mi")},
		"objects with an exponent":        {set{"objectSize": "1e2147483647"}, invalid("objectSize", "1e2147483647", "not a quantity such as 4Mi")},
		"objects in blanks":               {set{"objectSize": "4Mi "}, invalid("objectSize", "4Mi ", blanks)},
		"a file system that is none":      {set{"fsType": "ext2"}, `parameters.fsType: Unsupported value: "ext2": supported values: "ext4", "xfs", "ext3", "btrfs"`},
		"a file system in upper case":     {set{"fsType": "XFS"}, `parameters.fsType: Unsupported value: "XFS": supported values: "ext4", "xfs", "ext3", "btrfs"`},
		"a file system in blanks":         {set{"fsType": "xfs "}, invalid("fsType", "xfs ", blanks)},
		"an unknown key":                  {set{"clusterID": "x"}, invalid("clusterID", "x", known)},
		"an unknown key without a value":  {set{"stripeUnit": ""}, invalid("stripeUnit", "", known)},
		"a key in blanks":                 {set{"pool ": "x"}, invalid("pool ", "x", known)},
		"a key of Kubernetes' own":        {set{"csi.storage.k8s.io/fstype": "xfs"}, invalid("csi.storage.k8s.io/fstype", "xfs", known)},
		"a key given twice, alike":        {set{"Pool": "rbd", "pool": "rbd"}, invalid("pool", "rbd", "given twice, as Pool too")},
		"a key given twice, one of empty": {set{"ADMINID": "", "adminId": "kube"}, invalid("adminId", "kube", "given twice, as ADMINID too")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, errs := parseParameters(rawParameters(test.change))
			if diff := cmp.Diff(test.want, textOf(errs.ToAggregate())); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// invalid is the text of one error about a value.
func invalid(key, value, why string) string {
	return "parameters." + key + ": Invalid value: " + strconv.Quote(value) + ": " + why
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, errs := parseParameters(map[string]string{
		"Monitors": "", "adminId": "client.kube", "userId": "a b", "adminSecretNamespace": "x.y",
		"keyring": "here", "pool": "a/b", "dataPool": "-ec", "imageFormat": "1", "imageFeatures": "magic",
		"objectSize": "3", "fsType": "ntfs", "unknown": "x", "POOL": "twice",
	})
	var fields []string
	for _, err := range errs {
		fields = append(fields, strings.TrimPrefix(err.Field, "parameters."))
	}
	want := []string{
		"pool", "unknown", // while the keys are sorted
		"monitors", "adminId", "adminSecretNamespace", "keyring", "imageFeatures", "objectSize", "dataPool",
		"fsType", "userId", "adminSecretName", "imageFormat",
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("mistakes in (-want +got):\n%s", diff)
	}
}

func TestTheSameMistakesReadTheSameEachTime(t *testing.T) {
	t.Parallel()
	raw := map[string]string{"a": "1", "b": "2", "c": "3", "POOL": "x", "Pool": "y", "pool": "z"}
	_, first := parseParameters(raw)
	for range 20 {
		_, again := parseParameters(raw)
		if diff := cmp.Diff(textOf(first.ToAggregate()), textOf(again.ToAggregate())); diff != "" {
			t.Fatalf("the events would not add up (-first +again):\n%s", diff)
		}
	}
}
