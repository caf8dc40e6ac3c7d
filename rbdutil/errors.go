package rbdutil

import "errors"

// The errors of Ceph, one for each cause that an administrator can act on. Ceph returns
// an errno, which does not suffice: a missing pool and a missing image are both ENOENT.
// The Store knows which call failed, and wraps one of these errors.
var (
	// ErrPoolNotFound: the pool of the image does not exist, or the user has no access to it.
	ErrPoolNotFound = errors.New("pool not found")
	// ErrDataPoolNotFound: the pool for the data objects does not exist.
	ErrDataPoolNotFound = errors.New("data pool not found")
	// ErrImageNotFound: the pool has no image of that name, or only a partial one, whose
	// creation or removal was interrupted.
	ErrImageNotFound = errors.New("image not found")
	// ErrImageExists: the name is in use.
	ErrImageExists = errors.New("image already exists")
	// ErrImageInUse: a client has the image mapped or open.
	ErrImageInUse = errors.New("image is in use")
	// ErrHasSnapshots: the image has snapshots, which Ceph does not remove with it.
	ErrHasSnapshots = errors.New("image has snapshots")
	// ErrHasClones: other images are clones of a snapshot of the image.
	ErrHasClones = errors.New("image has clones")
	// ErrSourceNotFound: the source of a clone does not exist.
	ErrSourceNotFound = errors.New("clone source not found")
	// ErrSourceIncompatible: the source does not allow the requested clone.
	ErrSourceIncompatible = errors.New("image cannot be cloned as requested")
	// ErrFlattening: Ceph copies the data of the source into the clone.
	ErrFlattening = errors.New("clone is being flattened")
	// ErrInGroup: the image is a member of a group, from which Ceph does not remove it.
	ErrInGroup = errors.New("image is in a group")
	// ErrNotRemoved: the image still exists, and Ceph gave no reason.
	ErrNotRemoved = errors.New("image was not removed")
	// ErrForeignImage: the record of the image has another owner, or there is none.
	ErrForeignImage = errors.New("image has another owner")
	// ErrChanged: the image is not as it was when the change was decided.
	ErrChanged = errors.New("image has changed since it was read")
	// ErrLocked: the image has a lock (`rbd lock add`).
	ErrLocked = errors.New("image is locked")
	// ErrMirrored: the image is mirrored between clusters.
	ErrMirrored = errors.New("image is mirrored")
	// ErrMigrating: a migration of the image was prepared and not committed.
	ErrMigrating = errors.New("image is being migrated")
	// ErrNoTrash: Ceph has no trash for images of format 1.
	ErrNoTrash = errors.New("image cannot be kept in the trash")
	// ErrNotExpired: the time to keep the image in the trash has not passed.
	ErrNotExpired = errors.New("image is kept in the trash")
	// ErrMismatch: the image is ours, but has another size or layout than requested.
	ErrMismatch = errors.New("image does not match the request")
	// ErrAccessDenied: the user, its key or its capabilities do not suffice.
	ErrAccessDenied = errors.New("access denied by Ceph")
	// ErrInvalidKey: the key is not a cephx secret.
	ErrInvalidKey = errors.New("not a cephx key")
	// ErrUnreachable: no monitor answered. No request was sent to the cluster.
	ErrUnreachable = errors.New("Ceph cluster cannot be reached")
	// ErrUnknownMonitor: the host name of a monitor could not be resolved.
	ErrUnknownMonitor = errors.New("no monitor address could be resolved")
	// ErrConnectionLost: the connection broke during an operation.
	ErrConnectionLost = errors.New("connection to Ceph lost")
	// ErrBlocklisted: Ceph refuses all requests of this client, queued ones included.
	ErrBlocklisted = errors.New("client is on Ceph's blocklist")
	// ErrNotFenced: requests of another process may still be running. No request was sent.
	ErrNotFenced = errors.New("operations of the previous leader may still be running")
	// ErrTimeout: Ceph did not complete the operation in time, but may still do so.
	ErrTimeout = errors.New("Ceph did not answer in time")
	// ErrInProgress: an earlier operation on the same image has not ended.
	ErrInProgress = errors.New("an earlier operation on the image is still running")
	// ErrPoolUnavailable: the pool does not answer other operations. No request was sent.
	ErrPoolUnavailable = errors.New("pool is unavailable")
	// ErrNotEmpty: the image was written to, or has the data of its source.
	ErrNotEmpty = errors.New("image holds data")
	// ErrNoSpace: a quota or the capacity of the cluster is used up.
	ErrNoSpace = errors.New("no space left")
	// ErrIncomplete: the image was created, but its record and size could not be set.
	ErrIncomplete = errors.New("image is not complete")
	// ErrInvalid: Ceph rejects the request as invalid.
	ErrInvalid = errors.New("invalid request")
)

// IsPoolUnavailable reports whether the error means that the pool does not answer, or that
// an operation was refused because too many others run.
func IsPoolUnavailable(err error) bool {
	return OutageCause(err) != nil || errors.Is(err, ErrPoolUnavailable)
}

// OutageCause returns the error by which Ceph did not answer: ErrUnreachable,
// ErrUnknownMonitor, ErrConnectionLost, ErrTimeout, or nil.
func OutageCause(err error) error {
	for _, cause := range []error{ErrUnreachable, ErrUnknownMonitor, ErrConnectionLost, ErrTimeout} {
		if errors.Is(err, cause) {
			return cause
		}
	}
	return nil
}
