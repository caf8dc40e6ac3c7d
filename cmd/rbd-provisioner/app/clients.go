package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// annClients is the annotation of the Lease with the clients of Ceph clusters that may change
// images: those of the leader, and those of earlier leaders that were not fenced yet. It is a JSON
// list of rbdutil.Client.
const annClients = "rbd-provisioner.ceph.com/ceph-clients"

var errNotLeading = errors.New("this process does not hold the lease")

// cephClients are the clients that the Lease names, while this process leads.
type cephClients struct {
	mu      sync.Mutex
	records map[clientKey]clientRecord
}

type clientKey struct{ fsid, address string }

type clientRecord struct {
	rbdutil.Client
	// stale is since when the client must be fenced; zero for one in use.
	stale    time.Time
	reported bool // that Ceph does not allow to fence it
}

func keyOf(client rbdutil.Client) clientKey { return clientKey{client.FSID, client.Address} }

// takeOver takes the clients of earlier leaders from the lease. All of them must be fenced, also
// where the lease was given back: the leader has left those whose operations had not ended.
func (c *cephClients) takeOver(lease *coordinationv1.Lease) error {
	var clients []rbdutil.Client
	if text := lease.Annotations[annClients]; text != "" {
		if err := json.Unmarshal([]byte(text), &clients); err != nil {
			return fmt.Errorf("read annotation %s, value %q: %w", annClients, text, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records = map[clientKey]clientRecord{}
	for _, client := range clients {
		c.records[keyOf(client)] = clientRecord{Client: client, stale: time.Now()}
	}
	return nil
}

// annotate writes the clients into the lease.
func (c *cephClients) annotate(lease *coordinationv1.Lease) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.records) == 0 {
		delete(lease.Annotations, annClients)
		return nil
	}
	var clients []rbdutil.Client
	for _, record := range c.records {
		clients = append(clients, record.Client)
	}
	slices.SortFunc(clients, func(a, b rbdutil.Client) int {
		return cmp.Or(cmp.Compare(a.FSID, b.FSID), cmp.Compare(a.Address, b.Address))
	})
	text, err := json.Marshal(clients)
	if err != nil {
		return fmt.Errorf("write annotation %s: %w", annClients, err)
	}
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, annClients, string(text))
	return nil
}

// add records a client in use, in place of one of the same address.
func (c *cephClients) add(client rbdutil.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records == nil {
		c.records = map[clientKey]clientRecord{}
	}
	c.records[keyOf(client)] = clientRecord{Client: client}
}

func (c *cephClients) remove(clients ...rbdutil.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range clients {
		delete(c.records, keyOf(client))
	}
}

// markStale has a client fenced that was in use.
func (c *cephClients) markStale(client rbdutil.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if record, ok := c.records[keyOf(client)]; ok && record.stale.IsZero() {
		record.stale = time.Now()
		c.records[keyOf(client)] = record
	}
}

// stale are the clients of a cluster that must be fenced.
func (c *cephClients) stale(fsid string) []rbdutil.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	var clients []rbdutil.Client
	for key, record := range c.records {
		if key.fsid == fsid && !record.stale.IsZero() {
			clients = append(clients, record.Client)
		}
	}
	return clients
}

// refuse forgets the clients whose requests have timed out since they became stale. It returns
// those that are waited for, and those that were refused for the first time.
func (c *cephClients) refuse(clients []rbdutil.Client) (waiting, first []rbdutil.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range clients {
		record, ok := c.records[keyOf(client)]
		if !ok {
			continue
		}
		if !record.reported {
			first = append(first, client)
		}
		if time.Since(record.stale) >= record.Timeout {
			delete(c.records, keyOf(client))
			continue
		}
		record.reported = true
		c.records[keyOf(client)] = record
		waiting = append(waiting, client)
	}
	return waiting, first
}

// registry is the rbdutil.Clients over the Lease.
type registry struct {
	lock   *leaseLock
	events record.EventRecorder
	// count counts clients by result: fenced or refused.
	count func(result string, n int)
}

var _ rbdutil.Clients = (*registry)(nil)

// Register implements rbdutil.Clients. It is the only method that makes a request: what the others
// change is written with the next renewal.
func (r *registry) Register(ctx context.Context, client rbdutil.Client) (stale []rbdutil.Client, err error) {
	clients := &r.lock.clients
	end, err := r.lock.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if !r.lock.holds() {
		return nil, errNotLeading
	}
	clients.add(client)
	if err := r.lock.rewrite(ctx, func(*coordinationv1.Lease) {}); err != nil {
		clients.remove(client) // and from the lease, should it be there, with the next renewal
		return nil, fmt.Errorf("update lease %s: %w", r.lock.Describe(), err)
	}
	return clients.stale(client.FSID), nil
}

// Fenced implements rbdutil.Clients.
func (r *registry) Fenced(clients []rbdutil.Client) {
	r.lock.clients.remove(clients...)
	r.count("fenced", len(clients))
	for _, client := range clients {
		klog.Background().Info("Fenced a client that may have left requests in Ceph", "fsid", client.FSID, "address", client.Address)
	}
}

// Refused implements rbdutil.Clients.
func (r *registry) Refused(clients []rbdutil.Client, reason error) error {
	waiting, first := r.lock.clients.refuse(clients)
	r.count("refused", len(first))
	for _, client := range first {
		klog.Background().Error(reason, "Failed to fence a client that may have left requests in Ceph, waiting for its timeout",
			"fsid", client.FSID, "address", client.Address, "timeout", client.Timeout)
	}
	if len(first) > 0 {
		r.events.Eventf(r.lock.reference(), corev1.EventTypeWarning, "FencingRefused",
			"Ceph does not allow to fence clients of the previous leader: %v: give the admin of the StorageClass the capability mon 'profile rbd'", reason)
	}
	if len(waiting) > 0 {
		// Not %w: it is not the reason that the claim waits for.
		return fmt.Errorf("%w: %s", rbdutil.ErrNotFenced, reason.Error())
	}
	return nil
}

// Closed implements rbdutil.Clients.
func (r *registry) Closed(client rbdutil.Client, clean bool) {
	if clean {
		r.lock.clients.remove(client)
	} else {
		r.lock.clients.markStale(client)
	}
}

// reference is what events about the lease refer to.
func (l *leaseLock) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{
		Kind: "Lease", APIVersion: coordinationv1.SchemeGroupVersion.String(), Namespace: l.namespace, Name: l.name, UID: l.uid(),
	}
}
