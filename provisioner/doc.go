// Package provisioner creates the RBD images of claims and the PersistentVolumes for them,
// and deletes the images of released PersistentVolumes. It implements the interfaces of
// sig-storage-lib-external-provisioner, which watches, queues and retries.
//
//   - provisioner.go: Provision; claim.go: what the claim asks for; clone.go: clones;
//     volume.go: the PersistentVolume.
//   - delete.go: Delete; inuse.go: who uses an image.
//   - clusters.go and secrets.go: the Ceph cluster of a class or volume, and credentials.
//   - errors.go: what an error means for the claim, for metrics and for the
//     administrator.
//   - names.go: annotations and event reasons.
//
// It uses storageclass (the parameters of a class) and pvindex (the volumes of an image).
// The packages expansion (larger claims) and cleanup (garbage collection) use it.
package provisioner
