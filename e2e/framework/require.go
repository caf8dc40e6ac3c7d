package framework

import (
	"os"
	"testing"
)

// RequireKernelClient skips a test whose pods mount volumes if KERNEL_CLIENT is "none": the
// kernel of the nodes has no rbd module. Without this variable, every test runs.
func RequireKernelClient(t *testing.T) {
	t.Helper()
	if os.Getenv("KERNEL_CLIENT") == "none" {
		skip(t, "the nodes have no rbd module")
	}
}

// RequireSeparateKernels skips a test that maps one image on two nodes if these share a kernel,
// like nodes of kind. The kernel maps an image once, and the kubelets would unmap it for each
// other.
func (e *Env) RequireSeparateKernels(t *testing.T) {
	t.Helper()
	first, second := e.nodes(t)
	if first.Status.NodeInfo.BootID == second.Status.NodeInfo.BootID {
		skip(t, "the nodes share one kernel")
	}
}

// skip skips a test. Nodes of a lab lack nothing, so there it fails. e2e/kind/run lists the
// messages.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("RBD_LAB") != "" {
		t.Fatalf("%s, but no test may be skipped in a lab", reason)
	}
	t.Skipf("SKIPPED %s: %s", t.Name(), reason)
}
