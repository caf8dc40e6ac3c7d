//go:build e2e

package controller

import (
	"os"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// TestManifestsAreAccepted sends all manifests of deploy to the API server, as a dry run. It
// rejects a kind, version or field that it does not know.
func TestManifestsAreAccepted(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	base, err := framework.Base(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	manifests := map[string]string{"base": strings.Join(base, "\n---\n")}
	files := []string{
		"example/secrets.yaml", "example/storageclass.yaml",
		"components/secrets-in-namespace/role.yaml", "components/servicemonitor/service.yaml",
	}
	if e.HasKubernetes(t, "1.21") {
		files = append(files, "components/high-availability/poddisruptionbudget.yaml")
	}
	for _, file := range files {
		data, err := os.ReadFile("../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		manifests[file] = string(data)
	}
	for name, manifest := range manifests {
		if _, err := framework.TryKubectl(t.Context(), manifest, "apply", "--dry-run=server", "--validate=true", "-f", "-"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
