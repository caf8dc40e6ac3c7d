// Command rbd-provisioner provisions PersistentVolumeClaims with Ceph RBD images, as in-tree rbd volumes.
package main

import (
	"os"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd"
)

func main() {
	// This is the only import of librbd, so that all other packages compile without Ceph.
	newStore := func(o app.StoreOptions) app.Store { return librbd.New(librbd.Options(o)) }
	os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr, newStore, os.Exit))
}
