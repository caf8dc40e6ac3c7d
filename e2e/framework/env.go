package framework

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdtest/cephcli"
)

// Names of the two Secrets that every Env has in its namespace.
const (
	AdminSecret = "ceph-admin"
	UserSecret  = "ceph-user"
)

// Env is what one test works in, and nobody else: a namespace, a pool, and a Ceph
// user that may use this pool only, with its key in two Secrets.
//
// At the end of the test everything goes, in the order in which a user would take
// it away: pods, claims, then, by the provisioner's work, volumes and images. What
// is left over then fails the test, whatever it was about. What was registered
// with Cleanup, the provisioner's process for one, goes after that.
type Env struct {
	Client kubernetes.Interface
	Ceph   cephcli.Admin

	Namespace string
	Pool      string
	User      string
	Key       rbdutil.Key
	Monitors  []string
	// Provisioner is the name that Class writes into classes.
	Provisioner string

	mu       sync.Mutex
	cleanups []func(*testing.T)
	logs     []namedLog
	keys     []string
}

type namedLog struct {
	name string
	read func(context.Context) string
}

// New makes the place for a test that uses the provisioner of that name.
func New(t *testing.T, provisioner string) *Env {
	t.Helper()
	name := uniqueName(t)
	e := &Env{
		Client: connect(t), Ceph: cephcli.FromEnv(t),
		Namespace: name, Pool: name, User: name, Provisioner: provisioner,
	}
	e.Monitors = e.Ceph.Monitors(t)
	// Before the end of the Env is registered, so that the pool outlives it.
	e.Ceph.CreatePool(t, e.Pool)
	e.Key = e.NewUser(t, e.User, e.Pool)
	_, err := e.Client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: e.Namespace}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.close(t) })
	e.PutSecret(t, AdminSecret, e.Key.Reveal())
	e.PutSecret(t, UserSecret, e.Key.Reveal())
	return e
}

// uniqueName is fit for namespaces, pools and Ceph users. It has no dashes but
// the one: a pool with "-image-" in its name could not be used.
func uniqueName(t *testing.T) string {
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	return letters[:min(len(letters), 30)] + "-" + rand.String(5)
}

// NewUser makes a Ceph user with the documented rights on the pools. It goes with
// the test, after the Env.
func (e *Env) NewUser(t *testing.T, user string, pools ...string) rbdutil.Key {
	t.Helper()
	key := e.Ceph.CreateUser(t, user, pools...)
	e.addKey(key.Reveal())
	t.Cleanup(func() { e.Ceph.Run(t, "ceph", "auth", "rm", "client."+user) })
	return key
}

// Cleanup registers what is to happen after claims, volumes and images are gone,
// the last first.
func (e *Env) Cleanup(fn func(*testing.T)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cleanups = append(e.cleanups, fn)
}

// AddLog adds a log whose end is printed when the test fails.
func (e *Env) AddLog(name string, read func(context.Context) string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, namedLog{name, read})
}

// Keys returns all keys that the test has had so far, of users and in Secrets.
func (e *Env) Keys() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.keys)
}

func (e *Env) addKey(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys = append(e.keys, key)
}

// close ends the Env: see there.
func (e *Env) close(t *testing.T) {
	failed := t.Failed()
	if failed {
		e.report(t)
	}
	e.sweep(t)
	if t.Failed() && !failed {
		e.report(t)
	}
	if t.Failed() {
		e.force(t)
	}
	e.mu.Lock()
	cleanups := e.cleanups
	e.mu.Unlock()
	for i := len(cleanups) - 1; i >= 0; i-- {
		cleanups[i](t)
	}
	ctx, cancel := cleanupContext()
	defer cancel()
	// Nothing is left in it that anybody would have to wait for.
	if err := e.Client.CoreV1().Namespaces().Delete(ctx, e.Namespace, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// cleanupContext is for the time when the test's own context is done.
func cleanupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}
