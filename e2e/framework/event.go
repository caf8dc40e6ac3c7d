package framework

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Events returns the events of an object, oldest first.
func (e *Env) Events(ctx context.Context, object metav1.Object) ([]corev1.Event, error) {
	namespace := object.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault // the namespace of events of cluster-wide objects
	}
	list, err := e.Client.CoreV1().Events(namespace).List(ctx,
		metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(object.GetUID())})
	if err != nil {
		return nil, err
	}
	sortEvents(list.Items)
	return list.Items, nil
}

func sortEvents(events []corev1.Event) {
	slices.SortStableFunc(events, func(a, b corev1.Event) int {
		return a.LastTimestamp.Compare(b.LastTimestamp.Time)
	})
}

// AwaitEvent waits for an event of the object with the reason and with all phrases in its
// message.
func (e *Env) AwaitEvent(t *testing.T, object metav1.Object, timeout time.Duration, reason string, phrases ...string) corev1.Event {
	t.Helper()
	var found corev1.Event
	e.Await(t, fmt.Sprintf("an event %s with %q", reason, phrases), timeout, func(ctx context.Context) error {
		events, err := e.Events(ctx, object)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(events, func(event corev1.Event) bool {
			return event.Reason == reason && containsAll(event.Message, phrases)
		})
		if i < 0 {
			return fmt.Errorf("none of %d events matches", len(events))
		}
		found = events[i]
		return nil
	}, object)
	return found
}

func containsAll(text string, phrases []string) bool {
	return !slices.ContainsFunc(phrases, func(phrase string) bool { return !strings.Contains(text, phrase) })
}

// AwaitRepeat waits until an event is repeated, which shows that the operation was retried.
func (e *Env) AwaitRepeat(t *testing.T, event corev1.Event) {
	t.Helper()
	e.Await(t, "event "+event.Reason+" once more", Timeout, func(ctx context.Context) error {
		now, err := e.Client.CoreV1().Events(event.Namespace).Get(ctx, event.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.Count <= event.Count {
			return fmt.Errorf("its count is still %d", now.Count)
		}
		return nil
	})
}

// eventsAbout returns the events of objects for the end of an error message.
func (e *Env) eventsAbout(objects []metav1.Object) string {
	ctx, cancel := cleanupContext()
	defer cancel()
	var text strings.Builder
	for _, object := range objects {
		events, err := e.Events(ctx, object)
		if err != nil {
			fmt.Fprintf(&text, "\nno events: %v", err)
		}
		for _, event := range events {
			text.WriteString("\n  " + eventLine(event))
		}
	}
	return text.String()
}

func eventLine(event corev1.Event) string {
	return fmt.Sprintf("%s %s %s/%s (%d times, %s): %s", event.Type, event.Reason,
		event.InvolvedObject.Kind, event.InvolvedObject.Name, max(event.Count, 1), event.Source.Component, event.Message)
}
