package lab

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// nodeMemory is the memory size of a node. Only the used part is allocated on the host.
const nodeMemory = 2 * gib

//go:embed node-init.sh
var nodeInit []byte

// Node is a User-Mode Linux with containerd and a kubelet.
type Node struct {
	lab   *Lab
	index int
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// Node returns one of the lab's nodes, counted from 0.
func (l *Lab) Node(i int) *Node { return &Node{lab: l, index: i} }

// Name returns the name of the node in Kubernetes, which is also the name of its daemon.
func (n *Node) Name() string { return nodeName(n.index) }

// IP returns the node's address.
func (n *Node) IP() string { return NodeIP(n.index) }

// CephDir returns the host's directory that all nodes mount at /etc/ceph. A file written there
// is visible on all nodes at once. Its file "keyring" belongs to the client of the main
// cluster's pool.
func (l *Lab) CephDir() string { return l.stateFile("nodes", "etc-ceph") }

// StartNodes boots the first count nodes and imports the images, docker-archive files, into
// their containerd. It waits until pods can be scheduled to the nodes.
func (l *Lab) StartNodes(ctx context.Context, count int, images []string) error {
	disk, err := l.nodeDisk(ctx, images)
	if err != nil {
		return err
	}
	return l.startNodes(ctx, count, disk)
}

func (l *Lab) startNodes(ctx context.Context, count int, disk string) error {
	if count > maxNodes {
		return fmt.Errorf("%d nodes: the maximum is %d", count, maxNodes)
	}
	return l.progress.Step(ctx, fmt.Sprintf("starting the nodes (%d)", count), func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for i := range count {
			group.Go(func() error { return l.Node(i).start(ctx, disk) })
		}
		return group.Wait()
	})
}

func (n *Node) start(ctx context.Context, disk string) error {
	if err := n.configure(); err != nil {
		return err
	}
	// The disk is a copy-on-write file on top of the shared disk with the images.
	kernel, err := n.lab.startDaemon(ctx, umlSpec(n.lab, n.Name(), n.file(),
		"ubd0="+n.file("disk.cow")+","+disk,
		// The hardware address must not change between starts: neighbours cache it.
		fmt.Sprintf("eth0=tuntap,%s,02:00:0a:6f:00:%02x,", tap(n.index), 10+n.index)))
	if err != nil {
		return err
	}
	return kernel.awaitReady(ctx, 3*time.Minute, n.ready)
}

// WaitReady waits until pods can be scheduled to the node, for example after a restart of its
// daemon.
func (n *Node) WaitReady(ctx context.Context, timeout time.Duration) error {
	kernel, err := n.lab.Daemon(n.Name())
	if err != nil {
		return err
	}
	return kernel.awaitReady(ctx, timeout, n.ready)
}

// umlSpec describes a User-Mode Linux with the init script in directory dir and the given
// devices. It has three log files: console, kubelet and containerd.
func umlSpec(l *Lab, name, dir string, devices ...string) daemonSpec {
	sockets := l.runFile("uml")
	argv := []string{"/usr/bin/linux.uml",
		fmt.Sprintf("mem=%dM", nodeMemory>>20),
		"rootfstype=hostfs", "rootflags=/", "ro", "init=" + dir + "/init",
		"con=null", "con0=null,fd:1", "ssl=null", "ssl0=null,fd:3", "ssl1=null,fd:4",
		"uml_dir=" + sockets, "umid=" + name,
		"quiet", "panic=-1",
	}
	isolate := []string{"/bin/sh", "-ec", isolateScript, "isolate", l.runFile(), l.stateFile(), l.opts.CacheDir, "--"}
	return daemonSpec{
		Name:     name,
		Argv:     slices.Concat(isolate, argv, devices),
		Isolated: true,
		// The memory of a User-Mode Linux is a file in TMPDIR.
		Env:    []string{"TMPDIR=" + l.runFile()},
		Log:    l.logFile(name + ".console"),
		Logs:   []string{l.logFile(name + ".kubelet"), l.logFile(name + ".containerd")},
		Remove: []string{filepath.Join(sockets, name)},
	}
}

// isolateScript makes all but the given directories read-only for a User-Mode Linux, in a mount
// namespace of its own. This protects the host if the User-Mode Linux crashes, because the
// programs inside it then run on the host. See killProcess.
const isolateScript = `
keep=
while [ "$1" != -- ]; do
	mount --bind "$1" "$1"
	keep="$keep $1"
	shift
done
shift
while read -r _ point _; do
	case " $keep /proc /sys /dev " in
	*" $point "*) ;;
	*) mount -o remount,bind,ro "$point" 2>/dev/null || : ;;
	esac
done </proc/self/mounts
exec "$@"
`

func (n *Node) file(elem ...string) string {
	return n.lab.stateFile(append([]string{"nodes", n.Name()}, elem...)...)
}

// configure writes the files that the init script reads from its own directory.
func (n *Node) configure() error {
	cp := n.lab.ControlPlane()
	kubeconfig, err := os.ReadFile(cp.kubeconfig("system:node:" + n.Name()))
	if err != nil {
		return err
	}
	env := fmt.Sprintf("node=%s\naddress=%s\ngateway=%s\nkubelet=%s\n", n.Name(), n.IP(), HostIP, cp.program("kubelet"))
	if err := os.MkdirAll(n.lab.CephDir(), 0o755); err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{"init", nodeInit, 0o755},
		{"env", []byte(env), 0o644},
		{"kubeconfig", kubeconfig, 0o600},
		{"kubelet.yaml", []byte(kubeletConfig(cp.pki().cert("ca"))), 0o644},
		{"containerd.toml", []byte(containerdConfig), 0o644},
		{"cni.conflist", []byte(cniConfig(n.index)), 0o644},
	} {
		if err := writeFile(n.file(file.name), file.data, file.mode); err != nil {
			return err
		}
	}
	return nil
}

// ready returns nil if the node is Ready and has no taints. The API reports this for a while
// also of a node that has just died, so the kubelet must listen as well.
func (n *Node) ready(ctx context.Context) error {
	conn, err := n.lab.Dial(ctx, "tcp", n.IP()+":10250")
	if err != nil {
		return fmt.Errorf("the kubelet does not listen: %w", err)
	}
	_ = conn.Close()
	data, err := n.lab.get(ctx, "/api/v1/nodes/"+n.Name())
	if err != nil {
		return err
	}
	return nodeReady(data)
}

func nodeReady(data []byte) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(data, &node); err != nil {
		return err
	}
	for _, taint := range node.Spec.Taints {
		return fmt.Errorf("the node has the taint %s", taint.Key)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != "Ready" {
			continue
		}
		if condition.Status == "True" {
			return nil
		}
		return fmt.Errorf("the node is not ready: %s", condition.Message)
	}
	return errors.New("the node has not reported its condition")
}
