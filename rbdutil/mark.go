package rbdutil

import (
	"strings"
	"time"
)

// MetaDeletedBy is the image-meta key of the Mark.
const MetaDeletedBy = "kubernetes.io/deleted-by"

// Mark says on an image in the trash who put it there, and so who may remove it. What
// others put there, they may want back.
type Mark string

func markOf(o Owner) Mark { return Mark(o.Provisioner + " in " + o.ClusterID) }

// markValidity is how long after it was written a mark may be taken for the reason why
// an image came into the trash. A deletion that was given up leaves its mark behind,
// and long afterwards somebody may put the image there himself.
const markValidity = time.Hour

// At is the metadata's value: the mark and when it was written.
func (m Mark) At(now time.Time) string { return string(m) + " at " + now.UTC().Format(time.RFC3339) }

// Covers tells whether the value says that the image, which came into the trash at that
// time, was put there by the mark's owner.
func (m Mark) Covers(value string, trashed time.Time) bool {
	text, ok := strings.CutPrefix(value, string(m)+" at ")
	if !ok {
		return false
	}
	written, err := time.Parse(time.RFC3339, text)
	return err == nil && trashed.Sub(written).Abs() <= markValidity
}
