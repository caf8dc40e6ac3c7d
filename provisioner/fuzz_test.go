package provisioner

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func FuzzParseMonitors(f *testing.F) {
	for _, list := range []string{
		"", ",", "10.0.0.1", "10.0.0.1:6789, mon-b:3300 ,[2001:db8::1]:6789", "[::1]", "v1:6789,v2", "v1:10.0.0.1:6789",
		"[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]", "mon.example.com.:6789", "a:0", "[fe80::1%eth0]:1", "a;b", "a/1", "\u00a0a", "möhn",
	} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		monitors, err := parseMonitors(list)
		if err != nil {
			if len(monitors) > 0 {
				t.Errorf("%q gives %q beside the error %v", list, monitors, err)
			}
			return
		}
		if len(monitors) == 0 {
			t.Errorf("%q is accepted and holds nothing", list)
		}
		for _, monitor := range monitors {
			if monitor == "" || !strings.Contains(list, monitor) || strings.ContainsFunc(monitor, notInMonitors) {
				t.Errorf("%q gives %q", list, monitor)
			}
		}
		// What csi-translation-lib does with them is to join and to hash.
		again, err := parseMonitors(strings.Join(monitors, ","))
		if diff := cmp.Diff(monitors, again); diff != "" || err != nil {
			t.Errorf("%q does not read the same again: %v (-first +again):\n%s", list, err, diff)
		}
	})
}

// notInMonitors tells which characters would mean something else in mon_host or in
// an argument of the rbd command.
func notInMonitors(c rune) bool {
	return c <= ' ' || c >= 0x7f || strings.ContainsRune(`,;/@='"\%`, c)
}

func FuzzParseParameters(f *testing.F) {
	f.Add("10.0.0.1:6789", "kube", "kube", "ec", "layering", "4Mi", "ext4", "/etc/ceph/keyring", "userId", "node")
	f.Add("a,b", "client.admin", "my-image", "x-image-y", "fast-diff", "0", "EXT4", "keyring", "POOL", "twice")
	f.Add("[::1]", "-a", "a/b", ".a", "journaling", "1e2147483647", "", "/a b", "unknown", "")
	f.Add("v1:a:1", "a b", "\u00a0", "a@b", " ", "-9E", "xfs ", "", "", "")
	f.Add("mon", "\x00", "\x7f", "a\nb", ",layering,", "4194304500m", "btrfs", "//", "monitors", "mon")
	f.Fuzz(func(t *testing.T, monitors, user, pool, dataPool, features, objectSize, fsType, keyring, key, value string) {
		raw := map[string]string{
			"monitors": monitors, "adminId": user, "adminSecretName": "a", "userSecretName": "b", "pool": pool,
			"dataPool": dataPool, "imageFeatures": features, "objectSize": objectSize, "fsType": fsType, "keyring": keyring,
		}
		raw[key] = value
		p, errs := parseParameters(raw)
		for _, err := range errs {
			if !strings.HasPrefix(err.Field, "parameters") {
				t.Errorf("an error of no parameter: %v", err)
			}
		}
		if len(errs) > 0 {
			return
		}
		checkParameters(t, p)
	})
}

// checkParameters wants nothing in accepted parameters that a node or Ceph could
// misunderstand.
func checkParameters(t *testing.T, p parameters) {
	t.Helper()
	if len(p.monitors) == 0 || p.adminSecret.Name == "" || p.adminSecret.Namespace == "" || (p.userSecret.Name == "" && p.keyring == "") {
		t.Errorf("something is missing in %+v", p)
	}
	for _, name := range []string{p.adminID, p.userID, p.pool} {
		if name == "" || strings.ContainsFunc(name, notInNames) || strings.HasPrefix(name, "-") {
			t.Errorf("%q is accepted for a name", name)
		}
	}
	if strings.ContainsFunc(p.layout.DataPool, notInNames) {
		t.Errorf("%q is accepted for a data pool", p.layout.DataPool)
	}
	// As the kubelet takes the name of a mounted volume apart.
	image := imagePrefix + "1e7f"
	if parts := strings.Split(p.pool+"-image-"+image, "-image-"); !slices.Equal(parts, []string{p.pool, image}) {
		t.Errorf("the kubelet takes pool %q for %q", p.pool, parts)
	}
	if got, err := rbdutil.ParseFeatures(p.layout.Features.String()); err != nil || got != p.layout.Features || got == 0 {
		t.Errorf("features %s: %v", p.layout.Features, err)
	}
	if p.layout.ObjectSize != 0 && rbdutil.CheckObjectSize(p.layout.ObjectSize) != nil {
		t.Errorf("objects of %d bytes", p.layout.ObjectSize)
	}
	if p.fsType != "" && !slices.Contains(fsTypes, p.fsType) {
		t.Errorf("file system %q", p.fsType)
	}
	if p.keyring != "" && (!strings.HasPrefix(p.keyring, "/") || strings.ContainsAny(p.keyring, " ;!`")) {
		t.Errorf("keyring %q", p.keyring)
	}
}
