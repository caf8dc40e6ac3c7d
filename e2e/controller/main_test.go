//go:build e2e

package controller

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

func TestMain(m *testing.M) {
	framework.Parallel(8)
	m.Run()
}
