package provisioner

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// preflightError is an error that was found before any request to Ceph.
type preflightError struct{ error }

// Unwrap implements errors.Unwrap.
func (e preflightError) Unwrap() error { return e.error }

func preflightf(format string, args ...any) error { return preflightError{fmt.Errorf(format, args...)} }

// abandonedError is the error of a clone whose claim is deleted and whose source cannot
// be used. What an earlier call created of it is removed as an orphan.
type abandonedError struct{ error }

// Unwrap implements errors.Unwrap.
func (e abandonedError) Unwrap() error { return e.error }

// The states of a claim after an error. They matter if the claim is deleted. The library
// calls Provision again only for a claim in the state inBackground. It does so until the
// image is on a volume, or is known not to be ours.
const (
	finished     = controller.ProvisioningFinished
	noChange     = controller.ProvisioningNoChange
	inBackground = controller.ProvisioningInBackground
)

// otherResult is the metric result of errors that have none of their own.
const otherResult = "error"

// errorTable has one row for each sentinel error of rbdutil.
var errorTable = []struct {
	err error
	// state of the claim if Provision returns the error.
	state controller.ProvisioningState
	// result is the label of metrics.
	result string
	// hint returns what the administrator can do, or an empty string. Nil for no hint: the
	// text of the error suffices, or no event shows the error.
	hint func(errorContext) string
}{
	// The clone was not created.
	{rbdutil.ErrFlattening, noChange, otherResult, flatteningHint},
	{rbdutil.ErrSourceNotFound, noChange, otherResult, sourceHint},
	{rbdutil.ErrSourceIncompatible, noChange, otherResult, nil},

	// The image with the name is not ours, so there is no image of ours.
	{rbdutil.ErrForeignImage, finished, "foreign_image", nil},

	// Ceph was not reached or refused the request. Nothing was created now, but an earlier
	// call may have created the image.
	{rbdutil.ErrNotFenced, noChange, "not_fenced", fencingHint},
	{rbdutil.ErrUnreachable, noChange, "unreachable", text("check the monitor addresses, the network between this provisioner and them, and that a monitor runs")},
	{rbdutil.ErrUnknownMonitor, noChange, "unreachable", text("check the spelling of the monitors and the name service of this provisioner's pod")},
	{rbdutil.ErrInvalidKey, noChange, "denied", keyHint},
	{rbdutil.ErrAccessDenied, noChange, "denied", capabilitiesHint},
	{rbdutil.ErrPoolNotFound, noChange, "pool_not_found", poolHint},
	{rbdutil.ErrDataPoolNotFound, noChange, "pool_not_found", dataPoolHint},
	{rbdutil.ErrInvalid, noChange, otherResult, overwritesHint},

	// The operation may still run in Ceph, or may have left a part of an image. The row of
	// ErrPoolUnavailable is below that of ErrTimeout, which it may wrap, for its hint.
	{rbdutil.ErrBlocklisted, inBackground, "blocklisted", text("this provisioner restarts, then it will be retried automatically; if it persists, check `ceph osd blocklist ls`")},
	{rbdutil.ErrNoSpace, inBackground, "no_space", spaceHint},
	{rbdutil.ErrConnectionLost, inBackground, "unreachable", text("check the cluster's health (`ceph -s`); it is tried again by itself")},
	{rbdutil.ErrTimeout, inBackground, "timeout", text("check the cluster's health (`ceph -s`); it is tried again by itself")},
	{rbdutil.ErrPoolUnavailable, noChange, otherResult, text("it is tried again by itself")},
	{rbdutil.ErrInProgress, inBackground, "in_progress", text("it is tried again by itself")},
	{rbdutil.ErrChanged, inBackground, "changed", text("it is tried again by itself")},

	// There is an image of ours, from an earlier call.
	{rbdutil.ErrIncomplete, inBackground, otherResult, nil},
	{rbdutil.ErrMismatch, inBackground, otherResult, nil},
	{rbdutil.ErrImageExists, inBackground, "image_exists", nil},
	{rbdutil.ErrImageNotFound, inBackground, "image_not_found", nil},

	// The image cannot be deleted, expanded or cloned now.
	{rbdutil.ErrImageInUse, inBackground, "image_in_use", inUseHint},
	{rbdutil.ErrLocked, inBackground, "locked", lockHint},
	{rbdutil.ErrMirrored, inBackground, "mirrored", mirrorHint},
	{rbdutil.ErrMigrating, inBackground, "migrating", migrationHint},
	{rbdutil.ErrNoTrash, inBackground, otherResult, text("remove annotation " + annTrashRetention + " from the volume")},
	{rbdutil.ErrNotRemoved, inBackground, otherResult, text("check whether the pool is full (`ceph df`, `ceph osd pool get-quota`); it is tried again by itself")},
	{rbdutil.ErrInGroup, inBackground, "in_group", text("take it out of its group (`rbd group image rm`)")},
	{rbdutil.ErrHasSnapshots, inBackground, "has_snapshots", text("remove them (`rbd snap ls --all`, `rbd snap rm`), and flatten clones of them, if their data is not needed")},
	{rbdutil.ErrHasClones, inBackground, "has_clones", nil},
	{rbdutil.ErrNotExpired, inBackground, "not_expired", nil},
	{rbdutil.ErrNotEmpty, inBackground, "not_empty", nil},
}

// provisioningState returns the state of a claim after an error of Provision. After an
// unknown error the image may exist.
func provisioningState(err error) controller.ProvisioningState {
	switch {
	case errors.As(err, new(abandonedError)):
		return finished
	case errors.Is(err, rbdutil.ErrIncomplete):
		return inBackground // whatever has interrupted the creation
	}
	for _, row := range errorTable {
		// A row that excludes a new image decides, whatever else the error wraps.
		if row.state != inBackground && errors.Is(err, row.err) {
			return row.state
		}
	}
	if errors.As(err, new(preflightError)) {
		return noChange
	}
	return inBackground
}

// Result returns the label of metrics for the result of an operation.
func Result(err error) string {
	if err == nil {
		return "ok"
	}
	for _, row := range errorTable {
		if row.result != otherResult && errors.Is(err, row.err) {
			return row.result
		}
	}
	return otherResult
}

// errorContext has what hints mention.
type errorContext struct {
	cluster     rbdutil.Cluster
	pool        string
	dataPool    string
	image       rbdutil.ImageRef
	adminSecret types.NamespacedName
	// source of the clone; nil if the image is not a clone.
	source *rbdutil.Source
	// cloning is set if the claim asks for a clone; deleting if its volume is deleted.
	cloning, deleting bool
	// incompatible is set if the error is about the source of the clone.
	incompatible bool
}

// withHint adds to an error what the administrator can do. Events show the text. It is
// the same for the same cause, so that Kubernetes aggregates the events.
func withHint(err error, c errorContext) error {
	if advice := hint(err, c); advice != "" {
		return fmt.Errorf("%w: %s", err, advice)
	}
	return err
}

func hint(err error, c errorContext) string {
	for _, row := range errorTable {
		if row.hint != nil && errors.Is(err, row.err) {
			c.incompatible = errors.Is(err, rbdutil.ErrSourceIncompatible)
			if advice := row.hint(c); advice != "" {
				return advice
			}
		}
	}
	return ""
}
