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

// Env is the environment of one test: a namespace, a pool, and a Ceph user that may use only
// this pool, with its key in two Secrets.
//
// At the end of the test everything is deleted in the order in which a user would do it: pods,
// claims, and then, by the provisioner, volumes and images. Remaining objects fail the test.
// After that, the functions registered with Cleanup run, for example to stop the provisioner.
type Env struct {
	Client kubernetes.Interface
	Ceph   cephcli.Admin

	Namespace string
	Pool      string
	User      string
	Key       rbdutil.Key
	Monitors  []string
	// Provisioner is the provisioner's name in classes.
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

// New creates the environment of a test that uses the provisioner of that name.
func New(t *testing.T, provisioner string) *Env {
	t.Helper()
	name := uniqueName(t)
	e := &Env{
		Client: connect(t), Ceph: cephcli.FromEnv(t),
		Namespace: name, Pool: name, User: name, Provisioner: provisioner,
	}
	e.Monitors = e.Ceph.Monitors(t)
	// The pool is created before close is registered, so it is deleted after it.
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

// uniqueName returns a name that is valid for namespaces, pools and Ceph users. It has only one
// dash: a pool with "-image-" in its name would not be usable.
func uniqueName(t *testing.T) string {
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	return letters[:min(len(letters), 30)] + "-" + rand.String(5)
}

// NewUser creates a Ceph user with the documented capabilities for the pools. It is removed at
// the end of the test, after the Env.
func (e *Env) NewUser(t *testing.T, user string, pools ...string) rbdutil.Key {
	t.Helper()
	key := e.Ceph.CreateUser(t, user, pools...)
	e.addKey(key.Reveal())
	t.Cleanup(func() { e.Ceph.Run(t, "ceph", "auth", "rm", "client."+user) })
	return key
}

// Cleanup registers a function that runs after claims, volumes and images were deleted, the
// last one first.
func (e *Env) Cleanup(fn func(*testing.T)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cleanups = append(e.cleanups, fn)
}

// AddLog registers a log whose end is printed if the test fails.
func (e *Env) AddLog(name string, read func(context.Context) string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.logs = append(e.logs, namedLog{name, read})
}

// Keys returns all keys of the test so far, of users and in Secrets.
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

// close deletes the Env's objects, as described there.
func (e *Env) close(t *testing.T) {
	failed := t.Failed()
	if failed {
		e.report(t)
	}
	e.deleteObjects(t)
	if t.Failed() && !failed {
		e.report(t)
	}
	if t.Failed() {
		e.forceDelete(t)
	}
	e.mu.Lock()
	cleanups := e.cleanups
	e.mu.Unlock()
	for i := len(cleanups) - 1; i >= 0; i-- {
		cleanups[i](t)
	}
	ctx, cancel := cleanupContext()
	defer cancel()
	// The namespace is empty now, so there is no wait for its end.
	if err := e.Client.CoreV1().Namespaces().Delete(ctx, e.Namespace, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// cleanupContext returns a context for use after the end of the test's own context.
func cleanupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}
