package leadership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// Reasons to exit immediately. Another process may lead already, and calls inside Ceph cannot be cancelled.
var (
	errLeaseLost    = errors.New("the lease was lost")
	errNotRenewed   = fmt.Errorf("%w: it could not be renewed in time", errLeaseLost)
	errLeaseDeleted = fmt.Errorf("%w: it was deleted", errLeaseLost)
)

// leaseLock is the Lease of the election. It differs from client-go's lock in two ways:
//  1. A leader exits immediately if its lease was deleted or is held by another process. With
//     client-go's lock, it would create the lease again, or work until its renew deadline.
//  2. The lease expires independently of client-go, whose log lines may block.
type leaseLock struct {
	leases                    coordinationv1client.LeaseInterface
	namespace, name, identity string
	// validFor is the time for which a renewal is valid, starting when it was sent.
	validFor time.Duration
	exit     func(reason error)

	// requestSlot is full while a request is running. Only that request may use lastLease.
	requestSlot chan struct{}
	lastLease   *coordinationv1.Lease // as last read or written

	clients cephClients // recorded in the lease

	mu      sync.Mutex
	leading bool
	leaseID types.UID
	lost    error
	expiry  *time.Timer
}

var _ resourcelock.Interface = (*leaseLock)(nil)

// Identity implements resourcelock.Interface.
func (l *leaseLock) Identity() string { return l.identity }

// Describe implements resourcelock.Interface.
func (l *leaseLock) Describe() string { return l.namespace + "/" + l.name }

// RecordEvent implements resourcelock.Interface. The same is logged, so no event is recorded.
func (l *leaseLock) RecordEvent(string) {}

// Get implements resourcelock.Interface.
func (l *leaseLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	end, err := l.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	if err := l.read(ctx); err != nil {
		return nil, nil, err
	}
	record := resourcelock.LeaseSpecToLeaderElectionRecord(&l.lastLease.Spec)
	raw, err := json.Marshal(record)
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *leaseLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	end, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	sent := time.Now()
	lease, err := l.leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: l.name},
		Spec:       resourcelock.LeaderElectionRecordToLeaseSpec(&record),
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	l.lastLease = lease
	l.renewed(sent)
	return nil
}

// Update implements resourcelock.Interface. client-go acquires and renews the lease with it. It never
// releases the lease, because ReleaseOnCancel is not set.
func (l *leaseLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	end, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if l.lastLease == nil {
		return fmt.Errorf("update lease %s: it has not been read yet", l.Describe())
	}
	lease := l.lastLease.DeepCopy()
	lease.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&record)
	if l.holds() { // a process that acquires the lease keeps the recorded clients
		if err := l.clients.annotate(lease); err != nil {
			return err
		}
	}
	sent := time.Now()
	if err := l.write(ctx, lease); err != nil {
		return err
	}
	l.renewed(sent)
	return nil
}

// release releases the lease if this process still holds it. All work must have ended. The election
// must have ended too, because it would acquire the lease again.
func (l *leaseLock) release(ctx context.Context) error {
	end, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	l.stopLeading()
	return l.rewrite(ctx, func(lease *coordinationv1.Lease) {
		now := metav1.NowMicro()
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = ptr.To(""), ptr.To[int32](1)
		lease.Spec.AcquireTime, lease.Spec.RenewTime = &now, &now
	})
}

// rewrite changes the lease and records the current clients, if this process holds it. It does not
// renew it. The caller holds the request slot.
func (l *leaseLock) rewrite(ctx context.Context, change func(*coordinationv1.Lease)) error {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		lease := l.lastLease.DeepCopy()
		change(lease)
		if err := l.clients.annotate(lease); err != nil {
			return err
		}
		err := l.write(ctx, lease)
		if !apierrors.IsConflict(err) || attempt == attempts {
			return err
		}
		// The API server may have executed a renewal that was cancelled here.
		if err := l.read(ctx); err != nil {
			return err
		}
		if holder := holderOf(l.lastLease); holder != l.identity {
			return fmt.Errorf("lease %s is held by %q", l.Describe(), holder)
		}
	}
}

// begin waits for the running request, until ctx is done: a renewal that waits must not miss its
// deadline. The caller must call end after its request.
func (l *leaseLock) begin(ctx context.Context) (end func(), err error) {
	select {
	case l.requestSlot <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another request for lease %s: %w", l.Describe(), ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		<-l.requestSlot
		return nil, l.lost
	}
	return func() { <-l.requestSlot }, nil
}

// read reads the lease. The caller holds the request slot.
func (l *leaseLock) read(ctx context.Context) error {
	lease, err := l.leases.Get(ctx, l.name, metav1.GetOptions{})
	if err != nil {
		return l.checkDeleted(err)
	}
	if holder := holderOf(lease); l.holds() && holder != l.identity {
		return l.lose(fmt.Errorf("%w: it is held by %q", errLeaseLost, holder))
	}
	l.lastLease = lease
	return nil
}

// write updates the lease if it is the version last read or written. The caller holds the request slot.
func (l *leaseLock) write(ctx context.Context, lease *coordinationv1.Lease) error {
	written, err := l.leases.Update(ctx, lease, metav1.UpdateOptions{})
	if err != nil {
		return l.checkDeleted(err)
	}
	l.lastLease = written
	return nil
}

// checkDeleted returns the error of a request. It marks the lease as lost if it was deleted.
func (l *leaseLock) checkDeleted(err error) error {
	if apierrors.IsNotFound(err) && l.holds() {
		return l.lose(errLeaseDeleted)
	}
	return err
}

func (l *leaseLock) uid() types.UID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaseID
}

func (l *leaseLock) holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading
}

// renewed records a renewal that was sent at the given time. The caller holds the request slot.
func (l *leaseLock) renewed(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leading {
		l.leading, l.leaseID = true, l.lastLease.UID
		if err := l.clients.takeOver(l.lastLease); err != nil {
			klog.Background().Error(err, "Failed to read the Ceph clients of earlier leaders, they will not be fenced", "lease", l.Describe())
		}
	}
	left := l.validFor - time.Since(sent)
	if l.expiry == nil {
		l.expiry = time.AfterFunc(left, l.expire)
	} else {
		l.expiry.Reset(left)
	}
}

// expire is called when the last renewal is not valid any more.
func (l *leaseLock) expire() {
	if l.holds() {
		_ = l.lose(errNotRenewed)
	}
}

// lose exits. If the exit function of a test returns, all later requests fail with the same reason.
func (l *leaseLock) lose(reason error) error {
	l.mu.Lock()
	if l.lost == nil {
		l.lost = reason
	}
	reason = l.lost
	l.mu.Unlock()
	l.exit(reason)
	return reason
}

// stopLeading stops checking the expiry of the lease. No work may be running.
func (l *leaseLock) stopLeading() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leading = false
	if l.expiry != nil {
		l.expiry.Stop()
	}
}

// lossReason returns nil if the lease was not lost.
func (l *leaseLock) lossReason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

func holderOf(lease *coordinationv1.Lease) string { return ptr.Deref(lease.Spec.HolderIdentity, "") }
