package rbdutil

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var exampleOwner = Owner{
	ClaimUID: "1e7f", ClaimNamespace: "shop", ClaimName: "www-web-0",
	VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here",
}

// The keys are a promise to whoever audits a pool: `rbd image-meta list`.
var exampleMetadata = []MetadataItem{
	{"kubernetes.io/created-for/pvc/uid", "1e7f"},
	{"kubernetes.io/created-for/pvc/namespace", "shop"},
	{"kubernetes.io/created-for/pvc/name", "www-web-0"},
	{"kubernetes.io/created-for/pv/name", "pvc-1e7f"},
	{"kubernetes.io/created-by/provisioner", "ceph.com/rbd"},
	{"kubernetes.io/created-by/cluster-id", "here"},
}

func metadataMap(items []MetadataItem) map[string]string {
	m := map[string]string{}
	for _, item := range items {
		m[item.Key] = item.Value
	}
	return m
}

func TestOwnerIsWrittenWithTheClaimFirst(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(exampleMetadata, exampleOwner.missingFrom(nil)); diff != "" {
		t.Errorf("metadata of a new image (-want +got):\n%s", diff)
	}
}

func TestOwnerIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	metadata := metadataMap(exampleOwner.missingFrom(nil))
	maps.Copy(metadata, map[string]string{"rbd_mirror": "1", "kubernetes.io/created-for/other": "x"})
	got := Image{Metadata: metadata}.Owner()
	if diff := cmp.Diff(exampleOwner, got); diff != "" {
		t.Errorf("owner (-want +got):\n%s", diff)
	}
	if missing := got.missingFrom(metadata); len(missing) > 0 {
		t.Errorf("still missing: %v", missing)
	}
}

func TestOwnerWritesOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	uid, name := exampleMetadata[0].Key, exampleMetadata[2].Key
	metadata := metadataMap(exampleMetadata)
	delete(metadata, uid)
	metadata[name] = "old"
	want := []MetadataItem{{uid, "1e7f"}, {name, "www-web-0"}}
	if diff := cmp.Diff(want, exampleOwner.missingFrom(metadata)); diff != "" {
		t.Errorf("what is missing (-want +got):\n%s", diff)
	}
	// What is not known is not written over what is there.
	withoutCluster := exampleOwner
	withoutCluster.ClusterID = ""
	if missing := withoutCluster.missingFrom(metadataMap(exampleMetadata)); len(missing) > 0 {
		t.Errorf("an unknown cluster id would be written: %v", missing)
	}
}

func TestOwnersCompare(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		one, other            Owner
		sameClaim, sameVolume bool
	}{
		"an owner is its own": {
			one: exampleOwner, other: exampleOwner, sameClaim: true, sameVolume: true,
		},
		"the claim is known by its UID and the volume by its name, not by the claim's name": {
			one:   Owner{ClaimUID: "1", ClaimNamespace: "a", ClaimName: "a", VolumeName: "v"},
			other: Owner{ClaimUID: "1", ClaimNamespace: "b", ClaimName: "b", VolumeName: "v"}, sameClaim: true, sameVolume: true,
		},
		"another claim of the same name": {
			one:   Owner{ClaimUID: "1", ClaimNamespace: "a", ClaimName: "a", VolumeName: "v1"},
			other: Owner{ClaimUID: "2", ClaimNamespace: "a", ClaimName: "a", VolumeName: "v2"},
		},
		"the provisioner's name does not matter": {
			one:   Owner{ClaimUID: "1", VolumeName: "v", Provisioner: "ceph.com/rbd"},
			other: Owner{ClaimUID: "1", VolumeName: "v", Provisioner: "renamed/rbd"}, sameClaim: true, sameVolume: true,
		},
		"another cluster": {
			one:   Owner{ClaimUID: "1", VolumeName: "v", ClusterID: "here"},
			other: Owner{ClaimUID: "1", VolumeName: "v", ClusterID: "there"},
		},
		"a cluster that one lacks is not held against it": {
			one:   Owner{ClaimUID: "1", VolumeName: "v", ClusterID: "here"},
			other: Owner{ClaimUID: "1", VolumeName: "v"}, sameClaim: true, sameVolume: true,
		},
		"the claim alone": {
			one: Owner{ClaimUID: "1", VolumeName: "v"}, other: Owner{ClaimUID: "1"}, sameClaim: true,
		},
		"the volume alone": {
			one: Owner{ClaimUID: "1", VolumeName: "v"}, other: Owner{VolumeName: "v"}, sameVolume: true,
		},
		"two unknowns are not the same":                   {},
		"two unknowns of one cluster are not the same":    {one: Owner{ClusterID: "here"}, other: Owner{ClusterID: "here"}},
		"two claims without a UID are not the same claim": {one: Owner{ClaimName: "a"}, other: Owner{ClaimName: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, pair := range [][2]Owner{{test.one, test.other}, {test.other, test.one}} {
				if got := pair[0].SameClaim(pair[1]); got != test.sameClaim {
					t.Errorf("%+v SameClaim %+v: %t, want %t", pair[0], pair[1], got, test.sameClaim)
				}
				if got := pair[0].SameVolume(pair[1]); got != test.sameVolume {
					t.Errorf("%+v SameVolume %+v: %t, want %t", pair[0], pair[1], got, test.sameVolume)
				}
			}
		})
	}
}

func TestOwnerNamesItself(t *testing.T) {
	t.Parallel()
	for want, test := range map[string]struct {
		owner   Owner
		unknown bool
	}{
		"claim shop/www-web-0":  {owner: exampleOwner},
		"a claim of UID 1e7f":   {owner: Owner{ClaimUID: "1e7f", VolumeName: "pvc-1e7f"}},
		"volume pvc-1e7f":       {owner: Owner{VolumeName: "pvc-1e7f"}},
		"nobody known":          {owner: Owner{Provisioner: "ceph.com/rbd", ClusterID: "here"}, unknown: true},
		"claim shop/only-names": {owner: Owner{ClaimNamespace: "shop", ClaimName: "only-names"}, unknown: true},
	} {
		if got := test.owner.String(); got != want {
			t.Errorf("%+v calls itself %q, want %q", test.owner, got, want)
		}
		if got := test.owner.Unknown(); got != test.unknown {
			t.Errorf("%+v unknown: %t, want %t", test.owner, got, test.unknown)
		}
	}
}
