package leadership

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

// annClients is the annotation of the Lease with the Ceph clients that may change images, as a JSON list of
// rbdutil.Client. It has the clients of the leader, and those of earlier leaders that were not fenced yet.
const annClients = "rbd-provisioner.ceph.com/ceph-clients"

var errNotLeading = errors.New("this process does not hold the lease")

// cephClients are the clients recorded in the Lease while this process leads.
type cephClients struct {
	mu      sync.Mutex
	records map[clientKey]clientRecord
}

type clientKey struct{ fsid, address string }

type clientRecord struct {
	rbdutil.Client
	// stale is the time since when the client must be fenced. It is zero for a client in use.
	stale    time.Time
	reported bool // that Ceph has refused to fence it
}

func keyOf(client rbdutil.Client) clientKey { return clientKey{client.FSID, client.Address} }

// takeOver reads the clients of earlier leaders from the lease. All of them must be fenced, even if the
// lease was released: a leader leaves those in it whose operations have not ended.
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

// annotate writes the clients to the lease.
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

// add records a client in use. It replaces a client with the same address.
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

// markStale records that a client must be fenced.
func (c *cephClients) markStale(client rbdutil.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if record, ok := c.records[keyOf(client)]; ok && record.stale.IsZero() {
		record.stale = time.Now()
		c.records[keyOf(client)] = record
	}
}

// stale returns the clients of a cluster that must be fenced.
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

// recordRefusal removes the clients whose requests have timed out since they became stale. It returns the
// clients that the caller must wait for, and those that were refused for the first time.
func (c *cephClients) recordRefusal(clients []rbdutil.Client) (waiting, first []rbdutil.Client) {
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

// clientRegistry implements rbdutil.Clients with the Lease.
type clientRegistry struct {
	lock   *leaseLock
	events record.EventRecorder
	// count counts clients by result: fenced or refused.
	count func(result string, n int)
}

var _ rbdutil.Clients = (*clientRegistry)(nil)

// Register implements rbdutil.Clients. It is the only method that sends a request. The changes of the
// other methods are written with the next renewal.
func (r *clientRegistry) Register(ctx context.Context, client rbdutil.Client) (stale []rbdutil.Client, err error) {
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
		clients.remove(client) // if it was written, the next renewal removes it
		return nil, fmt.Errorf("update lease %s: %w", r.lock.Describe(), err)
	}
	return clients.stale(client.FSID), nil
}

// Fenced implements rbdutil.Clients.
func (r *clientRegistry) Fenced(clients []rbdutil.Client) {
	r.lock.clients.remove(clients...)
	r.count("fenced", len(clients))
	for _, client := range clients {
		klog.Background().Info("Fenced a Ceph client that may have unfinished requests", "fsid", client.FSID, "address", client.Address)
	}
}

// Refused implements rbdutil.Clients.
func (r *clientRegistry) Refused(clients []rbdutil.Client, reason error) error {
	waiting, first := r.lock.clients.recordRefusal(clients)
	r.count("refused", len(first))
	for _, client := range first {
		klog.Background().Error(reason, "Failed to fence a Ceph client that may have unfinished requests, waiting for its timeout",
			"fsid", client.FSID, "address", client.Address, "timeout", client.Timeout)
	}
	if len(first) > 0 {
		r.events.Eventf(r.lock.reference(), corev1.EventTypeWarning, "FencingRefused",
			"failed to fence Ceph clients of the previous leader: %v: grant the capability mon 'profile rbd' to adminId of the StorageClass", reason)
	}
	if len(waiting) > 0 {
		// Not %w: the claim does not wait for the end of this reason.
		return fmt.Errorf("%w: %s", rbdutil.ErrNotFenced, reason.Error())
	}
	return nil
}

// Closed implements rbdutil.Clients.
func (r *clientRegistry) Closed(client rbdutil.Client, clean bool) {
	if clean {
		r.lock.clients.remove(client)
	} else {
		r.lock.clients.markStale(client)
	}
}

// reference returns the object of events about the lease.
func (l *leaseLock) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{
		Kind: "Lease", APIVersion: coordinationv1.SchemeGroupVersion.String(), Namespace: l.namespace, Name: l.name, UID: l.uid(),
	}
}
