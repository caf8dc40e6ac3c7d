//go:build e2e

package controller

import (
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// Short names for the tests of this package.

type process = framework.Process

const operationTimeout = framework.OperationTimeout

// newEnv creates an environment that is part of the checks of the whole run.
func newEnv(t *testing.T) *framework.Env {
	t.Helper()
	thisRun.watch(t)
	e := framework.NewForProcess(t)
	e.Cleanup(func(t *testing.T) { thisRun.addKeys(t, e.Keys()...) })
	return e
}

func start(t *testing.T, e *framework.Env, flags ...string) *process {
	t.Helper()
	return framework.Start(t, e, flags...)
}
