package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is how long a second command on the same lab waits for the first.
const lockWait = 5 * time.Second

// lock makes this the only process that brings the lab up or down.
func (l *Lab) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(l.opts.RunDir, l.name+".lock")
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err = lockFile(ctx, path, func() {})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("another process is bringing lab %s up or down (it holds %s)", l.name, path)
	}
	return unlock, err
}

// lockFile waits for an exclusive lock, which ends with the process at the
// latest. The file goes away with it. When it has to wait it calls waiting once.
func lockFile(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for {
		file, locked, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if locked {
			return func() {
				// In this order nobody locks a file that is about to vanish.
				_ = os.Remove(path)
				_ = file.Close()
			}, nil
		}
		waiting()
		waiting = func() {}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func tryLock(path string) (file *os.File, locked bool, err error) {
	file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return nil, false, err
	}
	// Whoever held the lock before may have removed the file meanwhile.
	mine, err := file.Stat()
	if err == nil {
		if current, statErr := os.Stat(path); statErr == nil && os.SameFile(mine, current) {
			return file, true, nil
		}
	}
	_ = file.Close()
	return nil, false, err
}
