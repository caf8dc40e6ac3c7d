package rbdutil

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The format is stable: administrators read it with `rbd image-meta get`.
func TestRecordFormat(t *testing.T) {
	t.Parallel()
	deleted := time.Date(2026, 11, 27, 14, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		record Record
		text   string
	}{
		"an image": {
			Record{Owner: exampleOwner, Size: 8 << 20},
			`{"claimUID":"1e7f","claimNamespace":"shop","claimName":"www-web-0","volumeName":"pvc-1e7f","provisioner":"ceph.com/rbd","clusterID":"here","size":8388608}`,
		},
		"a clone": {
			Record{
				Owner: Owner{ClaimUID: "1e7f"}, Size: 8 << 20, Flatten: true,
				Source: &RecordedSource{SourceVolume{"pvc-db", "xfs", 1 << 20}, SnapshotRef{"kube", "1234", "rbd-provisioner-for-x"}, 2 << 20},
			},
			`{"claimUID":"1e7f","size":8388608,"source":{"volumeName":"pvc-db","fsType":"xfs","fsSize":1048576,` +
				`"pool":"kube","imageID":"1234","snapshot":"rbd-provisioner-for-x","size":2097152},"flatten":true}`,
		},
		"an image in the trash": {
			Record{Owner: Owner{VolumeName: "pvc-1e7f"}}.WithDeletion(exampleOwner, Deletion{Time: deleted.Add(time.Millisecond), KeepUntil: deleted.Add(time.Hour), Unused: true}),
			`{"volumeName":"pvc-1e7f","deleted":{"provisioner":"ceph.com/rbd","clusterID":"here","time":"2026-11-27T14:00:00Z","keepUntil":"2026-11-27T15:00:00Z","unused":true}}`,
		},
		"an owner set by an administrator": {Record{Owner: Owner{VolumeName: "pvc-1e7f"}}, `{"volumeName":"pvc-1e7f"}`},
		"an empty record":                  {Record{}, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := test.record.Encode()
			if diff := cmp.Diff(test.text, text); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			got, err := DecodeRecord(" " + text + "\n")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.record, got); diff != "" {
				t.Errorf("record (-written +read):\n%s", diff)
			}
		})
	}
}

func TestAnUnknownRecordIsAnError(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"an empty value":              ``,
		"no JSON":                     `pvc-1e7f`,
		"half a record":               `{"volumeName":"pvc-1e7f"`,
		"two records":                 `{"volumeName":"pvc-1e7f"} {}`,
		"a list":                      `[{"volumeName":"pvc-1e7f"}]`,
		"a field of a later version":  `{"volumeName":"pvc-1e7f","keep":true}`,
		"a field of its source":       `{"volumeName":"pvc-1e7f","source":{"keep":true}}`,
		"a field of its deletion":     `{"volumeName":"pvc-1e7f","deleted":{"keep":true}}`,
		"a size that is no number":    `{"volumeName":"pvc-1e7f","size":"8Mi"}`,
		"a size that is negative":     `{"volumeName":"pvc-1e7f","size":-1}`,
		"an invalid time":             `{"volumeName":"pvc-1e7f","deleted":{"time":"at noon"}}`,
		"a size that overflows":       `{"volumeName":"pvc-1e7f","size":99999999999999999999}`,
		"the predecessor's own value": `1e7f`,
	} {
		if got, err := DecodeRecord(text); err == nil || !strings.Contains(err.Error(), "metadata "+MetaRecord) {
			t.Errorf("%s: %+v, error %v, want one that names the key", name, got, err)
		}
	}
}

