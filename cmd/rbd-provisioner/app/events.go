package app

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// events records the events of this program. The library has a recorder of its own.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEvents(ctx context.Context, client kubernetes.Interface, component string) *events {
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.CoreV1().Events(corev1.NamespaceAll)})
	return &events{
		broadcaster: broadcaster,
		recorder:    broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component}),
	}
}

func (e *events) shutdown() { e.broadcaster.Shutdown() }

// recordCreateFailure returns a function that records on the claim why its PersistentVolume could not
// be created, for example because an admission webhook rejects it.
func recordCreateFailure(events record.EventRecorder) func(*corev1.PersistentVolume, error) {
	return func(volume *corev1.PersistentVolume, err error) {
		if claim := volume.Spec.ClaimRef; claim != nil {
			events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed",
				"failed to create PersistentVolume %s: %v: will be retried automatically", volume.Name, err)
		}
	}
}
