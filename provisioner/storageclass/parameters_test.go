package storageclass

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryParameterIsRead(t *testing.T) {
	t.Parallel()
	// This value is invalid for each parameter.
	const wrong = "\twrong@"
	for _, key := range keys {
		raw := map[string]string{"monitors": "10.0.0.1:6789", "adminSecretName": "ceph-admin", "userSecretName": "ceph-user"}
		raw[key] = wrong
		_, errs := Parse(raw)
		if len(errs) == 0 || errs[0].Field != "parameters."+key {
			t.Errorf("%s: %q is not reported: %v", key, wrong, errs)
		}
	}
}

func TestTheKeyOfCSIDriversForTheFileSystemIsRead(t *testing.T) {
	t.Parallel()
	class := func(more map[string]string) map[string]string {
		raw := map[string]string{"monitors": "10.0.0.1:6789", "adminSecretName": "ceph-admin", "userSecretName": "ceph-user"}
		maps.Copy(raw, more)
		return raw
	}
	for name, test := range map[string]struct {
		add        map[string]string
		want, errs string
	}{
		"alone":         {add: map[string]string{"csi.storage.k8s.io/fstype": "xfs"}, want: "xfs"},
		"in upper case": {add: map[string]string{"CSI.storage.k8s.io/fsType": "xfs"}, want: "xfs"},
		"empty":         {add: map[string]string{"csi.storage.k8s.io/fstype": ""}},
		"unsupported": {add: map[string]string{"csi.storage.k8s.io/fstype": "ntfs"},
			errs: `parameters.fsType: Unsupported value: "ntfs": supported values: "ext4", "xfs", "ext3", "btrfs"`},
		"beside fsType": {add: map[string]string{"csi.storage.k8s.io/fstype": "xfs", "fsType": "ext4"},
			errs: `parameters.fsType: Invalid value: "ext4": given twice, also as csi.storage.k8s.io/fstype: keep one of them`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, errs := Parse(class(test.add))
			var text string
			if len(errs) > 0 {
				text = errs.ToAggregate().Error()
			}
			if text != test.errs || len(errs) == 0 && got.FSType != test.want {
				t.Errorf("got file system %q, error %q; want %q, %q", got.FSType, text, test.want, test.errs)
			}
		})
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, errs := Parse(map[string]string{
		"Monitors": "", "adminId": "client.kube", "userId": "a b", "adminSecretNamespace": "x.y",
		"keyring": "here", "pool": "a/b", "dataPool": "-ec", "imageFormat": "1", "imageFeatures": "magic",
		"objectSize": "3", "fsType": "ntfs", "unknown": "x", "POOL": "twice",
	})
	var fields []string
	for _, err := range errs {
		fields = append(fields, strings.TrimPrefix(err.Field, "parameters."))
	}
	want := []string{
		"pool", "unknown", // reported first
		"monitors", "adminId", "adminSecretNamespace", "keyring", "imageFeatures", "objectSize", "dataPool",
		"fsType", "userId", "adminSecretName", "imageFormat",
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("mistakes in (-want +got):\n%s", diff)
	}
}

func TestMistakesAreReportedInTheSameOrder(t *testing.T) {
	t.Parallel()
	raw := map[string]string{"a": "1", "b": "2", "c": "3", "POOL": "x", "Pool": "y", "pool": "z"}
	_, first := Parse(raw)
	for range 20 {
		_, again := Parse(raw)
		if diff := cmp.Diff(first.ToAggregate().Error(), again.ToAggregate().Error()); diff != "" {
			t.Fatalf("the events would not be aggregated (-first +again):\n%s", diff)
		}
	}
}
