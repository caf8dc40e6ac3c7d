package rbdutil

import (
	"regexp"
	"strings"
)

// imagePrefix begins the name of every image that is made for a claim. It is the one that
// csi-translation-lib and ceph-csi expect of in-tree volumes.
const imagePrefix = "kubernetes-dynamic-pvc-"

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ImageName is the name of the image of a claim.
func ImageName(claimUID string) string { return imagePrefix + claimUID }

// ClaimUID returns the UID of the claim that an image of that name was made for. It is
// false for every name that is not the prefix and a whole UUID: others, too, begin names
// with the prefix.
func ClaimUID(imageName string) (uid string, ok bool) {
	uid, ok = strings.CutPrefix(imageName, imagePrefix)
	return uid, ok && uuid.MatchString(uid)
}

// HasImagePrefix reports whether the name begins as those of images made for claims do, by
// this provisioner and its predecessors.
func HasImagePrefix(imageName string) bool { return strings.HasPrefix(imageName, imagePrefix) }
