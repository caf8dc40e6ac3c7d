package app

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/cmd/rbd-provisioner/app/apptest"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil/rbdfake"
)

// reportingStore is a fake Ceph. When the program closes it, it prints its options and its images.
type reportingStore struct {
	*rbdfake.Ceph
	options StoreOptions
}

func newReportingStore(o StoreOptions) Store {
	s := &reportingStore{rbdfake.New("kube"), o}
	s.Limiter = o.Limiter
	if os.Getenv(asBlocklisted) != "" {
		s.Before = func(_ context.Context, op string, _ rbdutil.Cluster, _ rbdutil.ImageRef) error {
			if op == rbdfake.OpCreate {
				o.Blocklisted(fmt.Errorf("create image: %w", rbdutil.ErrBlocklisted))
			}
			return nil
		}
	}
	return s
}

// asBlocklisted is an environment variable that makes the fake Ceph reject the program as blocklisted.
const asBlocklisted = "RBD_PROVISIONER_TEST_BLOCKLISTED"

func (s *reportingStore) Close() {
	_, _ = fmt.Fprintln(os.Stdout, "closed, with a timeout of", s.options.Timeout)
	for _, name := range s.Names() {
		_, image, _ := strings.Cut(name, "/")
		img, err := s.Get(context.Background(), rbdutil.Cluster{}, rbdutil.ImageRef{Pool: "kube", Name: image})
		_, _ = fmt.Fprintln(os.Stdout, name, "of", img.Owner(), "in", img.Owner().ClusterID, err)
	}
}

// program runs the program in a separate process.
type program struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := prepare(t, args...)
	p.start(t)
	return p
}

// prepare returns a program that is not started yet.
func prepare(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), apptest.Patience)
	p := &program{Cmd: exec.CommandContext(ctx, os.Args[0], args...)}
	p.Env = []string{asProgram + "=1", "GORACE=atexit_sleep_ms=0"}
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	t.Cleanup(cancel)
	return p
}

func (p *program) start(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait() // the test has not waited if it has failed
	})
}

// wantExit waits for the end of the program and checks its exit code.
func (p *program) wantExit(t *testing.T, want int) {
	t.Helper()
	err := p.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
	if got := p.ProcessState.ExitCode(); got != want {
		t.Errorf("exit code %d, want %d, with the log:\n%s", got, want, &p.stderr)
	}
}

// serving returns the arguments for a program that uses the API server.
func serving(api *apiServer, more ...string) []string {
	return append([]string{
		"--master=" + api.URL, "--http-endpoint=127.0.0.1:0", "--timeout=20s",
		"--leader-election-namespace=rbd",
	}, more...)
}

func TestProvisioningAndACleanStop(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			api := newAPIServer(t)
			program := start(t, serving(api)...)
			volume := apptest.Await(t, "the volume", api.volumes)
			if volume.Name != "pvc-1" || volume.Spec.RBD == nil || volume.Spec.RBD.RBDImage != "kubernetes-dynamic-pvc-1" {
				t.Errorf("volume %+v", volume)
			}
			if host, _ := os.Hostname(); !strings.HasPrefix(api.holder(), host+"_") {
				t.Errorf("the lease is held by %q", api.holder())
			}
			if err := program.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			program.wantExit(t, 0)
			if got := api.holder(); got != "" {
				t.Errorf("the lease is still held by %q", got)
			}
			// Calls of Ceph have half of the timeout. The cluster ID is the UID of kube-system.
			want := "closed, with a timeout of 10s\nkube/kubernetes-dynamic-pvc-1 of claim shop/www-1 in cluster-1 <nil>\n"
			if got := program.stdout.String(); got != want {
				t.Errorf("stdout %q, want %q", got, want)
			}
			// The API server sends the warning with every response.
			if got := strings.Count(program.stderr.String(), "spec.rbd: deprecated in v1.28"); got != 1 {
				t.Errorf("the warning of the API server was logged %d times:\n%s", got, &program.stderr)
			}
			api.wantClients(t)
		})
	}
}

// wantClients checks the user agent and the content type of all requests.
func (s *apiServer) wantClients(t *testing.T) {
	t.Helper()
	s.agents.Range(func(agent, _ any) bool {
		if agent != "rbd-provisioner/"+version {
			t.Errorf("user agent %q", agent)
		}
		return true
	})
	s.types.Range(func(contentType, _ any) bool {
		if contentType != "application/vnd.kubernetes.protobuf" {
			t.Errorf("content type %s, want the more efficient protobuf", contentType)
		}
		return true
	})
}

