package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// lockWait is the time that a second command on the same lab waits for the first.
const lockWait = 5 * time.Second

// lock excludes other processes from starting or stopping the lab.
func (l *Lab) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(l.opts.RunDir, l.name+".lock")
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	file, err := prepare.Lock(ctx, path, func() {})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("lab %s is locked: another process is starting or stopping it and holds %s", l.name, path)
	}
	return func() { prepare.Unlock(file) }, err
}
