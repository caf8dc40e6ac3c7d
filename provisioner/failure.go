package provisioner

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// refusal is an error that was found before Ceph was asked for anything.
type refusal struct{ error }

// Unwrap implements errors.Unwrap.
func (r refusal) Unwrap() error { return r.error }

func refusef(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// stateOf tells the library what an error of Provision means for the claim. What
// matters is a claim that is deleted now: for one that is in the background,
// Provision is called again until the image is either on a volume (and deleted with
// it) or known not to be ours; for any other, nobody asks again.
func stateOf(err error) controller.ProvisioningState {
	switch {
	case errors.Is(err, rbdutil.ErrIncomplete):
		// There is an image of ours, whatever else went wrong.
		return controller.ProvisioningInBackground
	case errors.Is(err, rbdutil.ErrSourceNotFound),
		errors.Is(err, rbdutil.ErrSourceIncompatible),
		errors.Is(err, rbdutil.ErrFlattening):
		// It has not come to making the clone.
		return controller.ProvisioningNoChange
	case errors.Is(err, rbdutil.ErrForeignImage):
		// The image of that name is somebody else's: there is none of ours.
		return controller.ProvisioningFinished
	case errors.As(err, new(refusal)):
		// This attempt did not get as far as Ceph, but an earlier one may have.
		return controller.ProvisioningNoChange
	case errors.Is(err, rbdutil.ErrPoolUnavailable),
		errors.Is(err, rbdutil.ErrNotFenced),
		errors.Is(err, rbdutil.ErrUnreachable),
		errors.Is(err, rbdutil.ErrUnknownMonitor),
		errors.Is(err, rbdutil.ErrInvalidKey),
		errors.Is(err, rbdutil.ErrAccessDenied),
		errors.Is(err, rbdutil.ErrPoolNotFound),
		errors.Is(err, rbdutil.ErrDataPoolNotFound),
		errors.Is(err, rbdutil.ErrInvalid):
		// Ceph was not reached or said no: nothing was made now, but an earlier
		// attempt may have made something.
		return controller.ProvisioningNoChange
	case errors.Is(err, rbdutil.ErrMismatch):
		// There is an image of ours, made by an earlier attempt and finished.
		return controller.ProvisioningInBackground
	default:
		// A timeout, a lost or blocklisted connection, a full pool or anything unknown: it may
		// still be running, or have left something.
		return controller.ProvisioningInBackground
	}
}

// circumstances are what the hint of an error needs to name.
type circumstances struct {
	cluster     rbdutil.Cluster
	pool        string
	dataPool    string
	image       rbdutil.ImageRef
	adminSecret types.NamespacedName
	// source is what a clone is made of; nil where none is made.
	source *rbdutil.Source
	// cloning, or deleting a volume: its class has no say then.
	cloning, deleting bool
}

// explain adds what to do about an error. The library shows its text in the events
// of the claim or volume; it is the same each time, so that events add up.
func explain(err error, c circumstances) error {
	if hint := hintFor(err, c); hint != "" {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

func hintFor(err error, c circumstances) string {
	if hint := cloningHintFor(err, c); hint != "" {
		return hint
	}
	if hint := fencingHintFor(err, c); hint != "" {
		return hint
	}
	switch {
	case errors.Is(err, rbdutil.ErrUnreachable):
		return "check the monitor addresses, the network between this provisioner and them, and that a monitor runs"
	case errors.Is(err, rbdutil.ErrUnknownMonitor):
		return "check the spelling of the monitors and the name service of this provisioner's pod"
	case errors.Is(err, rbdutil.ErrInvalidKey):
		return fmt.Sprintf("put the output of `ceph auth get-key client.%s` into secret %s", c.cluster.User, c.adminSecret)
	case errors.Is(err, rbdutil.ErrAccessDenied):
		return fmt.Sprintf("check that secret %s holds the key of client.%s and that its capabilities include "+
			"mon 'profile rbd' and osd 'profile rbd pool=%s' (`ceph auth get client.%s`)",
			c.adminSecret, c.cluster.User, c.poolOrBoth(), c.cluster.User)
	case errors.Is(err, rbdutil.ErrPoolNotFound):
		if c.deleting {
			return fmt.Sprintf("the volume stays for as long as pool %s may come back; if it never will, "+
				"take the volume's finalizers away (`kubectl patch`) and delete it", c.pool)
		}
		return fmt.Sprintf("create pool %s (`ceph osd pool create`, `rbd pool init`) or name another in the class", c.pool)
	case errors.Is(err, rbdutil.ErrDataPoolNotFound):
		return fmt.Sprintf("create data pool %s or name another in the class", c.dataPool)
	case errors.Is(err, rbdutil.ErrNoSpace):
		return fmt.Sprintf("free space or raise the quota of pool %s (`ceph df`, `ceph osd pool get-quota`); deleted images are kept in its trash for the trashRetention of their class (`rbd trash ls --long %s`)", c.pool, c.pool)
	case errors.Is(err, rbdutil.ErrTimeout), errors.Is(err, rbdutil.ErrConnectionLost):
		return "check the cluster's health (`ceph -s`); it is tried again by itself"
	case errors.Is(err, rbdutil.ErrInProgress), errors.Is(err, rbdutil.ErrPoolUnavailable), errors.Is(err, rbdutil.ErrChanged):
		return "it is tried again by itself"
	case errors.Is(err, rbdutil.ErrInvalid) && c.dataPool != "":
		return fmt.Sprintf("if data pool %s is erasure-coded, it needs `ceph osd pool set %s allow_ec_overwrites true`", c.dataPool, c.dataPool)
	}
	return holderHintFor(err, c)
}

// fencingHintFor is for what follows from a change of the leader.
func fencingHintFor(err error, c circumstances) string {
	switch {
	case errors.Is(err, rbdutil.ErrNotFenced):
		return fmt.Sprintf("will be retried automatically; to fence the previous leader, client.%s needs mon 'profile rbd' (`ceph auth get client.%s`)",
			c.cluster.User, c.cluster.User)
	case errors.Is(err, rbdutil.ErrBlocklisted):
		return "this provisioner restarts, then it will be retried automatically; if it persists, check `ceph osd blocklist ls`"
	}
	return ""
}

// cloningHintFor is for what can only keep a clone from being made.
func cloningHintFor(err error, c circumstances) string {
	switch {
	case errors.Is(err, rbdutil.ErrFlattening):
		return "a clone is given all of its data where its source is itself a clone of a clone, and so on, or has very many clones; it goes on by itself"
	case c.cloning && errors.Is(err, rbdutil.ErrImageInUse):
		return "a clone that is ReadOnlyMany, or annotated with " + annCloneUnmounted + ", is made when no node has its source mounted"
	case errors.Is(err, rbdutil.ErrSourceNotFound) && c.source != nil:
		return fmt.Sprintf("the class must be for the Ceph cluster in which %s is, and client.%s have the right to its pool", c.source.ImageRef, c.cluster.User)
	}
	return ""
}

// holderHintFor is for who holds an image, so that it cannot be deleted, or cannot grow.
func holderHintFor(err error, c circumstances) string {
	switch {
	case errors.Is(err, rbdutil.ErrImageInUse):
		return "it is deleted when nobody uses it any more"
	case errors.Is(err, rbdutil.ErrLocked):
		return fmt.Sprintf("remove the lock if nobody needs it (`rbd lock ls %s`, `rbd lock rm %s ID LOCKER`)", c.image, c.image)
	case errors.Is(err, rbdutil.ErrMirrored):
		return fmt.Sprintf("end its mirroring (`rbd mirror image disable %s`)", c.image)
	case errors.Is(err, rbdutil.ErrMigrating):
		image := c.image
		if c.source != nil && errors.Is(err, rbdutil.ErrSourceIncompatible) {
			image = c.source.ImageRef
		}
		return fmt.Sprintf("end the migration (`rbd migration execute %s` and `rbd migration commit %s`, or `rbd migration abort %s`)", image, image, image)
	case errors.Is(err, rbdutil.ErrNoTrash):
		return "remove annotation " + annTrashRetention + " from the volume"
	case errors.Is(err, rbdutil.ErrNotRemoved):
		return "check whether the pool is full (`ceph df`, `ceph osd pool get-quota`); it is tried again by itself"
	case errors.Is(err, rbdutil.ErrInGroup):
		return "take it out of its group (`rbd group image rm`)"
	case errors.Is(err, rbdutil.ErrHasSnapshots):
		return "remove them (`rbd snap ls --all`, `rbd snap rm`), and flatten clones of them, if their data is not needed"
	}
	return ""
}

// poolOrBoth names the pools as capabilities do.
func (c circumstances) poolOrBoth() string {
	pools := c.pool
	if c.dataPool != "" {
		pools += ", profile rbd pool=" + c.dataPool
	}
	if c.source != nil && c.source.Pool != c.pool {
		pools += ", profile rbd pool=" + c.source.Pool
	}
	return pools
}
