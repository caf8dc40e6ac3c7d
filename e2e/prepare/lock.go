package prepare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Lock locks a file exclusively. If another process has the lock, Lock calls
// waiting once and waits. The lock is held until the returned file is closed in
// this process and in every process that inherited it.
func Lock(ctx context.Context, path string, waiting func()) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	for {
		file, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if file != nil {
			return file, nil
		}
		waiting()
		waiting = func() {}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Unlock removes a file that Lock returned and no other process inherited, and
// releases its lock.
func Unlock(file *os.File) {
	// In this order no process locks a file that is about to be removed.
	_ = os.Remove(file.Name())
	_ = file.Close()
}

// tryLock returns nil if another process has the lock.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return nil, err
	}
	// The previous owner may have removed the file after it was opened here.
	mine, err := file.Stat()
	if err == nil {
		if current, statErr := os.Stat(path); statErr == nil && os.SameFile(mine, current) {
			return file, nil
		}
	}
	_ = file.Close()
	return nil, err
}
