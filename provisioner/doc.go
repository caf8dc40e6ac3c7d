// Package provisioner turns claims into RBD images and PersistentVolumes, and
// released PersistentVolumes into nothing. It implements the interfaces of
// sig-storage-lib-external-provisioner, which owns the watching, queueing and
// retrying.
//
// In reading order: provisioner.go (Provision), parameters.go and monitors.go (what
// a StorageClass says), claim.go (what a claim asks), secrets.go, volume.go (the
// PersistentVolume), source.go (what a clone begins with), delete.go, expander.go (what a
// larger request sets going), sweeper.go and purger.go (what is left behind), failure.go (what an error means for the claim and
// for the person who reads it), names.go (every annotation and event reason).
package provisioner
