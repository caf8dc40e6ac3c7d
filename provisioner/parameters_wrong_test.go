package provisioner

import (
	"strconv"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
)

func TestInvalidParameters(t *testing.T) {
	t.Parallel()
	const (
		blanks    = "must not have white space around it"
		file      = "must be the absolute path of a file on the nodes, without blanks"
		retention = "not a duration such as 24h, allowed: 0 to 87600h in whole seconds"
		power     = " is not a power of two from 4Ki to 32Mi"
		features  = ", allowed: layering, exclusive-lock, object-map, fast-diff, deep-flatten"
		known     = "unknown parameter, allowed: monitors, adminId, adminSecretName, adminSecretNamespace, userId, userSecretName, userSecretNamespace, keyring, pool, dataPool, imageFormat, imageFeatures, objectSize, fsType, trashRetention"
		needsUser = "parameters.userSecretName: Required value: the Secret with the key of client.admin that nodes map the image with (or keyring, a file on every node)"
		needsMons = "parameters.monitors: Required value: the addresses of the Ceph monitors, separated by commas"
		typed     = "nodes accept plain addresses only: give each monitor's v1 address as host:port, without v1:, v2: and brackets"
	)
	type set = map[string]string
	for name, test := range map[string]struct {
		change set
		want   string
	}{
		"no monitors":    {set{"monitors": absent}, needsMons},
		"empty monitors": {set{"monitors": ""}, needsMons},
		"blank monitors": {set{"monitors": " \t"}, needsMons},
		"a list of 10 kB in place of monitors": {set{"monitors": strings.Repeat("x", 10_000)},
			invalid("monitors", strings.Repeat("x", 100)+"…", `"`+strings.Repeat("x", 100)+`…": "`+strings.Repeat("x", 100)+`…" is not a host name (letters, digits, "-" and "_", with dots between)`)},
		"monitors that are commas":            {set{"monitors": ",,"}, invalid("monitors", ",,", "contains no address")},
		"a monitor that is wrong":             {set{"monitors": "a, b:x"}, invalid("monitors", "a, b:x", `"b:x": "x" is not a port from 1 to 65535`)},
		"monitors as `ceph mon dump` prints":  {set{"monitors": "[v2:a:3300,v1:a:6789]"}, invalid("monitors", "[v2:a:3300,v1:a:6789]", typed)},
		"an adminId in blanks":                {set{"adminId": "kube "}, invalid("adminId", "kube ", blanks)},
		"an adminId that is blank":            {set{"adminId": " "}, invalid("adminId", " ", blanks)},
		"no adminSecretName":                  {set{"adminSecretName": absent}, "parameters.adminSecretName: Required value: the Secret with the key of client.admin"},
		"no adminSecretName of another id":    {set{"adminSecretName": "", "adminId": "kube"}, "parameters.adminSecretName: Required value: the Secret with the key of client.kube"},
		"an adminSecretName in upper case":    {set{"adminSecretName": "Ceph"}, invalid("adminSecretName", "Ceph", notASubdomain)},
		"an adminSecretName in blanks":        {set{"adminSecretName": " ceph"}, invalid("adminSecretName", " ceph", blanks)},
		"an adminSecretName with its path":    {set{"adminSecretName": "ceph/admin"}, invalid("adminSecretName", "ceph/admin", notASubdomain)},
		"an adminSecretNamespace with dots":   {set{"adminSecretNamespace": "a.b"}, invalid("adminSecretNamespace", "a.b", "must not contain dots")},
		"an adminSecretNamespace in blanks":   {set{"adminSecretNamespace": "ceph\n"}, invalid("adminSecretNamespace", "ceph\n", blanks)},
		"no userSecretName":                   {set{"userSecretName": absent}, needsUser},
		"no userSecretName of another id":     {set{"userSecretName": "", "userId": "node"}, strings.ReplaceAll(needsUser, "client.admin", "client.node")},
		"a blank adminSecretName":             {set{"adminSecretName": " "}, invalid("adminSecretName", " ", blanks)},
		"a blank userSecretName":              {set{"userSecretName": "\t"}, invalid("userSecretName", "\t", blanks)},
		"a userSecretName with underscore":    {set{"userSecretName": "ceph_user"}, invalid("userSecretName", "ceph_user", notASubdomain)},
		"a userSecretNamespace upper case":    {set{"userSecretNamespace": "Ceph"}, invalid("userSecretNamespace", "Ceph", notALabel)},
		"a userSecretNamespace of a template": {set{"userSecretNamespace": "${pvc.namespace}"}, invalid("userSecretNamespace", "${pvc.namespace}", notALabel)},

		"a keyring that is no path":                             {set{"keyring": "keyring"}, invalid("keyring", "keyring", file)},
		"a keyring that is a folder":                            {set{"keyring": "/etc/ceph/"}, invalid("keyring", "/etc/ceph/", file)},
		"a keyring with a blank":                                {set{"keyring": "/etc/my ceph"}, invalid("keyring", "/etc/my ceph", file)},
		"a keyring in blanks, which is none the less given":     {set{"userSecretName": absent, "keyring": "/etc/ceph/keyring "}, invalid("keyring", "/etc/ceph/keyring ", blanks)},
		"a keyring that is wrong, which is none the less given": {set{"userSecretName": "", "keyring": "keyring"}, invalid("keyring", "keyring", file)},
		"a blank keyring":                                       {set{"userSecretName": absent, "keyring": " "}, invalid("keyring", " ", blanks)},
		"a keyring of the shell's":                              {set{"keyring": "/etc/`id`"}, invalid("keyring", "/etc/`id`", file)},
		"a keyring with a command":                              {set{"keyring": "/x;reboot"}, invalid("keyring", "/x;reboot", file)},
		"a keyring with two slashes":                            {set{"keyring": "/etc//ceph"}, invalid("keyring", "/etc//ceph", file)},
		"a pool in blanks":                                      {set{"pool": " kube"}, invalid("pool", " kube", blanks)},

		"image format 1":           {set{"imageFormat": "1"}, `parameters.imageFormat: Unsupported value: "1": supported values: "2"`},
		"image format 2 in blanks": {set{"imageFormat": " 2"}, invalid("imageFormat", " 2", blanks)},
		"journaling": {set{"imageFeatures": "layering,exclusive-lock,journaling"},
			invalid("imageFeatures", "layering,exclusive-lock,journaling", "journaling: no kernel client maps an image with journaling"+features)},
		"a feature without what it needs": {set{"imageFeatures": "object-map"},
			invalid("imageFeatures", "object-map", "object-map requires exclusive-lock"+features)},
		"a feature that is none": {set{"imageFeatures": "layering,magic"},
			invalid("imageFeatures", "layering,magic", `"magic" is not a supported feature`+features)},
		"a feature in upper case":        {set{"imageFeatures": "Layering"}, invalid("imageFeatures", "Layering", `"Layering" is not a supported feature`+features)},
		"features by number":             {set{"imageFeatures": "61"}, invalid("imageFeatures", "61", `"61" is not a supported feature`+features)},
		"features between blanks":        {set{"imageFeatures": "layering exclusive-lock"}, invalid("imageFeatures", "layering exclusive-lock", `"layering exclusive-lock" is not a supported feature`+features)},
		"features of Ceph's own":         {set{"imageFeatures": "layering,data-pool"}, invalid("imageFeatures", "layering,data-pool", `"data-pool" is not a supported feature`+features)},
		"fast-diff alone":                {set{"imageFeatures": "exclusive-lock,fast-diff"}, invalid("imageFeatures", "exclusive-lock,fast-diff", "fast-diff requires object-map"+features)},
		"image format 3":                 {set{"imageFormat": "3"}, `parameters.imageFormat: Unsupported value: "3": supported values: "2"`},
		"image format 2.0":               {set{"imageFormat": "2.0"}, `parameters.imageFormat: Unsupported value: "2.0": supported values: "2"`},
		"objects of one byte":            {set{"objectSize": "1"}, invalid("objectSize", "1", "1 bytes"+power)},
		"objects of parts of a byte":     {set{"objectSize": "1m"}, invalid("objectSize", "1m", "1 bytes"+power)},
		"objects between two powers":     {set{"objectSize": "3Mi"}, invalid("objectSize", "3Mi", "3145728 bytes"+power)},
		"objects by their order":         {set{"objectSize": "22"}, invalid("objectSize", "22", "22 bytes"+power)},
		"objects of words":               {set{"objectSize": "default"}, invalid("objectSize", "default", "not a quantity such as 4Mi")},
		"objects of too many digits":     {set{"objectSize": "00000004194304"}, invalid("objectSize", "00000004194304", "not a quantity such as 4Mi")},
		"objects of dots":                {set{"objectSize": "..."}, invalid("objectSize", "...", "not a quantity such as 4Mi")},
		"objects of a decimal size":      {set{"objectSize": "4M"}, invalid("objectSize", "4M", "4000000 bytes"+power)},
		"objects of size 0":              {set{"objectSize": "0"}, invalid("objectSize", "0", "0 bytes"+power)},
		"objects of a negative size":     {set{"objectSize": "-4Mi"}, invalid("objectSize", "-4Mi", "0 bytes"+power)},
		"objects that are too large":     {set{"objectSize": "64Mi"}, invalid("objectSize", "64Mi", "67108864 bytes"+power)},
		"objects larger than any number": {set{"objectSize": "100Ei"}, invalid("objectSize", "100Ei", "9223372036854775807 bytes"+power)},
		"objects of a unit that is none": {set{"objectSize": "4MiB"}, invalid("objectSize", "4MiB", "not a quantity such as 4Mi")},
		"objects of a unit of networks":  {set{"objectSize": "4Mb"}, invalid("objectSize", "4Mb", "not a quantity such as 4Mi")},
		"objects with an exponent":       {set{"objectSize": "1e2147483647"}, invalid("objectSize", "1e2147483647", "not a quantity such as 4Mi")},
		"objects in blanks":              {set{"objectSize": "4Mi "}, invalid("objectSize", "4Mi ", blanks)},
		"a file system that is none":     {set{"fsType": "ext2"}, `parameters.fsType: Unsupported value: "ext2": supported values: "ext4", "xfs", "ext3", "btrfs"`},
		"a file system in upper case":    {set{"fsType": "XFS"}, `parameters.fsType: Unsupported value: "XFS": supported values: "ext4", "xfs", "ext3", "btrfs"`},
		"a file system in blanks":        {set{"fsType": "xfs "}, invalid("fsType", "xfs ", blanks)},
		"days in the trash":              {set{"trashRetention": "7d"}, invalid("trashRetention", "7d", retention)},
		"a time in the trash of no unit": {set{"trashRetention": "24"}, invalid("trashRetention", "24", retention)},
		"less than no time in the trash": {set{"trashRetention": "-1h"}, invalid("trashRetention", "-1h", retention)},
		"parts of a second in the trash": {set{"trashRetention": "1.5s"}, invalid("trashRetention", "1.5s", retention)},
		"more than ten years in a trash": {set{"trashRetention": "87600h1s"}, invalid("trashRetention", "87600h1s", retention)},
		"more time than there is":        {set{"trashRetention": "9999999h"}, invalid("trashRetention", "9999999h", retention)},
		"a word for a time in the trash": {set{"trashRetention": "forever"}, invalid("trashRetention", "forever", retention)},
		"a time in the trash in blanks":  {set{"trashRetention": "24h "}, invalid("trashRetention", "24h ", blanks)},
		"an unknown key":                 {set{"clusterID": "x"}, invalid("clusterID", "x", known)},
		"an unknown key without a value": {set{"stripeUnit": ""}, invalid("stripeUnit", "", known)},
		"a key in blanks":                {set{"pool ": "x"}, invalid("pool ", "x", known)},
		"a key that is empty":            {set{"": "x"}, strings.Replace(invalid("", "x", known), ".", "[]", 1)},
		"a key of ceph-csi's secrets":    {set{"csi.storage.k8s.io/provisioner-secret-name": "x"}, invalid("csi.storage.k8s.io/provisioner-secret-name", "x", known)},
		"a key with a hyphen":            {set{"admin-id": "kube"}, invalid("admin-id", "kube", known)},
		"a key of 10 kB":                 {set{strings.Repeat("k", 10_000): "x"}, invalid(strings.Repeat("k", 100)+"…", "x", known)},
		"several unknown keys": {set{"a": "1", "b": "2", "c": "3"},
			"[" + invalid("a", "1", known) + ", " + invalid("b", "2", "unknown parameter") + ", " + invalid("c", "3", "unknown parameter") + "]"},
		"an unknown key with 10 kB":       {set{"note": strings.Repeat("v", 10_000)}, invalid("note", strings.Repeat("v", 100)+"…", known)},
		"a key given twice, alike":        {set{"Pool": "rbd", "pool": "rbd"}, invalid("pool", "rbd", "given twice, also as Pool: keep one of them")},
		"a key given twice, one of empty": {set{"ADMINID": "", "adminId": "kube"}, invalid("adminId", "kube", "given twice, also as ADMINID: keep one of them")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newInputWorld(t).wantRejected(t, leastClass(test.change), fixture.Claim(), inClass(test.want))
		})
	}
}

// invalid returns the text of an error about a value.
func invalid(key, value, why string) string {
	return "parameters." + key + ": Invalid value: " + strconv.Quote(value) + ": " + why
}
