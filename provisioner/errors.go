package provisioner

import (
	"errors"
	"fmt"
	"os"

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
	// hint is what the administrator can do. ${NAME} is a value of the errorContext. Empty if
	// the text of the error suffices, or no event shows the error.
	hint string
}{
	// The clone was not created.
	{rbdutil.ErrFlattening, noChange, otherResult,
		"the clone is being flattened because its clone chain is too deep or its source has too many clones; will be retried automatically"},
	{rbdutil.ErrSourceNotFound, noChange, otherResult,
		"the class must use the Ceph cluster that has ${source}, and client.${user} must have access to its pool"},
	{rbdutil.ErrSourceIncompatible, noChange, otherResult, ""},

	// The image with the name is not ours, so there is no image of ours.
	{rbdutil.ErrForeignImage, finished, "foreign_image", ""},

	// Ceph was not reached or refused the request. Nothing was created now, but an earlier
	// call may have created the image.
	{rbdutil.ErrNotFenced, noChange, "not_fenced",
		"will be retried automatically; to fence the previous leader, client.${user} needs mon 'profile rbd' (`ceph auth get client.${user}`)"},
	{rbdutil.ErrUnreachable, noChange, "unreachable",
		"check the monitor addresses, the network between this provisioner and the monitors, and that a monitor is running"},
	{rbdutil.ErrUnknownMonitor, noChange, "unreachable",
		"check the host names of the monitors and the DNS configuration of this provisioner's pod"},
	{rbdutil.ErrInvalidKey, noChange, "denied",
		"put the output of `ceph auth get-key client.${user}` into secret ${secret}"},
	{rbdutil.ErrAccessDenied, noChange, "denied",
		"check that secret ${secret} holds the key of client.${user} and that its capabilities include " +
			"mon 'profile rbd' and osd '${capabilities}' (`ceph auth get client.${user}`)"},
	{rbdutil.ErrPoolNotFound, noChange, "pool_not_found",
		"create pool ${pool} (`ceph osd pool create`, `rbd pool init`) or name another pool in the class"},
	{rbdutil.ErrDataPoolNotFound, noChange, "pool_not_found",
		"create data pool ${dataPool} or name another data pool in the class"},
	{rbdutil.ErrInvalid, noChange, otherResult,
		"if data pool ${dataPool} is erasure-coded, it needs `ceph osd pool set ${dataPool} allow_ec_overwrites true`"},

	// The operation may still run in Ceph, or may have left a part of an image. The row of
	// ErrPoolUnavailable is below that of ErrTimeout, which it may wrap, for its hint.
	{rbdutil.ErrBlocklisted, inBackground, "blocklisted",
		"this provisioner restarts, then it will be retried automatically; if it persists, check `ceph osd blocklist ls`"},
	{rbdutil.ErrNoSpace, inBackground, "no_space",
		"free space or raise the quota of pool ${pool} (`ceph df`, `ceph osd pool get-quota`); " +
			"deleted images are kept in its trash for the trashRetention of their class (`rbd trash ls --long ${pool}`)"},
	{rbdutil.ErrConnectionLost, inBackground, "unreachable", "check the cluster's health (`ceph -s`); will be retried automatically"},
	// Since Ceph 18, an OSD does not answer a client that has no osd capabilities.
	{rbdutil.ErrTimeout, inBackground, "timeout",
		"check the cluster's health (`ceph -s`) and the osd capabilities of client.${user} (`ceph auth get client.${user}`); will be retried automatically"},
	{rbdutil.ErrPoolUnavailable, noChange, otherResult, "will be retried automatically"},
	{rbdutil.ErrInProgress, inBackground, "in_progress", "will be retried automatically"},
	{rbdutil.ErrChanged, inBackground, "changed", "will be retried automatically"},

	// There is an image of ours, from an earlier call.
	{rbdutil.ErrIncomplete, inBackground, otherResult, ""},
	{rbdutil.ErrMismatch, inBackground, otherResult, ""},
	{rbdutil.ErrImageExists, inBackground, "image_exists", ""},
	{rbdutil.ErrImageNotFound, inBackground, "image_not_found", ""},

	// The image cannot be deleted, expanded or cloned now.
	{rbdutil.ErrImageInUse, inBackground, "image_in_use", "the image will be deleted when it is no longer in use"},
	{rbdutil.ErrLocked, inBackground, "locked",
		"remove the lock if it is no longer needed (`rbd lock ls ${image}`, `rbd lock rm ${image} ID LOCKER`)"},
	{rbdutil.ErrMirrored, inBackground, "mirrored", "disable its mirroring (`rbd mirror image disable ${image}`)"},
	{rbdutil.ErrMigrating, inBackground, "migrating",
		"finish the migration (`rbd migration execute ${image}` and `rbd migration commit ${image}`), or abort it (`rbd migration abort ${image}`)"},
	{rbdutil.ErrNoTrash, inBackground, otherResult, "remove annotation " + annTrashRetention + " from the volume"},
	{rbdutil.ErrNotRemoved, inBackground, otherResult,
		"check whether the pool is full (`ceph df`, `ceph osd pool get-quota`); will be retried automatically"},
	{rbdutil.ErrInGroup, inBackground, "in_group", "remove the image from its group (`rbd group image rm`)"},
	{rbdutil.ErrHasSnapshots, inBackground, "has_snapshots",
		"if their data is not needed, flatten their clones and remove them (`rbd snap ls --all`, `rbd flatten`, `rbd snap rm`)"},
	{rbdutil.ErrHasClones, inBackground, "has_clones", ""},
	{rbdutil.ErrNotExpired, inBackground, "not_expired", ""},
	{rbdutil.ErrNotEmpty, inBackground, "not_empty", ""},
}

