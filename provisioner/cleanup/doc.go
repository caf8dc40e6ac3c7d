// Package cleanup is the garbage collection of the provisioner.
//
//   - trash.go, trash_worker.go, trash_image.go: removes deleted images from the trash, or
//     restores those that a volume needs.
//   - trash_volume.go: keeps the finalizer on a volume until the trash was searched.
//   - collector.go: the loop over all pools; pools.go finds the pools.
//   - orphans.go: removes images without claim and volume, or reports them.
//   - snapshots.go: removes snapshots for clones that were never created.
package cleanup

// Reasons of events.
const (
	// reasonRestored: the volume's image was in the trash, and has been restored.
	reasonRestored = "ImageRestored"
	// reasonInTrash: the volume's image is in the trash, and cannot be restored.
	reasonInTrash = "ImageInTrash"
	// reasonFinalizerKept: the volume keeps its finalizer, because its image may be in the trash.
	reasonFinalizerKept = "FinalizerKept"
	// reasonOrphan: an image that holds data has neither claim nor volume.
	reasonOrphan = "OrphanedImage"
)
