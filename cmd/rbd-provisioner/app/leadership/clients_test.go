package leadership

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// process has the lock of the lease and the client registry of one process.
type process struct {
	*leaseLock
	*clientRegistry
	counted map[string]int
	events  *record.FakeRecorder
	reasons <-chan error
}

func newProcess(t *testing.T, client *fake.Clientset, identity string) *process {
	t.Helper()
	reasons := make(chan error, 10)
	r := &process{counted: map[string]int{}, events: record.NewFakeRecorder(10), reasons: reasons}
	r.leaseLock = &leaseLock{
		leases: client.CoordinationV1().Leases("rbd"), namespace: "rbd", name: "ceph.com-rbd", identity: identity,
		validFor: time.Hour, requestSlot: make(chan struct{}, 1), exit: func(reason error) { reasons <- reason },
	}
	r.clientRegistry = &clientRegistry{lock: r.leaseLock, events: r.events, count: func(result string, n int) { r.counted[result] += n }}
	t.Cleanup(r.stopLeading)
	return r
}

// versioned makes the fake API server reject updates of old versions, as a real one does.
func versioned(client *fake.Clientset) {
	version := 0
	client.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		lease := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		now, err := client.Tracker().Get(action.GetResource(), lease.Namespace, lease.Name)
		if err == nil && now.(*coordinationv1.Lease).ResourceVersion != lease.ResourceVersion {
			err = apierrors.NewConflict(coordinationv1.Resource("leases"), lease.Name, errors.New("it was modified"))
		}
		version++
		lease.ResourceVersion = strconv.Itoa(version)
		return err != nil, &coordinationv1.Lease{}, err
	})
}

