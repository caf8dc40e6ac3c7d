//go:build e2e

package controller

import (
	"fmt"
	"os"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

func TestMain(m *testing.M) {
	framework.Parallel(8)
	code := m.Run()
	if err := thisRun.check(os.Stdout, code == 0); err != nil {
		_, _ = fmt.Fprintf(os.Stdout, "--- FAIL: the whole run\n%v\n", err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // the exit code of a TestMain
}
