// Command agnhost is a small substitute for the image registry.k8s.io/e2e-test-images/agnhost. It
// has only the subcommands that the storage suites run, from Kubernetes' own packages.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/kubernetes/test/images/agnhost/mounttest"
	"k8s.io/kubernetes/test/images/agnhost/pause"
)

func main() {
	agnhost := &cobra.Command{Use: "agnhost"}
	agnhost.AddCommand(mounttest.CmdMounttest, pause.CmdPause)
	if err := agnhost.Execute(); err != nil {
		os.Exit(1)
	}
}
