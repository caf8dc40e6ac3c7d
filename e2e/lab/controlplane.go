package lab

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// ControlPlaneOptions configure the control plane. The zero value matches a cluster that runs
// the stock images.
type ControlPlaneOptions struct {
	// RBDInControllerManager adds the rbd command to the controller manager's PATH. The in-tree
	// class kubernetes.io/rbd needs it to provision, and the stock image has none.
	RBDInControllerManager bool
	// StockQPS keeps the controller manager's default of 20 requests per second, which limits
	// every provisioner to 2.6 bound claims per second.
	StockQPS bool
	// ControllerManagerArgs and APIServerArgs are appended.
	ControllerManagerArgs, APIServerArgs []string
}

// ControlPlane is etcd and the Kubernetes servers.
type ControlPlane struct {
	lab *Lab
}

// ControlPlane returns the lab's control plane.
func (l *Lab) ControlPlane() *ControlPlane { return &ControlPlane{lab: l} }

func (cp *ControlPlane) file(elem ...string) string {
	return cp.lab.stateFile(append([]string{"kube"}, elem...)...)
}

func (cp *ControlPlane) pki() pki { return pki(cp.file("pki")) }

// kubeconfig returns the path of a user's kubeconfig.
func (cp *ControlPlane) kubeconfig(user string) string {
	return cp.file(fileName(user) + ".kubeconfig")
}

func (cp *ControlPlane) tokenFile(user string) string {
	return cp.file(fileName(user) + ".token")
}

// fileName returns the part of a user's name that is usable in a path.
func fileName(user string) string {
	return user[strings.LastIndexByte(user, ':')+1:]
}

// Start starts the servers on an empty database. It waits until the API is ready and the
// controllers have created the first ServiceAccount.
func (cp *ControlPlane) Start(ctx context.Context, opts ControlPlaneOptions) error {
	return cp.lab.progress.Step(ctx, "starting the control plane", func(ctx context.Context) error {
		if err := cp.pki().create(); err != nil {
			return err
		}
		if err := cp.writeUsers(); err != nil {
			return err
		}
		if err := cp.startEtcd(ctx); err != nil {
			return err
		}
		if err := cp.startAPIServer(ctx, opts); err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return cp.startControllerManager(ctx, opts) })
		group.Go(func() error { return cp.startScheduler(ctx) })
		return group.Wait()
	})
}

func (cp *ControlPlane) startEtcd(ctx context.Context) error {
	_, err := cp.lab.startDaemon(ctx, daemonSpec{
		Name: "etcd",
		Argv: []string{"/usr/bin/etcd",
			"--name=lab",
			// It is on the tmpfs of the run directory, where sync costs nothing.
			"--data-dir=" + cp.lab.runFile("etcd"),
			"--listen-client-urls=http://127.0.0.1:2379",
			"--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=lab=http://127.0.0.1:2380",
			"--quota-backend-bytes=2147483648",
			"--auto-compaction-mode=periodic", "--auto-compaction-retention=1h",
			"--logger=zap", "--log-level=warn",
		},
	})
	return err
}

// auditPolicy makes the API server log which role allowed each request. Only the service
// account of deploy/base matters.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:kube-system:rbd-provisioner"]
`

func (cp *ControlPlane) startAPIServer(ctx context.Context, opts ControlPlaneOptions) error {
	pki := cp.pki()
	policy := cp.file("audit-policy.yaml")
	if err := writeFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	argv := []string{cp.program("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address=" + HostIP,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file=" + pki.cert("apiserver"), "--tls-private-key-file=" + pki.key("apiserver"),
		"--client-ca-file=" + pki.cert("ca"),
		"--token-auth-file=" + cp.file("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki.key("service-account"),
		"--service-account-signing-key-file=" + pki.key("service-account"),
		"--kubelet-client-certificate=" + pki.cert("kubelet-client"),
		"--kubelet-client-key=" + pki.key("kubelet-client"),
		// Node names cannot be resolved.
		"--kubelet-preferred-address-types=InternalIP",
		"--allow-privileged=true",
		"--audit-policy-file=" + policy, "--audit-log-path=" + cp.lab.logFile("kube-apiserver-audit"),
		"--cert-dir=" + cp.lab.runFile("kube-apiserver"),
		"--shutdown-delay-duration=0s",
	}
	apiserver, err := cp.lab.startDaemon(ctx, daemonSpec{Name: "kube-apiserver", Argv: append(argv, opts.APIServerArgs...)})
	if err != nil {
		return err
	}
	return apiserver.awaitReady(ctx, 90*time.Second, func(ctx context.Context) error {
		_, err := cp.lab.get(ctx, "/readyz")
		return err
	})
}

func (cp *ControlPlane) startControllerManager(ctx context.Context, opts ControlPlaneOptions) error {
	pki := cp.pki()
	path := cp.file("empty-path")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if opts.RBDInControllerManager {
		path = "/usr/sbin:/usr/bin:/sbin:/bin"
	}
	argv := []string{cp.program("kube-controller-manager"),
		"--kubeconfig=" + cp.kubeconfig(controllerManager),
		"--authentication-kubeconfig=" + cp.kubeconfig(controllerManager),
		"--authorization-kubeconfig=" + cp.kubeconfig(controllerManager),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + pki.key("service-account"),
		"--root-ca-file=" + pki.cert("ca"),
		"--cluster-signing-cert-file=" + pki.cert("ca"), "--cluster-signing-key-file=" + pki.key("ca"),
		"--leader-elect=false",
		"--bind-address=127.0.0.1", "--cert-dir=" + cp.lab.runFile("kube-controller-manager"),
	}
	if !opts.StockQPS {
		argv = append(argv, "--kube-api-qps=2000", "--kube-api-burst=4000")
	}
	kcm, err := cp.lab.startDaemon(ctx, daemonSpec{
		Name: "kube-controller-manager",
		Argv: append(argv, opts.ControllerManagerArgs...),
		Env:  []string{"PATH=" + path},
	})
	if err != nil {
		return err
	}
	return kcm.awaitReady(ctx, time.Minute, func(ctx context.Context) error {
		_, err := cp.lab.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
		return err
	})
}

func (cp *ControlPlane) startScheduler(ctx context.Context) error {
	_, err := cp.lab.startDaemon(ctx, daemonSpec{
		Name: "kube-scheduler",
		Argv: []string{cp.program("kube-scheduler"),
			"--kubeconfig=" + cp.kubeconfig(scheduler),
			"--authentication-kubeconfig=" + cp.kubeconfig(scheduler),
			"--authorization-kubeconfig=" + cp.kubeconfig(scheduler),
			"--leader-elect=false",
			"--bind-address=127.0.0.1", "--cert-dir=" + cp.lab.runFile("kube-scheduler"),
		},
	})
	return err
}

func (cp *ControlPlane) program(name string) string {
	return filepath.Join(cp.lab.settings.BinDir, name)
}
