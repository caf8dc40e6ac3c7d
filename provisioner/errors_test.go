package provisioner

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// failures has, for each sentinel, the state of the claim and the hint. There is no hint if
// the text of the error suffices, or if no event shows the error.
var failures = map[string]struct {
	err   error
	state controller.ProvisioningState
	hint  string
}{
	"ErrPoolNotFound":     {rbdutil.ErrPoolNotFound, noChange, "create pool kube (`ceph osd pool create`, `rbd pool init`) or name another pool in the class"},
	"ErrDataPoolNotFound": {rbdutil.ErrDataPoolNotFound, noChange, "create data pool kube-ec or name another data pool in the class"},
	"ErrAccessDenied": {rbdutil.ErrAccessDenied, noChange, "check that secret ceph/admin holds the key of client.kube and that its capabilities include " +
		"mon 'profile rbd' and osd 'profile rbd pool=kube, profile rbd pool=kube-ec, profile rbd pool=data' (`ceph auth get client.kube`)"},
	"ErrInvalidKey":      {rbdutil.ErrInvalidKey, noChange, "put the output of `ceph auth get-key client.kube` into secret ceph/admin"},
	"ErrUnreachable":     {rbdutil.ErrUnreachable, noChange, "check the monitor addresses, the network between this provisioner and the monitors, and that a monitor is running"},
	"ErrUnknownMonitor":  {rbdutil.ErrUnknownMonitor, noChange, "check the host names of the monitors and the DNS configuration of this provisioner's pod"},
	"ErrNoSpace":         {rbdutil.ErrNoSpace, inBackground, "free space or raise the quota of pool kube (`ceph df`, `ceph osd pool get-quota`); deleted images are kept in its trash for the trashRetention of their class (`rbd trash ls --long kube`)"},
	"ErrConnectionLost":  {rbdutil.ErrConnectionLost, inBackground, "check the cluster's health (`ceph -s`); will be retried automatically"},
	"ErrTimeout":         {rbdutil.ErrTimeout, inBackground, "check the cluster's health (`ceph -s`) and the osd capabilities of client.kube (`ceph auth get client.kube`); will be retried automatically"},
	"ErrInProgress":      {rbdutil.ErrInProgress, inBackground, "will be retried automatically"},
	"ErrPoolUnavailable": {rbdutil.ErrPoolUnavailable, noChange, "will be retried automatically"},
	"ErrBlocklisted":     {rbdutil.ErrBlocklisted, inBackground, "this provisioner restarts, then it will be retried automatically; if it persists, check `ceph osd blocklist ls`"},
	"ErrNotFenced": {rbdutil.ErrNotFenced, noChange,
		"will be retried automatically; to fence the previous leader, client.kube needs mon 'profile rbd' (`ceph auth get client.kube`)"},
	"ErrImageInUse": {rbdutil.ErrImageInUse, inBackground, "the image will be deleted when it is no longer in use"},
	"ErrNotRemoved": {rbdutil.ErrNotRemoved, inBackground, "check whether the pool is full (`ceph df`, `ceph osd pool get-quota`); will be retried automatically"},
	"ErrInGroup":    {rbdutil.ErrInGroup, inBackground, "remove the image from its group (`rbd group image rm`)"},
	"ErrLocked":     {rbdutil.ErrLocked, inBackground, "remove the lock if it is no longer needed (`rbd lock ls kube/x`, `rbd lock rm kube/x ID LOCKER`)"},
	"ErrMirrored":   {rbdutil.ErrMirrored, inBackground, "disable its mirroring (`rbd mirror image disable kube/x`)"},
	"ErrMigrating": {rbdutil.ErrMigrating, inBackground,
		"finish the migration (`rbd migration execute kube/x` and `rbd migration commit kube/x`), or abort it (`rbd migration abort kube/x`)"},
	"ErrNoTrash":      {rbdutil.ErrNoTrash, inBackground, "remove annotation rbd-provisioner.ceph.com/trash-retention from the volume"},
	"ErrHasSnapshots": {rbdutil.ErrHasSnapshots, inBackground, "if their data is not needed, flatten their clones and remove them (`rbd snap ls --all`, `rbd flatten`, `rbd snap rm`)"},

	// Their text names the image and the reason.
	"ErrForeignImage": {rbdutil.ErrForeignImage, finished, ""},
	"ErrMismatch":     {rbdutil.ErrMismatch, inBackground, ""},
	"ErrInvalid":      {rbdutil.ErrInvalid, noChange, "if data pool kube-ec is erasure-coded, it needs `ceph osd pool set kube-ec allow_ec_overwrites true`"},
	// The hint is that of the cause.
	"ErrIncomplete": {rbdutil.ErrIncomplete, inBackground, ""},
	// Images handles these, unless two clients change an image at the same time. The next
	// attempt succeeds then.
	"ErrImageNotFound": {rbdutil.ErrImageNotFound, inBackground, ""},
	"ErrImageExists":   {rbdutil.ErrImageExists, inBackground, ""},
	// The clone was not created yet.
	"ErrSourceNotFound":     {rbdutil.ErrSourceNotFound, noChange, "the class must use the Ceph cluster that has data/base, and client.kube must have access to its pool"},
	"ErrSourceIncompatible": {rbdutil.ErrSourceIncompatible, noChange, ""},
	"ErrFlattening": {rbdutil.ErrFlattening, noChange,
		"the clone is being flattened because its clone chain is too deep or its source has too many clones; will be retried automatically"},
	// The trash cleaner and the snapshot scan retry later.
	"ErrHasClones": {rbdutil.ErrHasClones, inBackground, ""},
	// The trash cleaner retries when the time has passed.
	"ErrNotExpired": {rbdutil.ErrNotExpired, inBackground, ""},
	// The next attempt reads the image again.
	"ErrChanged": {rbdutil.ErrChanged, inBackground, "will be retried automatically"},
	// The orphan collector keeps such images.
	"ErrNotEmpty": {rbdutil.ErrNotEmpty, inBackground, ""},
}