// Ceph copies records into clones and copies of images. Administrators move copies or restored
// images to the trash.
func TestDeletedByMatchesOneEntry(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	record := Record{Owner: exampleOwner, ImageID: "1"}.WithDeletion(exampleOwner, Deletion{Time: now, KeepUntil: now.Add(time.Hour)})
	for name, test := range map[string]struct {
		entry TrashedImage
		want  bool
	}{
		"the entry of the move":             {TrashedImage{ID: "1", Trashed: now, KeepUntil: now.Add(time.Hour)}, true},
		"with the fraction of a second":     {TrashedImage{ID: "1", Trashed: now, KeepUntil: now.Add(time.Hour - time.Second)}, true},
		"not the copy of an image":          {TrashedImage{ID: "2", Trashed: now, KeepUntil: now.Add(time.Hour)}, false},
		"not an entry that expires earlier": {TrashedImage{ID: "1", Trashed: now.Add(time.Minute), KeepUntil: now.Add(time.Minute)}, false},
		"an entry that is kept longer":      {TrashedImage{ID: "1", Trashed: now, KeepUntil: now.Add(2 * time.Hour)}, true},
	} {
		if got := record.DeletedBy(exampleOwner, test.entry); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}

func TestDeletedBy(t *testing.T) {
	t.Parallel()
	written := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	by := func(change func(*Owner)) Record {
		maker := exampleOwner
		change(&maker)
		return Record{Owner: exampleOwner}.WithDeletion(maker, Deletion{Time: written})
	}
	ours := by(func(*Owner) {})
	for name, test := range map[string]struct {
		record  Record
		trashed time.Time
		want    bool
	}{
		"moved immediately":                          {ours, written.Add(time.Second), true},
		"moved at the end of the tolerance":          {ours, written.Add(2 * time.Minute), true},
		"clocks that differ":                         {ours, written.Add(-time.Minute), true},
		"an image of another claim":                  {by(func(o *Owner) { o.ClaimUID, o.VolumeName = "2", "pvc-2" }), written, true},
		"not a later move by another client":         {ours, written.Add(3 * time.Minute), false},
		"not an earlier move by another client":      {ours, written.Add(-2 * time.Hour), false},
		"not another cluster's":                      {by(func(o *Owner) { o.ClusterID = "there" }), written, false},
		"not that of a cluster with the same prefix": {by(func(o *Owner) { o.ClusterID = "hereabouts" }), written, false},
		"not another provisioner's":                  {by(func(o *Owner) { o.Provisioner = "example.com/rbd" }), written, false},
		"not a deletion without a time":              {Record{Deleted: &Deletion{Provisioner: "ceph.com/rbd", ClusterID: "here"}}, written, false},
		"not an image without a deletion":            {Record{Owner: exampleOwner}, written, false},
		"not an image without a record":              {Record{}, time.Time{}, false},
	} {
		if got := test.record.DeletedBy(exampleOwner, TrashedImage{Trashed: test.trashed, KeepUntil: test.trashed}); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
	}
}

func TestClaimUID(t *testing.T) {
	t.Parallel()
	const uid = "0b5c9f1e-5b3c-4a2d-9f57-3d4a0a3c8f11"
	for name, ours := range map[string]bool{
		"kubernetes-dynamic-pvc-" + uid:                              true,
		"kubernetes-dynamic-pvc-src-rescue":                          false,
		"kubernetes-dynamic-pvc-":                                    false,
		"kubernetes-dynamic-pvc-1e7f":                                false,
		"kubernetes-dynamic-pvc-" + uid + "-copy":                    false,
		"kubernetes-dynamic-pvc-" + uid + "\n":                       false,
		"kubernetes-dynamic-pvc- " + uid:                             false,
		"kubernetes-dynamic-pvc-" + strings.ToUpper(uid):             false,
		"kubernetes-dynamic-pvc-" + strings.ReplaceAll(uid, "-", ""): false,
		"old-kubernetes-dynamic-pvc-" + uid:                          false,
		"csi-vol-" + uid:                                             false,
		uid:                                                          false,
	} {
		got, ok := ClaimUID(name)
		if ok != ours || ok && (got != uid || ImageName(got) != name) {
			t.Errorf("%q: UID %q, %t, want %t", name, got, ok, ours)
		}
	}
}
