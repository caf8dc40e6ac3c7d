package provisioner

import (
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func FuzzClaimSize(f *testing.F) {
	for _, size := range []string{
		"0", "1", "1m", "1n", "1500Mi", "1e3", "1E9", "0.5Gi", "1.1G", "16Ei", "8Ei", "-1Gi", "9223372036854775807", "1000000Gi", "1000001Gi", ".5", "5.",
	} {
		for _, objects := range []string{"", "4Ki", "32Mi"} {
			f.Add(size, objects)
		}
	}
	f.Fuzz(func(t *testing.T, size, objects string) {
		p, errs := storageclass.Parse(rawParameters(map[string]string{"objectSize": objects}))
		if len(errs) > 0 || len(size) > 25 || exponent.MatchString(size) {
			return // an invalid class, or a quantity that the API server would not parse either
		}
		request, err := resource.ParseQuantity(size)
		if err != nil {
			return
		}
		claim := fixture.Claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: request}
		})
		req, errs := parseClaim(claim, p.Layout)
		got := req.size
		if (got == 0) != (len(errs) > 0) {
			t.Fatalf("%s gives %d and %v", size, got, errs)
		}
		if got == 0 {
			return
		}
		// The capacity must be exact, and not less than the request.
		capacity := resource.NewQuantity(int64(got), resource.BinarySI)
		if again := resource.MustParse(capacity.String()); again.Cmp(*capacity) != 0 || capacity.Cmp(request) < 0 || capacity.Sign() <= 0 {
			t.Errorf("%s gives a volume of %s", size, capacity)
		}
	})
}

// exponent matches exponents that ParseQuantity computes for minutes.
var exponent = regexp.MustCompile(`[eE][+-]?[0-9]{4,}$`)

func FuzzSecret(f *testing.F) {
	f.Add("key", fixture.AdminKey, "", "")
	f.Add("key", fixture.AdminKey+"\n", "other", fixture.UserKey)
	f.Add("a", fixture.AdminKey, "b", fixture.UserKey)
	f.Add("keyring", "[client.admin]\nkey = "+fixture.AdminKey, "", "")
	f.Add("KEY", "\x00\xff", "key", "")
	f.Add("only", encode(fixture.AdminKey), "", "")
	f.Fuzz(func(t *testing.T, name, value, otherName, other string) {
		secret := fixture.Secret("ceph", "admin", map[string]string{name: value})
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
				t.Errorf("%q gives an invalid key", secret.Data)
			}
			return
		}
		if key != (rbdutil.Key{}) {
			t.Errorf("%q gives a key and the error %v", secret.Data, err)
		}
		// The names of entries may be shown, but not their values.
		for name, value := range secret.Data {
			if len(value) > 12 && !strings.Contains(name, string(value[:12])) && strings.Contains(err.Error(), string(value)) {
				t.Errorf("the error shows %q: %v", value, err)
			}
		}
	})
}
