package rbdutil

import "testing"

var exampleOwner = Owner{
	ClaimUID: "1e7f", ClaimNamespace: "shop", ClaimName: "www-web-0",
	VolumeName: "pvc-1e7f", Provisioner: "ceph.com/rbd", ClusterID: "here",
}

func TestOwnersCompare(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		one, other                       Owner
		sameClaim, sameVolume, sameMaker bool
	}{
		"the same owner": {
			one: exampleOwner, other: exampleOwner, sameClaim: true, sameVolume: true, sameMaker: true,
		},
		"claims are compared by UID, volumes by name": {
			one:   Owner{ClaimUID: "1", ClaimNamespace: "a", ClaimName: "a", VolumeName: "v"},
			other: Owner{ClaimUID: "1", ClaimNamespace: "b", ClaimName: "b", VolumeName: "v"}, sameClaim: true, sameVolume: true, sameMaker: true,
		},
		"another claim of the same name": {
			one:   Owner{ClaimUID: "1", ClaimNamespace: "a", ClaimName: "a", VolumeName: "v1"},
			other: Owner{ClaimUID: "2", ClaimNamespace: "a", ClaimName: "a", VolumeName: "v2"}, sameMaker: true,
		},
		"provisioners are compared for claims, not for volumes": {
			one:   Owner{ClaimUID: "1", VolumeName: "v", Provisioner: "ceph.com/rbd"},
			other: Owner{ClaimUID: "1", VolumeName: "v", Provisioner: "renamed/rbd"}, sameVolume: true,
		},
		"another cluster": {
			one:   Owner{ClaimUID: "1", VolumeName: "v", ClusterID: "here"},
			other: Owner{ClaimUID: "1", VolumeName: "v", ClusterID: "there"},
		},
		"a missing cluster id is accepted for volumes only": {
			one:   Owner{ClaimUID: "1", VolumeName: "v", ClusterID: "here"},
			other: Owner{ClaimUID: "1", VolumeName: "v"}, sameVolume: true,
		},
		"the claim alone": {
			one: Owner{ClaimUID: "1", VolumeName: "v"}, other: Owner{ClaimUID: "1"}, sameClaim: true, sameMaker: true,
		},
		"the volume alone": {
			one: Owner{ClaimUID: "1", VolumeName: "v"}, other: Owner{VolumeName: "v"}, sameVolume: true, sameMaker: true,
		},
		"two unknowns are not the same":                   {sameMaker: true},
		"two unknowns of one cluster are not the same":    {one: Owner{ClusterID: "here"}, other: Owner{ClusterID: "here"}, sameMaker: true},
		"two claims without a UID are not the same claim": {one: Owner{ClaimName: "a"}, other: Owner{ClaimName: "a"}, sameMaker: true},
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
				if got := pair[0].SameMaker(pair[1]); got != test.sameMaker {
					t.Errorf("%+v SameMaker %+v: %t, want %t", pair[0], pair[1], got, test.sameMaker)
				}
			}
		})
	}
}

func TestOwnerString(t *testing.T) {
	t.Parallel()
	for want, test := range map[string]struct {
		owner   Owner
		unknown bool
	}{
		"claim shop/www-web-0":  {owner: exampleOwner},
		"claim with UID 1e7f":   {owner: Owner{ClaimUID: "1e7f", VolumeName: "pvc-1e7f"}},
		"volume pvc-1e7f":       {owner: Owner{VolumeName: "pvc-1e7f"}},
		"no known owner":        {owner: Owner{Provisioner: "ceph.com/rbd", ClusterID: "here"}, unknown: true},
		"claim shop/only-names": {owner: Owner{ClaimNamespace: "shop", ClaimName: "only-names"}, unknown: true},
	} {
		if got := test.owner.String(); got != want {
			t.Errorf("%+v: String() = %q, want %q", test.owner, got, want)
		}
		if got := test.owner.Unknown(); got != test.unknown {
			t.Errorf("%+v unknown: %t, want %t", test.owner, got, test.unknown)
		}
	}
}
