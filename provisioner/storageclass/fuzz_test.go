package storageclass

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
		"[::ffff:10.0.0.1]", "[::1", "a:65536", "a,a", strings.Repeat("a,", 31), strings.Repeat("a,", 32), strings.Repeat("a", 254),
	} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		monitors, err := parseMonitors(list)
		if err != nil {
			if len(monitors) > 0 {
				t.Errorf("%q gives %q and the error %v", list, monitors, err)
			}
			return
		}
		if len(monitors) == 0 || len(monitors) > rbdutil.MaxMonitors {
			t.Errorf("%q is accepted and holds %d", list, len(monitors))
		}
		for _, monitor := range monitors {
			if monitor == "" || !strings.Contains(list, monitor) || strings.ContainsFunc(monitor, notInMonitors) {
				t.Errorf("%q gives %q", list, monitor)
			}
		}
		// csi-translation-lib joins the monitors and computes a hash.
		again, err := parseMonitors(strings.Join(monitors, ","))
		if diff := cmp.Diff(monitors, again); diff != "" || err != nil {
			t.Errorf("%q is parsed differently the second time: %v (-first +again):\n%s", list, err, diff)
		}
	})
}

// notInMonitors reports whether the character has a special meaning in mon_host or in an
// argument of the rbd command.
func notInMonitors(c rune) bool {
	return c <= ' ' || c >= 0x7f || strings.ContainsRune(`,;/@='"\%`, c)
}

func FuzzParseParameters(f *testing.F) {
	f.Add("10.0.0.1:6789", "kube", "kube", "ec", "layering", "4Mi", "ext4", "/etc/ceph/keyring", "userId", "node")
	f.Add("a,b", "client.admin", "my-image", "x-image-y", "fast-diff", "0", "EXT4", "keyring", "POOL", "twice")
	f.Add("[::1]", "-a", "a/b", ".a", "journaling", "1e2147483647", "", "/a b", "unknown", "")
	f.Add("v1:a:1", "a b", "\u00a0", "a@b", " ", "-9E", "xfs ", "", "", "")
	f.Add("a", "köbe", "möhre", "möhre", "exclusive-lock,object-map", "4Ki", "ext3", "/k", "pOoL", "a\u200bb")
	f.Add("mon", "\x00", "\x7f", "a\nb", ",layering,", "4194304500m", "btrfs", "//", "monitors", "mon")
	f.Fuzz(func(t *testing.T, monitors, user, pool, dataPool, features, objectSize, fsType, keyring, key, value string) {
		raw := map[string]string{
			"monitors": monitors, "adminId": user, "adminSecretName": "a", "userSecretName": "b", "pool": pool,
			"dataPool": dataPool, "imageFeatures": features, "objectSize": objectSize, "fsType": fsType, "keyring": keyring,
		}
		raw[key] = value
		p, errs := Parse(raw)
		for _, err := range errs {
			if !strings.HasPrefix(err.Field, "parameters") || err.Detail == "" {
				t.Errorf("an error without parameter or hint: %v", err)
			}
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes: %v", len(err.Error()), err)
			}
		}
		if len(errs) > 0 {
			return
		}
		checkParameters(t, p)
	})
}

// checkParameters fails the test if a node or Ceph could misread accepted parameters.
func checkParameters(t *testing.T, p Parameters) {
	t.Helper()
	if len(p.Monitors) == 0 || p.AdminSecret.Name == "" || p.AdminSecret.Namespace == "" || (p.UserSecret.Name == "" && p.Keyring == "") {
		t.Errorf("something is missing in %+v", p)
	}
	for _, name := range []string{p.AdminID, p.UserID, p.Pool} {
		if name == "" || strings.ContainsFunc(name, notInNames) || strings.HasPrefix(name, "-") {
			t.Errorf("%q is accepted for a name", name)
		}
	}
	if strings.ContainsFunc(p.Layout.DataPool, notInNames) || p.Layout.DataPool == p.Pool {
		t.Errorf("%q is accepted for a data pool", p.Layout.DataPool)
	}
	// The kubelet splits the name of a mounted volume like this.
	image := rbdutil.ImageName("1e7f")
	if file := p.Pool + "-image-" + rbdutil.ImageName("1e7f0000-0000-4000-8000-000000000000"); len(file) > 255 {
		t.Errorf("the kubelet cannot create directory %q", file)
	}
	if parts := strings.Split(p.Pool+"-image-"+image, "-image-"); !slices.Equal(parts, []string{p.Pool, image}) {
		t.Errorf("the kubelet splits the name of pool %q into %q", p.Pool, parts)
	}
	if got, err := rbdutil.ParseFeatures(p.Layout.Features.String()); err != nil || got != p.Layout.Features || got == 0 {
		t.Errorf("features %s: %v", p.Layout.Features, err)
	}
	if p.Layout.ObjectSize != 0 && rbdutil.CheckObjectSize(p.Layout.ObjectSize) != nil {
		t.Errorf("objects of %d bytes", p.Layout.ObjectSize)
	}
	if p.FSType != "" && !slices.Contains(fsTypes, p.FSType) {
		t.Errorf("file system %q", p.FSType)
	}
	if p.Keyring != "" && (!strings.HasPrefix(p.Keyring, "/") || strings.ContainsAny(p.Keyring, " ;!`")) {
		t.Errorf("keyring %q", p.Keyring)
	}
}
