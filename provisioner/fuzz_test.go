package provisioner

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

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
				t.Errorf("%q gives %q beside the error %v", list, monitors, err)
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
	f.Add("a", "köbe", "möhre", "möhre", "exclusive-lock,object-map", "4Ki", "ext3", "/k", "pOoL", "a\u200bb")
	f.Add("mon", "\x00", "\x7f", "a\nb", ",layering,", "4194304500m", "btrfs", "//", "monitors", "mon")
	f.Fuzz(func(t *testing.T, monitors, user, pool, dataPool, features, objectSize, fsType, keyring, key, value string) {
		raw := map[string]string{
			"monitors": monitors, "adminId": user, "adminSecretName": "a", "userSecretName": "b", "pool": pool,
			"dataPool": dataPool, "imageFeatures": features, "objectSize": objectSize, "fsType": fsType, "keyring": keyring,
		}
		raw[key] = value
		p, errs := parseParameters(raw)
		for _, err := range errs {
			if !strings.HasPrefix(err.Field, "parameters") || err.Detail == "" {
				t.Errorf("an error of no parameter, or without advice: %v", err)
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
	if strings.ContainsFunc(p.layout.DataPool, notInNames) || p.layout.DataPool == p.pool {
		t.Errorf("%q is accepted for a data pool", p.layout.DataPool)
	}
	// As the kubelet takes the name of a mounted volume apart.
	image := rbdutil.ImageName("1e7f")
	if file := p.pool + "-image-" + rbdutil.ImageName("1e7f0000-0000-4000-8000-000000000000"); len(file) > 255 {
		t.Errorf("the kubelet cannot make folder %q", file)
	}
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

func FuzzClaimSize(f *testing.F) {
	for _, size := range []string{
		"0", "1", "1m", "1n", "1500Mi", "1e3", "1E9", "0.5Gi", "1.1G", "16Ei", "8Ei", "-1Gi", "9223372036854775807", "1000000Gi", "1000001Gi", ".5", "5.",
	} {
		for _, objects := range []string{"", "4Ki", "32Mi"} {
			f.Add(size, objects)
		}
	}
	f.Fuzz(func(t *testing.T, size, objects string) {
		p, errs := parseParameters(rawParameters(map[string]string{"objectSize": objects}))
		if len(errs) > 0 || len(size) > 25 || exponent.MatchString(size) {
			return // no class, or no claim that the API server would take its time for
		}
		request, err := resource.ParseQuantity(size)
		if err != nil {
			return
		}
		claim := claimOf(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: request}
		})
		got, errs := sizeOf(claim, p.layout)
		if (got == 0) != (len(errs) > 0) {
			t.Fatalf("%s gives %d and %v", size, got, errs)
		}
		if got == 0 {
			return
		}
		// What the volume says of it must be all of it, and no less than the claim asks for.
		capacity := resource.NewQuantity(int64(got), resource.BinarySI)
		if again := resource.MustParse(capacity.String()); again.Cmp(*capacity) != 0 || capacity.Cmp(request) < 0 || capacity.Sign() <= 0 {
			t.Errorf("%s gives a volume of %s", size, capacity)
		}
	})
}

// exponent is one that ParseQuantity works out for minutes.
var exponent = regexp.MustCompile(`[eE][+-]?[0-9]{4,}$`)

func FuzzSecret(f *testing.F) {
	f.Add("key", adminKeyText, "", "")
	f.Add("key", adminKeyText+"\n", "other", userKeyText)
	f.Add("a", adminKeyText, "b", userKeyText)
	f.Add("keyring", "[client.admin]\nkey = "+adminKeyText, "", "")
	f.Add("KEY", "\x00\xff", "key", "")
	f.Add("only", encode(adminKeyText), "", "")
	f.Fuzz(func(t *testing.T, name, value, otherName, other string) {
		secret := secretOf("ceph", "admin", map[string]string{name: value})
		if otherName != "" {
			secret.Data[otherName] = []byte(other)
		}
		key, err := keyIn(secret)
		if err == nil {
			want, ok := secret.Data["key"]
			if !ok {
				want = secret.Data[name] // the only one
			}
			if key.Reveal() != string(want) || (!ok && len(secret.Data) > 1) {
				t.Errorf("%q gives another key", secret.Data)
			}
			if key.Check() != nil {
				t.Errorf("%q gives what is no key", secret.Data)
			}
			return
		}
		if key != (rbdutil.Key{}) {
			t.Errorf("%q gives a key beside %v", secret.Data, err)
		}
		// The names of entries are no secret, but their values are.
		for name, value := range secret.Data {
			if len(value) > 12 && !strings.Contains(name, string(value[:12])) && strings.Contains(err.Error(), string(value)) {
				t.Errorf("the error shows %q: %v", value, err)
			}
		}
	})
}
