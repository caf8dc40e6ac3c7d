// Package apptest has what the tests of app and of its packages share.
package apptest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Patience limits the waits of a test. It matters only for tests that fail.
const Patience = 30 * time.Second

// Await returns the next value of a channel, or fails the test.
func Await[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(Patience):
		t.Fatalf("timed out waiting for %s", what)
		panic("unreachable") //nolint:forbidigo // Fatalf has ended the test
	}
}

// Decode decodes the body of a request, whatever its content type.
func Decode(t *testing.T, r *http.Request) runtime.Object {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	return object
}

// Answer sends the object and sets its type.
func Answer(t *testing.T, w http.ResponseWriter, code int, object runtime.Object) {
	object = object.DeepCopyObject()
	kinds, _, err := scheme.Scheme.ObjectKinds(object)
	if err != nil {
		t.Error(err)
		return
	}
	object.GetObjectKind().SetGroupVersionKind(kinds[0])
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(object); err != nil && !strings.Contains(err.Error(), "broken pipe") {
		t.Error(err)
	}
}
