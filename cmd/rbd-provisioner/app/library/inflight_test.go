package library

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
)

// fakeProvisioner has the volumes that were provisioned and not deleted.
type fakeProvisioner struct {
	before func() // runs before each operation

	mu      sync.Mutex
	volumes []string
}

func (f *fakeProvisioner) Provision(_ context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	f.before()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes = append(f.volumes, opts.PVName)
	return volumeNamed(opts.PVName), controller.ProvisioningFinished, nil
}

func (f *fakeProvisioner) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	f.before()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes = slices.DeleteFunc(f.volumes, func(name string) bool { return name == volume.Name })
	return nil
}

func (f *fakeProvisioner) SupportsBlock(context.Context) bool { return true }

func (f *fakeProvisioner) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.volumes
}

// blocking makes every operation wait until proceed is called. It reports each operation in arrived.
func (f *fakeProvisioner) blocking() (arrived <-chan struct{}, proceed func()) {
	arrivals, gate := make(chan struct{}, 100), make(chan struct{})
	f.before = func() {
		arrivals <- struct{}{}
		<-gate
	}
	return arrivals, func() { close(gate) }
}

func newProvisioner() (Provisioner, *fakeProvisioner) {
	f := &fakeProvisioner{before: func() {}}
	return Provisioner{BlockProvisioner: f, InFlight: &InFlight{}}, f
}

func volumeNamed(name string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func optionsFor(volume string) controller.ProvisionOptions {
	return controller.ProvisionOptions{PVName: volume}
}

// awaitDraining returns when new operations are rejected.
func awaitDraining(f *InFlight) {
	for {
		end, ok := f.Begin()
		if !ok {
			return
		}
		end()
		runtime.Gosched()
	}
}

// wantIgnored checks that the library skips the object: it checks the type of the error itself, not of
// wrapped errors.
func wantIgnored(t *testing.T, err error) {
	t.Helper()
	if _, bare := err.(*controller.IgnoredError); !bare { //nolint:errorlint // as the library does it
		t.Errorf("%T %v, want an IgnoredError", err, err)
	}
}

func TestOperationsPassUntilDrain(t *testing.T) {
	t.Parallel()
	p, fake := newProvisioner()
	volume, state, err := p.Provision(t.Context(), optionsFor("pvc-1"))
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatalf("Provision: %v, %v", state, err)
	}
	p.MarkSaved(volume)
	if err := p.Delete(t.Context(), volume); err != nil {
		t.Fatal(err)
	}
	if left := p.Drain(t.Context()); left != 0 {
		t.Errorf("%d operations are left, want none", left)
	}
	_, state, err = p.Provision(t.Context(), optionsFor("pvc-2"))
	wantIgnored(t, err)
	if state != controller.ProvisioningNoChange {
		t.Errorf("state %v, want %v", state, controller.ProvisioningNoChange)
	}
	wantIgnored(t, p.Delete(t.Context(), volume))
	if names := fake.names(); len(names) > 0 {
		t.Errorf("volumes %v were provisioned while draining", names)
	}
	if !p.SupportsBlock(t.Context()) {
		t.Error("SupportsBlock is not that of the wrapped provisioner")
	}
}

func TestDrainWaitsForRunningOperations(t *testing.T) {
	t.Parallel()
	p, fake := newProvisioner()
	arrived, proceed := fake.blocking()
	provisioned := make(chan *corev1.PersistentVolume, 2)
	for _, name := range []string{"pvc-1", "pvc-2"} {
		go func() {
			volume, _, err := p.Provision(t.Context(), optionsFor(name))
			if err != nil {
				t.Error(err)
			}
			provisioned <- volume
		}()
	}
	apptest.Await(t, "the first operation", arrived)
	apptest.Await(t, "the second operation", arrived)
	drained := make(chan int, 1)
	go func() { drained <- p.Drain(t.Context()) }()
	awaitDraining(p.InFlight)
	wantIgnored(t, p.Delete(t.Context(), &corev1.PersistentVolume{}))
	select {
	case left := <-drained:
		t.Fatalf("drained with %d left, but two operations are running", left)
	default:
	}
	proceed()
	for range 2 {
		p.MarkSaved(apptest.Await(t, "the volume", provisioned))
	}
	if left := apptest.Await(t, "the drain", drained); left != 0 {
		t.Errorf("%d operations are left", left)
	}
	if names := fake.names(); len(names) != 2 {
		t.Errorf("volumes %v, want both that had begun", names)
	}
}

func TestAVolumeIsEitherProvisionedOrReserved(t *testing.T) {
	t.Parallel()
	p, fake := newProvisioner()
	release, ok := p.TryReserve("pvc-1")
	if !ok {
		t.Fatal("an unlocked volume cannot be reserved")
	}
	if _, state, err := p.Provision(t.Context(), optionsFor("pvc-1")); err == nil || state != controller.ProvisioningNoChange {
		t.Errorf("a reserved volume is provisioned: %v, %v", state, err)
	}
	release()
	arrived, proceed := fake.blocking()
	ended := make(chan error, 1)
	go func() {
		_, _, err := p.Provision(t.Context(), optionsFor("pvc-1"))
		ended <- err
	}()
	apptest.Await(t, "the operation", arrived)
	if _, ok := p.TryReserve("pvc-1"); ok {
		t.Error("a volume that is being provisioned can be reserved")
	}
	proceed()
	if err := apptest.Await(t, "the end of the operation", ended); err != nil {
		t.Error(err)
	}
	if _, ok := p.TryReserve("pvc-1"); ok {
		t.Error("an unsaved volume can be reserved")
	}
	p.MarkSaved(volumeNamed("pvc-1"))
	if _, ok := p.TryReserve("pvc-1"); !ok {
		t.Error("a saved volume cannot be reserved")
	}
}

func TestDrainWaitsForUnsavedVolumes(t *testing.T) {
	t.Parallel()
	p, _ := newProvisioner()
	for _, name := range []string{"pvc-1", "pvc-2"} {
		if _, _, err := p.Provision(t.Context(), optionsFor(name)); err != nil {
			t.Fatal(err)
		}
	}
	p.MarkSaved(volumeNamed("pvc-1"))
	drained := make(chan int, 1)
	go func() { drained <- p.Drain(t.Context()) }()
	awaitDraining(p.InFlight)
	p.MarkSaved(volumeNamed("pvc-unknown"))
	p.MarkSaved(volumeNamed("pvc-1"))
	select {
	case left := <-drained:
		t.Fatalf("drained with %d left, but a volume is not saved", left)
	default:
	}
	p.MarkSaved(volumeNamed("pvc-2"))
	if left := apptest.Await(t, "the drain", drained); left != 0 {
		t.Errorf("%d are left", left)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p, fake := newProvisioner()
	volume, _, err := p.Provision(t.Context(), optionsFor("pvc-1"))
	if err != nil {
		t.Fatal(err)
	}
	p.MarkSaved(volume)
	arrived, proceed := fake.blocking()
	deleted := make(chan error, 1)
	go func() { deleted <- p.Delete(t.Context(), volume) }()
	apptest.Await(t, "the operation", arrived)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left := p.Drain(ctx); left != 1 {
		t.Errorf("%d operations are left, want the 1 that hangs", left)
	}
	proceed() // an operation that ends after the drain must not panic
	if err := apptest.Await(t, "the deletion", deleted); err != nil {
		t.Error(err)
	}
}