// take acquires or renews the lease, as client-go does.
func (r *process) take(t *testing.T) {
	t.Helper()
	record := resourcelock.LeaderElectionRecord{HolderIdentity: r.identity, LeaseDurationSeconds: 15, RenewTime: metav1.Now()}
	if _, _, err := r.Get(t.Context()); apierrors.IsNotFound(err) {
		if err := r.Create(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := r.Update(t.Context(), record); err != nil {
		t.Fatal(err)
	}
}

// register registers a client and checks which clients it must fence.
func (r *process) register(t *testing.T, client rbdutil.Client, want ...rbdutil.Client) {
	t.Helper()
	stale, err := r.Register(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, stale, anyOrder, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("clients to be fenced (-want +got):\n%s", diff)
	}
}

var anyOrder = cmpopts.SortSlices(func(a, b rbdutil.Client) bool { return a.Address < b.Address })

// wantRecorded checks the clients in the annotation of the lease.
func wantRecorded(t *testing.T, client *fake.Clientset, want ...rbdutil.Client) {
	t.Helper()
	lease, err := client.CoordinationV1().Leases("rbd").Get(context.Background(), "ceph.com-rbd", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []rbdutil.Client
	if text := lease.Annotations["rbd-provisioner.ceph.com/ceph-clients"]; text != "" {
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got, anyOrder, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("clients in the lease (-want +got):\n%s", diff)
	}
}

// writes counts the requests that are not reads.
func writes(client *fake.Clientset) int {
	return len(slices.DeleteFunc(client.Actions(), func(a clienttesting.Action) bool { return a.GetVerb() == "get" }))
}

func clientAt(address string) rbdutil.Client {
	return rbdutil.Client{FSID: "one", Address: address + ":0/1", Timeout: time.Hour}
}

func TestClientsOfAllEarlierLeadersAreFenced(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	versioned(api)
	a, b, c := newProcess(t, api, "a"), newProcess(t, api, "b"), newProcess(t, api, "c")
	elsewhere := rbdutil.Client{FSID: "two", Address: "10.0.0.1:0/2", Timeout: time.Hour}
	a.take(t)
	a.register(t, clientAt("10.0.0.1"))
	a.register(t, elsewhere)
	wantRecorded(t, api, clientAt("10.0.0.1"), elsewhere)
	// b crashes before it has fenced a.
	b.take(t)
	wantRecorded(t, api, clientAt("10.0.0.1"), elsewhere)
	b.register(t, clientAt("10.0.0.2"), clientAt("10.0.0.1"))
	c.take(t)
	c.register(t, clientAt("10.0.0.3"), clientAt("10.0.0.1"), clientAt("10.0.0.2"))
	c.Fenced([]rbdutil.Client{clientAt("10.0.0.1"), clientAt("10.0.0.2")})
	c.register(t, clientAt("10.0.0.4"))
	wantRecorded(t, api, clientAt("10.0.0.3"), clientAt("10.0.0.4"), elsewhere)
	if c.counted["fenced"] != 2 {
		t.Errorf("counted: %v", c.counted)
	}
	if _, err := a.Register(t.Context(), clientAt("10.0.0.5")); !errors.Is(err, errLeaseLost) {
		t.Errorf("Register of a process that does not lead any more: %v", err)
	}
	if reason := apptest.Await(t, "the exit of a", a.reasons); !strings.Contains(reason.Error(), `held by "c"`) {
		t.Error(reason)
	}
	wantRecorded(t, api, clientAt("10.0.0.3"), clientAt("10.0.0.4"), elsewhere)
}

func TestRegisterRequiresTheLease(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset(othersLease())
	r := newProcess(t, api, "a")
	if _, err := r.Register(t.Context(), clientAt("10.0.0.1")); !errors.Is(err, errNotLeading) {
		t.Errorf("error %v, want %v", err, errNotLeading)
	}
	if len(api.Actions()) > 0 {
		t.Errorf("requests: %v", api.Actions())
	}
}

func TestOnlyRegisterWritesTheLease(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	r := newProcess(t, api, "a")
	r.take(t)
	r.register(t, clientAt("10.0.0.1"))
	r.register(t, clientAt("10.0.0.2"))
	before := writes(api)
	r.Closed(clientAt("10.0.0.1"), true)
	r.Closed(clientAt("10.0.0.2"), false)
	r.Fenced([]rbdutil.Client{clientAt("10.0.0.2")})
	if got := writes(api); got != before {
		t.Errorf("%d writes", got-before)
	}
	r.take(t)
	wantRecorded(t, api)
	if got := writes(api); got != before+1 {
		t.Errorf("%d writes for a renewal", got-before)
	}
}

func TestADroppedConnectionIsFencedByTheNext(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	r := newProcess(t, api, "a")
	r.take(t)
	r.register(t, clientAt("10.0.0.1"))
	r.Closed(clientAt("10.0.0.1"), false)
	r.register(t, clientAt("10.0.0.2"), clientAt("10.0.0.1"))
	// It is not fenced yet, for example because Ceph did not answer.
	r.Closed(clientAt("10.0.0.2"), true)
	r.register(t, clientAt("10.0.0.3"), clientAt("10.0.0.1"))
	wantRecorded(t, api, clientAt("10.0.0.1"), clientAt("10.0.0.3"))
	// A new connection with the address of an old connection must not fence itself.
	r.register(t, clientAt("10.0.0.1"))
}

func TestAReleasedLeaseRecordsClientsThatWereNotClosed(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	a, b := newProcess(t, api, "a"), newProcess(t, api, "b")
	a.take(t)
	a.register(t, clientAt("10.0.0.1"))
	a.register(t, clientAt("10.0.0.2"))
	a.Closed(clientAt("10.0.0.1"), true)
	if err := a.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := holder(t, api); got != "" {
		t.Errorf("the lease is held by %q", got)
	}
	wantRecorded(t, api, clientAt("10.0.0.2"))
	b.take(t)
	b.register(t, clientAt("10.0.0.3"), clientAt("10.0.0.2"))
}

func TestAFailedRegistrationIsNotRecorded(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	r := newProcess(t, api, "a")
	r.take(t)
	fail := errors.New("the API server is gone")
	onLeases(api, "update", func() error { return fail })
	if _, err := r.Register(t.Context(), clientAt("10.0.0.1")); !errors.Is(err, fail) {
		t.Errorf("error %v, want %v", err, fail)
	}
	fail = nil
	r.take(t)
	wantRecorded(t, api)
}

func TestARegistrationIsRepeatedAfterAConflict(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	r := newProcess(t, api, "a")
	r.take(t)
	conflicts := 2
	onLeases(api, "update", func() error {
		if conflicts--; conflicts < 0 {
			return nil
		}
		return apierrors.NewConflict(coordinationv1.Resource("leases"), "ceph.com-rbd", errors.New("it was modified"))
	})
	r.register(t, clientAt("10.0.0.1"))
	wantRecorded(t, api, clientAt("10.0.0.1"))
}

func TestRefusedClientsBlockUntilTheirTimeout(t *testing.T) {
	t.Parallel()
	api := fake.NewSimpleClientset()
	a, b := newProcess(t, api, "a"), newProcess(t, api, "b")
	short := rbdutil.Client{FSID: "one", Address: "10.0.0.2:0/1"} // without a timeout
	a.take(t)
	a.register(t, clientAt("10.0.0.1"))
	a.register(t, short)
	b.take(t)
	b.register(t, clientAt("10.0.0.3"), clientAt("10.0.0.1"), short)
	reason := errors.New("permission denied")
	stale := []rbdutil.Client{clientAt("10.0.0.1"), short}
	for range 2 {
		if err := b.Refused(stale, reason); !errors.Is(err, rbdutil.ErrNotFenced) || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("error %v, want %v", err, rbdutil.ErrNotFenced)
		}
	}
	if b.counted["refused"] != 2 {
		t.Errorf("counted: %v", b.counted)
	}
	// The event is sent once and names the capability.
	event := apptest.Await(t, "the event", b.events.Events)
	if !strings.HasPrefix(event, "Warning FencingRefused ") || !strings.Contains(event, "mon 'profile rbd'") || len(b.events.Events) > 0 {
		t.Errorf("event %q, and %d more", event, len(b.events.Events))
	}
	b.take(t)
	wantRecorded(t, api, clientAt("10.0.0.1"), clientAt("10.0.0.3"))
	// One hour later.
	b.clients.mu.Lock()
	waiting := b.clients.records[keyOf(clientAt("10.0.0.1"))]
	waiting.stale = waiting.stale.Add(-time.Hour)
	b.clients.records[keyOf(clientAt("10.0.0.1"))] = waiting
	b.clients.mu.Unlock()
	if err := b.Refused(stale, reason); err != nil {
		t.Errorf("error %v after the timeout", err)
	}
	b.take(t)
	wantRecorded(t, api, clientAt("10.0.0.3"))
}

func TestAnInvalidAnnotationDoesNotPreventLeading(t *testing.T) {
	t.Parallel()
	lease := othersLease()
	lease.Spec.HolderIdentity = ptr.To("")
	lease.Annotations = map[string]string{annClients: "edited by hand"}
	api := fake.NewSimpleClientset(lease)
	r := newProcess(t, api, "a")
	r.take(t)
	r.register(t, clientAt("10.0.0.1"))
	wantRecorded(t, api, clientAt("10.0.0.1"))
}
