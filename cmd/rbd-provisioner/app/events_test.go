package app

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
)

func TestEventsAreSentToTheAPIServer(t *testing.T) {
	// Not parallel, so that goroutines of other tests are not reported as leaks.
	before := goleak.IgnoreCurrent()
	client := fake.NewSimpleClientset()
	created := make(chan *corev1.Event, 1)
	client.PrependReactor("create", "events", func(action clienttesting.Action) (bool, apiruntime.Object, error) {
		created <- action.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		return false, nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	events := newEvents(ctx, client, "ceph.com/rbd")
	cancel() // events that are recorded during the stop must be sent
	events.recorder.Event(exampleClaim("1"), corev1.EventTypeWarning, "InvalidUserSecret", "it is empty")
	event := apptest.Await(t, "the event", created)
	got := strings.Join([]string{
		event.Namespace, event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Source.Component, event.Type, event.Reason, event.Message,
	}, " ")
	if want := "shop PersistentVolumeClaim www-1 ceph.com/rbd Warning InvalidUserSecret it is empty"; got != want {
		t.Errorf("event %q, want %q", got, want)
	}
	events.shutdown()
	goleak.VerifyNone(t, before)
}
