package librbd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/librbd/errno"
)

const (
	// lockName is the name of all locks on images (RBD_LOCK_NAME of librbd).
	lockName = "rbd_lock"
	// managedCookie begins the cookies of the locks of the feature exclusive-lock. A client
	// that has the image mapped has such a lock, and releases it on request.
	managedCookie = "auto "
)

// locksOf returns the locks of `rbd lock add` on an image, each as ID LOCKER. It does not use
// go-ceph's Image.ListLockers, which returns no locks and no error if the request fails.
//
// Similar to: rbd lock ls POOL/IMAGE
func locksOf(pool *rados.IOContext, img rbdutil.Image) ([]string, error) {
	header := headerOf(img.ID)
	if img.ID == "" {
		header = img.Name + ".rbd" // format 1
	}
	held, err := pool.ListLockers(header, lockName)
	if errno.Of(err) == syscall.ERANGE {
		return []string{"more clients than Ceph can list"}, nil
	}
	if err != nil {
		return nil, err
	}
	var locks []string
	for n := range min(held.NumLockers, len(held.Clients), len(held.Cookies)) {
		cookie := held.Cookies[n]
		if strings.HasPrefix(cookie, managedCookie) {
			continue
		}
		if strings.ContainsAny(cookie, " '\"") {
			cookie = strconv.Quote(cookie)
		}
		locks = append(locks, cookie+" "+held.Clients[n])
	}
	return locks, nil
}

// checkUnlocked returns ErrLocked if the image has a lock.
func checkUnlocked(pool *rados.IOContext, img rbdutil.Image) error {
	locks, err := locksOf(pool, img)
	if err != nil {
		return imageError("list the locks of", img.ImageRef, err)
	}
	if len(locks) > 0 {
		return lockedError(img, locks)
	}
	return nil
}

func lockedError(img rbdutil.Image, locks []string) error {
	return fmt.Errorf("%w: %s by %s", rbdutil.ErrLocked, img.ImageRef, strings.Join(locks, ", "))
}

// writeError is imageError for a change that a lock may prevent; then it names the lock.
func writeError(pool *rados.IOContext, verb string, img rbdutil.Image, err error) error {
	wrapped := imageError(verb, img.ImageRef, err)
	if !errors.Is(wrapped, rbdutil.ErrLocked) {
		return wrapped
	}
	if locks, err := locksOf(pool, img); err == nil && len(locks) > 0 {
		return lockedError(img, locks)
	}
	return wrapped
}