// Hints in place of those of the table.
const (
	// deletingPoolHint is for ErrPoolNotFound if a volume is deleted.
	deletingPoolHint = "the volume is kept because pool ${pool} may come back; if it will not, " +
		"remove the volume's finalizers (`kubectl patch`) and delete the volume"
	// cloningInUseHint is for ErrImageInUse if the source of a clone is in use.
	cloningInUseHint = "a clone that is ReadOnlyMany, or annotated with " + annCloneUnmounted + ", is created when no node has its source mounted"
)

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

// errorContext has the values for hints.
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
}

// withHint adds to an error what the administrator can do. Events show the text. It is
// the same for the same cause, so that Kubernetes aggregates the events.
func withHint(err error, c errorContext) error {
	if advice := hint(err, c); advice != "" {
		return fmt.Errorf("%w: %s", err, advice)
	}
	return err
}

// hint returns the first hint of the table whose values are all known.
func hint(err error, c errorContext) string {
	if c.source != nil && errors.Is(err, rbdutil.ErrSourceIncompatible) {
		c.image = c.source.ImageRef
	}
	for _, row := range errorTable {
		if !errors.Is(err, row.err) {
			continue
		}
		text, complete := row.hint, true
		switch {
		case c.deleting && errors.Is(row.err, rbdutil.ErrPoolNotFound):
			text = deletingPoolHint
		case c.cloning && errors.Is(row.err, rbdutil.ErrImageInUse):
			text = cloningInUseHint
		}
		advice := os.Expand(text, func(name string) string {
			value := c.value(name)
			complete = complete && value != ""
			return value
		})
		if complete && advice != "" {
			return advice
		}
	}
	return ""
}

// value returns the value of a name in a hint.
func (c errorContext) value(name string) string {
	switch name {
	case "pool":
		return c.pool
	case "dataPool":
		return c.dataPool
	case "image":
		return c.image.String()
	case "secret":
		return c.adminSecret.String()
	case "user":
		return c.cluster.User
	case "source":
		if c.source != nil {
			return c.source.String()
		}
	case "capabilities":
		capabilities := "profile rbd pool=" + c.pool
		if c.dataPool != "" {
			capabilities += ", profile rbd pool=" + c.dataPool
		}
		if c.source != nil && c.source.Pool != c.pool {
			capabilities += ", profile rbd pool=" + c.source.Pool
		}
		return capabilities
	}
	return ""
}
