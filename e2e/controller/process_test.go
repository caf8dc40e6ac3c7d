//go:build e2e

package controller

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// Short names of what every test here begins with.

type process = framework.Process

const operationTimeout = framework.OperationTimeout

func newEnv(t *testing.T) *framework.Env {
	t.Helper()
	return framework.NewForProcess(t)
}

func start(t *testing.T, e *framework.Env, flags ...string) *process {
	t.Helper()
	return framework.Start(t, e, flags...)
}
