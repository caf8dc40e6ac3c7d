// Command rbd-provisioner makes Ceph RBD images for the claims of its
// StorageClasses and hands them to Kubernetes as in-tree rbd volumes.
package main

import (
	"os"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

func main() {
	// Ceph comes in here and nowhere else, so that all the rest compiles without it.
	newStore := func(o app.StoreOptions) app.Store { return librbd.New(librbd.Options(o)) }
	os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr, newStore, os.Exit))
}
