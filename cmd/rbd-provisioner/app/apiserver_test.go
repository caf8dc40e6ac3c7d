package app

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
)

// apiServer implements what one claim needs of a Kubernetes API server. Tests use it with real clients, so
// that the configuration of the clients is tested.
type apiServer struct {
	*httptest.Server
	// volumes receives each volume that is created.
	volumes chan *corev1.PersistentVolume
	// The user agents and the content types of all requests.
	agents, types sync.Map

	mu    sync.Mutex
	lease *coordinationv1.Lease
	loses bool
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{volumes: make(chan *corev1.PersistentVolume, 10)}
	lists := map[string]apiruntime.Object{
		"/api/v1/persistentvolumeclaims":         &corev1.PersistentVolumeClaimList{Items: []corev1.PersistentVolumeClaim{*exampleClaim("1")}},
		"/api/v1/persistentvolumes":              &corev1.PersistentVolumeList{},
		"/api/v1/nodes":                          &corev1.NodeList{},
		"/apis/storage.k8s.io/v1/storageclasses": &storagev1.StorageClassList{Items: []storagev1.StorageClass{*exampleClass()}},
	}
	mux := http.NewServeMux()
	for path, list := range lists {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("watch") != "" {
				w.Header().Set("Content-Type", "application/json")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done() // there are no events
				return
			}
			answer(t, w, http.StatusOK, list)
		})
	}
	mux.HandleFunc("GET /api/v1/namespaces/kube-system", func(w http.ResponseWriter, _ *http.Request) {
		answer(t, w, http.StatusOK, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "cluster-1"}})
	})
	mux.HandleFunc("GET /api/v1/namespaces/ceph/secrets/key", func(w http.ResponseWriter, _ *http.Request) {
		answer(t, w, http.StatusOK, exampleSecret())
	})
	mux.HandleFunc("POST /api/v1/persistentvolumes", func(w http.ResponseWriter, r *http.Request) {
		volume := s.read(t, r).(*corev1.PersistentVolume)
		s.volumes <- volume
		answer(t, w, http.StatusCreated, volume)
	})
	mux.HandleFunc("POST /api/v1/namespaces/{namespace}/events", func(w http.ResponseWriter, r *http.Request) {
		answer(t, w, http.StatusCreated, s.read(t, r))
	})
	mux.HandleFunc("/apis/coordination.k8s.io/v1/namespaces/rbd/leases", s.serveLease(t))
	mux.HandleFunc("/apis/coordination.k8s.io/v1/namespaces/rbd/leases/ceph.com-rbd", s.serveLease(t))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.agents.Store(r.UserAgent(), true)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) serveLease(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.loses && s.lease != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if r.Method == http.MethodGet {
			if s.lease == nil {
				status := apierrors.NewNotFound(schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, "ceph.com-rbd").Status()
				answer(t, w, http.StatusNotFound, &status)
				return
			}
		} else {
			s.lease = s.read(t, r).(*coordinationv1.Lease)
		}
		answer(t, w, http.StatusOK, s.lease)
	}
}

// loseLease makes all requests for the lease fail after it was acquired.
func (s *apiServer) loseLease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loses = true
}

// holder returns the holder of the lease.
func (s *apiServer) holder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return "no lease"
	}
	return ptr.Deref(s.lease.Spec.HolderIdentity, "")
}

// read decodes the body, whatever its content type.
func (s *apiServer) read(t *testing.T, r *http.Request) apiruntime.Object {
	s.types.Store(r.Header.Get("Content-Type"), true)
	return apptest.Decode(t, r)
}

// answer sends the object with a warning.
func answer(t *testing.T, w http.ResponseWriter, code int, object apiruntime.Object) {
	w.Header().Set("Warning", `299 - "spec.rbd: deprecated in v1.28, non-functional in v1.31+"`)
	apptest.Answer(t, w, code, object)
}
