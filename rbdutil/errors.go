package rbdutil

import "errors"

// The ways in which Ceph can refuse, one sentinel for each thing that a person
// would have to look at. Ceph itself answers with errno alone, where a missing
// pool and a missing image are the same ENOENT: it is the Store's duty to know
// which call failed and to wrap the right one of these.
var (
	// ErrPoolNotFound: the pool of the image does not exist, or the user may not see it.
	ErrPoolNotFound = errors.New("pool not found")
	// ErrDataPoolNotFound: the pool for the data objects does not exist.
	ErrDataPoolNotFound = errors.New("data pool not found")
	// ErrImageNotFound: there is no image of that name in the pool, or only the
	// remains of one whose creation or removal was cut short.
	ErrImageNotFound = errors.New("image not found")
	// ErrImageExists: the name is taken.
	ErrImageExists = errors.New("image exists already")
	// ErrImageInUse: somebody has the image mapped or open.
	ErrImageInUse = errors.New("image is in use")
	// ErrHasSnapshots: the image has snapshots, which Ceph does not remove with it.
	ErrHasSnapshots = errors.New("image has snapshots")
	// ErrHasClones: other images get their data from a snapshot of it.
	ErrHasClones = errors.New("image has clones")
	// ErrSourceNotFound: the image that a clone is to be made of is not there.
	ErrSourceNotFound = errors.New("image to clone not found")
	// ErrSourceIncompatible: no clone like that can be made of that image.
	ErrSourceIncompatible = errors.New("image cannot be cloned so")
	// ErrFlattening: the clone is being given its own copy of all data.
	ErrFlattening = errors.New("data is being copied")
	// ErrInGroup: the image is a member of a group of images, which Ceph keeps whole.
	ErrInGroup = errors.New("image is in a group")
	// ErrNotRemoved: the image is still there, though Ceph names no reason.
	ErrNotRemoved = errors.New("image was not removed")
	// ErrForeignImage: the image's record names another owner, or none.
	ErrForeignImage = errors.New("image has another owner")
	// ErrChanged: the image is not as it was when the change was decided.
	ErrChanged = errors.New("image has changed meanwhile")
	// ErrLocked: somebody has set a lock on the image (`rbd lock add`).
	ErrLocked = errors.New("image is locked")
	// ErrMirrored: the image is mirrored between clusters.
	ErrMirrored = errors.New("image is mirrored")
	// ErrMigrating: a migration of the image was prepared and not committed.
	ErrMigrating = errors.New("image is being migrated")
	// ErrNoTrash: the image cannot be kept in the trash.
	ErrNoTrash = errors.New("image cannot be kept in the trash")
	// ErrNotExpired: the image is to be kept in the trash until later.
	ErrNotExpired = errors.New("image is kept in the trash")
	// ErrMismatch: the image is ours, but not what is asked for now.
	ErrMismatch = errors.New("image does not fit")
	// ErrAccessDenied: Ceph knows the user, key or capabilities not to suffice.
	ErrAccessDenied = errors.New("access denied by Ceph")
	// ErrInvalidKey: the key is not a cephx secret at all.
	ErrInvalidKey = errors.New("not a cephx key")
	// ErrUnreachable: no monitor answered; nothing was asked of the cluster.
	ErrUnreachable = errors.New("Ceph cluster cannot be reached")
	// ErrUnknownMonitor: a monitor's host name could not be resolved.
	ErrUnknownMonitor = errors.New("no monitor address could be resolved")
	// ErrConnectionLost: the connection broke in the middle of an operation.
	ErrConnectionLost = errors.New("connection to Ceph lost")
	// ErrBlocklisted: Ceph refuses all requests of this client, and does not do those that are queued.
	ErrBlocklisted = errors.New("client is on Ceph's blocklist")
	// ErrNotFenced: requests of another process could not be excluded, so that this was not begun.
	ErrNotFenced = errors.New("operations of the previous leader may still be running")
	// ErrTimeout: Ceph did not finish in time; it may still do so.
	ErrTimeout = errors.New("Ceph did not answer in time")
	// ErrInProgress: an earlier call on the same image has not come back yet.
	ErrInProgress = errors.New("an earlier operation on the image is still running")
	// ErrPoolUnavailable: Ceph has left others without an answer, so that this was not begun.
	ErrPoolUnavailable = errors.New("Ceph was not asked")
	// ErrNotEmpty: the image has been written to, or shows the data of another.
	ErrNotEmpty = errors.New("image holds data")
	// ErrNoSpace: a quota or the cluster's capacity is used up.
	ErrNoSpace = errors.New("no space left")
	// ErrIncomplete: the image was made, but could not be given its record and size.
	ErrIncomplete = errors.New("image is not finished")
	// ErrInvalid: Ceph calls the request invalid.
	ErrInvalid = errors.New("invalid request")
)
