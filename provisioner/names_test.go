package provisioner

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
)

// unfit are all characters that have a meaning for the kubelet, rbd or Ceph in place of a
// name, and some invisible ones.
var unfit = []string{
	"/", "\\", "@", ",", ":", "'", `"`, // of paths, image specs and options
	" ", "\t", "\n", "\r", "\v", "\f", "\u00a0", "\u2003", "\u2028", "\u3000", // white space
	"\x00", "\x01", "\x1b", "\x7f", "\u0085", "\u200b", "\u200d", "\u202e", "\ufeff", "\xff", // invisible
}

func TestNamesWithUnfitCharacters(t *testing.T) {
	t.Parallel()
	const (
		forbidden = "a slash, backslash, at sign, comma, colon, quote, white space or invisible character"
		user      = "not a cephx user id: must not contain " + forbidden + `, and must not start with "-"`
		pool      = "not a pool for volumes: its name must not contain " + forbidden + `, and must not start with "-" or "."`
	)
	for key, why := range map[string]string{"adminId": user, "userId": user, "pool": pool, "dataPool": pool} {
		for _, c := range unfit {
			name := "a" + c + "b"
			t.Run(fmt.Sprintf("%s %q", key, name), func(t *testing.T) {
				t.Parallel()
				newInputWorld(t).wantRejected(t, leastClass(map[string]string{key: name}), fixture.Claim(), inClass(invalid(key, name, why)))
			})
		}
		for _, name := range []string{"-", "-a", "--id"} {
			t.Run(key+" like the flag "+name, func(t *testing.T) {
				t.Parallel()
				newInputWorld(t).wantRejected(t, leastClass(map[string]string{key: name}), fixture.Claim(), inClass(invalid(key, name, why)))
			})
		}
	}
	for name, test := range map[string]struct{ key, value, why string }{
		"an admin with its type":             {"adminId", "client.kube", `give the id without "client."`},
		"a user with its type":               {"userId", "client.node", `give the id without "client."`},
		"a pool of Ceph's own":               {"pool", ".mgr", pool},
		"a data pool of Ceph's own":          {"dataPool", ".rgw", pool},
		"a pool that is a folder":            {"pool", "..", pool},
		"a pool that the kubelet splits":     {"pool", "my-image-pool", `the kubelet cannot unmount volumes of a pool with "-image-" in its name or "-image" at its end`},
		"a pool that the kubelet cuts short": {"pool", "my-image", `the kubelet cannot unmount volumes of a pool with "-image-" in its name or "-image" at its end`},
		"a pool too long for a file's name":  {"pool", strings.Repeat("p", 190), "the kubelet cannot mount volumes of a pool with a name of more than 189 bytes"},
		"a pool too long in UTF-8":           {"pool", strings.Repeat("ü", 95), "the kubelet cannot mount volumes of a pool with a name of more than 189 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newInputWorld(t).wantRejected(t, leastClass(map[string]string{test.key: test.value}), fixture.Claim(), inClass(invalid(test.key, storageclass.Truncate(test.value), test.why)))
		})
	}
}

// The messages of Kubernetes about invalid names.
const (
	notASubdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
	notALabel     = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)

func TestInvalidSecretNames(t *testing.T) {
	t.Parallel()
	for _, c := range append([]string{"A", "_", "%", "$", "(", "ü", ".-", ".."}, unfit...) {
		name := "a" + c + "b"
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			t.Parallel()
			for _, key := range []string{"adminSecretName", "userSecretName"} {
				newInputWorld(t).wantRejected(t, leastClass(map[string]string{key: name}), fixture.Claim(), inClass(invalid(key, name, notASubdomain)))
			}
			for _, key := range []string{"adminSecretNamespace", "userSecretNamespace"} {
				newInputWorld(t).wantRejected(t, leastClass(map[string]string{key: name}), fixture.Claim(), inClass(invalid(key, name, notALabel)))
			}
		})
	}
}