func TestNoVerbosityLogsASecret(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			api := newAPIServer(t)
			program := start(t, serving(api, "-v=8", "--logging-format="+format)...)
			apptest.Await(t, "the volume", api.volumes)
			if err := program.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			program.wantExit(t, 0)
			log := program.stderr.String()
			// The log has requests, but not their bodies.
			for _, want := range []string{"/api/v1/namespaces/ceph/secrets/key", "Response Body: not shown", "Request Body: not shown"} {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q: perhaps client-go does not log bodies as it did", want)
				}
			}
			for _, part := range []string{exampleKey[:8], base64.StdEncoding.EncodeToString([]byte(exampleKey))[:8]} {
				if i := strings.Index(log, part); i >= 0 {
					t.Errorf("the log contains the key: …%s…", log[max(0, i-200):min(len(log), i+100)])
				}
			}
		})
	}
}

func TestTheProgramExitsIfItsLeaseIsLost(t *testing.T) {
	t.Parallel()
	api := newAPIServer(t)
	api.loseLease()
	program := start(t, serving(api, "--leader-election-lease-duration=1s",
		"--leader-election-renew-deadline=400ms", "--leader-election-retry-period=10ms")...)
	program.wantExit(t, 1)
	if log := program.stderr.String(); !strings.Contains(log, "the lease was lost: it could not be renewed in time") {
		t.Errorf("the log does not have the reason:\n%s", log)
	}
	program.wantNothingClosed(t)
}

func TestABlocklistedProgramExits(t *testing.T) {
	t.Parallel()
	api := newAPIServer(t)
	program := prepare(t, serving(api)...)
	program.Env = append(program.Env, asBlocklisted+"=1")
	program.start(t)
	program.wantExit(t, 1)
	for _, want := range []string{"client is on Ceph's blocklist", "`ceph osd blocklist ls`"} {
		if log := program.stderr.String(); !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	program.wantNothingClosed(t)
	if api.holder() == "" {
		t.Error("the lease was released")
	}
}

// wantNothingClosed checks that the program has not closed its store, as it does at a clean stop.
func (p *program) wantNothingClosed(t *testing.T) {
	t.Helper()
	if got := p.stdout.String(); got != "" {
		t.Errorf("output before the exit: %s", got)
	}
}

// TestALeaderExitsIfItsLogBlocks: client-go logs that a renewal has failed before it reports the loss, but
// the pipe of the log is full.
func TestALeaderExitsIfItsLogBlocks(t *testing.T) {
	t.Parallel()
	api := newAPIServer(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	filled := make(chan struct{})
	t.Cleanup(func() {
		_ = read.Close()
		<-filled
		_ = write.Close()
	})
	program := prepare(t, serving(api, "--leader-election-lease-duration=2s",
		"--leader-election-renew-deadline=1s", "--leader-election-retry-period=10ms")...)
	program.Stderr = write
	program.start(t)
	apptest.Await(t, "the volume", api.volumes)
	go func() {
		defer close(filled)
		_, _ = write.Write(make([]byte, 1<<20)) // fills the pipe, and returns when the pipe is closed
	}()
	api.loseLease()
	program.wantExit(t, 1)
}

func TestFailuresToStart(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, test := range map[string]struct {
		args []string
		log  string
	}{
		"the port is in use": {[]string{"--master=http://127.0.0.1:1", "--http-endpoint=" + listener.Addr().String()},
			"serve metrics and health (--http-endpoint): listen tcp"},
		"the kubeconfig is missing": {[]string{"--kubeconfig=/lost", "--http-endpoint="},
			"configure the Kubernetes client (outside a cluster, set --kubeconfig): stat /lost: no such file or directory"},
	} {
		program := start(t, test.args...)
		program.wantExit(t, 1)
		if log := program.stderr.String(); !strings.Contains(log, test.log) {
			t.Errorf("%s: the log does not have the reason:\n%s", name, log)
		}
	}
}

func TestAStopWhileWaitingForTheAPIServer(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	program := start(t, "--master=http://"+listener.Addr().String(), "--http-endpoint=")
	// The program sends a request, and the server closes the connection.
	connection, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(connection, make([]byte, 3)); err != nil {
		t.Error(err)
	}
	_ = connection.Close()
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	program.wantExit(t, 0)
	if want := "closed, with a timeout of 15s\n"; program.stdout.String() != want {
		t.Errorf("stdout %q, want %q", &program.stdout, want)
	}
}