var exampleContext = errorContext{
	cluster: rbdutil.Cluster{Monitors: []string{"mon"}, User: "kube", Key: rbdutil.NewKey(fixture.AdminKey)},
	pool:    "kube", dataPool: "kube-ec",
	image:       rbdutil.ImageRef{Pool: "kube", Name: "x"},
	source:      &rbdutil.Source{ImageRef: rbdutil.ImageRef{Pool: "data", Name: "base"}},
	adminSecret: types.NamespacedName{Namespace: "ceph", Name: "admin"},
}

// sentinels returns the names of the error variables that the source of rbdutil declares.
func sentinels(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../rbdutil/*.go")
	fixture.Must(t, err)
	var names []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		fixture.Must(t, err)
		for _, decl := range file.Decls {
			ast.Inspect(decl, func(n ast.Node) bool {
				if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Err") {
					names = append(names, spec.Names[0].Name)
				}
				_, isFunc := n.(*ast.FuncDecl)
				return !isFunc
			})
		}
	}
	slices.Sort(names)
	return names
}

func TestErrorTableHasEachSentinel(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(sentinels(t), slices.Sorted(maps.Keys(failures))); diff != "" {
		t.Errorf("sentinels (-declared +in the test's table):\n%s", diff)
	}
	if len(errorTable) != len(failures) {
		t.Errorf("the error table has %d rows, want %d", len(errorTable), len(failures))
	}
	for name, test := range failures {
		found := false
		for _, row := range errorTable {
			found = found || row.err == test.err //nolint:errorlint // the sentinel itself
		}
		if !found {
			t.Errorf("the error table has no row for %s", name)
		}
	}
}

func TestProvisioningState(t *testing.T) {
	t.Parallel()
	for name, test := range failures {
		for how, err := range map[string]error{
			"bare":        test.err,
			"wrapped":     fmt.Errorf("create image kube/x: %w (-2)", test.err),
			"with a hint": withHint(test.err, exampleContext),
		} {
			if got := provisioningState(err); got != test.state {
				t.Errorf("%s, %s: %v, want %v", name, how, got, test.state)
			}
		}
		// There is an image of ours, whatever the cause.
		if got := provisioningState(fmt.Errorf("%w: %w", rbdutil.ErrIncomplete, test.err)); got != inBackground {
			t.Errorf("%s of an incomplete image: %v, want %v", name, got, inBackground)
		}
	}
	for name, test := range map[string]struct {
		err  error
		want controller.ProvisioningState
	}{
		"after an unknown error an operation may still run": {errors.New("rados: ret=-95"), inBackground},
		"an error before a request to Ceph changes nothing": {preflightf("no such secret"), noChange},
		"also if it is wrapped":                             {fmt.Errorf("claim: %w", preflightf("size 0")), noChange},
		"an unavailable pool changes nothing":               {fmt.Errorf("%w: %w", rbdutil.ErrPoolUnavailable, rbdutil.ErrTimeout), noChange},
		"an invalid key changes nothing":                    {preflightf("admin secret: %w", rbdutil.ErrInvalidKey), noChange},
	} {
		if got := provisioningState(test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestWithHint(t *testing.T) {
	t.Parallel()
	for name, test := range failures {
		err := fmt.Errorf("do something to image kube/x: %w", test.err)
		want := err.Error()
		if test.hint != "" {
			want += ": " + test.hint
		}
		got := withHint(err, exampleContext)
		if diff := cmp.Diff(want, got.Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !errors.Is(got, test.err) {
			t.Errorf("%s is not wrapped in %v", name, got)
		}
		fixture.WantNoKey(t, got.Error())
		// The hint of an incomplete image is that of the cause.
		incomplete := fmt.Errorf("%w: %w", rbdutil.ErrIncomplete, err)
		if got := hint(incomplete, exampleContext); got != test.hint {
			t.Errorf("%s of an incomplete image: hint %q, want %q", name, got, test.hint)
		}
	}
	odd := errors.New("rados: ret=-95")
	if got := withHint(odd, exampleContext); got != odd { //nolint:errorlint // the very same
		t.Errorf("an error without a hint becomes %v", got)
	}
}

func TestHintsThatDependOnTheContext(t *testing.T) {
	t.Parallel()
	onePool := exampleContext
	onePool.dataPool, onePool.source = "", nil
	deleting := exampleContext
	deleting.deleting = true
	for name, test := range map[string]struct {
		err          error
		errorContext errorContext
		want         string
	}{
		"capabilities for one pool, if there is one": {rbdutil.ErrAccessDenied, onePool,
			"check that secret ceph/admin holds the key of client.kube and that its capabilities include " +
				"mon 'profile rbd' and osd 'profile rbd pool=kube' (`ceph auth get client.kube`)"},
		"the source, if it is being migrated": {fmt.Errorf("%w: %w", rbdutil.ErrSourceIncompatible, rbdutil.ErrMigrating), exampleContext,
			"finish the migration (`rbd migration execute data/base` and `rbd migration commit data/base`), or abort it (`rbd migration abort data/base`)"},
		"the timeout of an unavailable pool": {fmt.Errorf("%w: %w", rbdutil.ErrPoolUnavailable, rbdutil.ErrTimeout), exampleContext,
			"check the cluster's health (`ceph -s`) and the osd capabilities of client.kube (`ceph auth get client.kube`); will be retried automatically"},
		"no data pool": {rbdutil.ErrInvalid, onePool, ""},
		"deletion does not mention the class": {rbdutil.ErrPoolNotFound, deleting,
			"the volume is kept because pool kube may come back; if it will not, remove the volume's finalizers (`kubectl patch`) and delete the volume"},
	} {
		if diff := cmp.Diff(test.want, hint(test.err, test.errorContext)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
