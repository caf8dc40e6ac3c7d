package rbdutil

import (
	"regexp"
	"strings"
)

// imagePrefix begins the name of every image for a claim. csi-translation-lib and ceph-csi
// expect it of in-tree volumes.
const imagePrefix = "kubernetes-dynamic-pvc-"

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ImageName returns the name of the image for a claim.
func ImageName(claimUID string) string { return imagePrefix + claimUID }

// ClaimUID returns the UID of the claim that an image was created for. It accepts only the
// prefix with a complete UUID: others, too, create images with the prefix.
func ClaimUID(imageName string) (uid string, ok bool) {
	uid, ok = strings.CutPrefix(imageName, imagePrefix)
	return uid, ok && uuid.MatchString(uid)
}

// HasImagePrefix reports whether the name has the prefix of images for claims, of this
// provisioner or its predecessors.
func HasImagePrefix(imageName string) bool { return strings.HasPrefix(imageName, imagePrefix) }
