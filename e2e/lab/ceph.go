package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CephOptions describe a Ceph cluster. The zero value is the lab's main one.
type CephOptions struct {
	// Name sets further clusters apart from the main one: their daemons are called
	// NAME.mon.a and so on.
	Name string
	// Port and PortV2 are the monitor's, for the first and the second protocol;
	// 6789 and 3300 by default. Clusters in the same lab must differ in both.
	Port, PortV2 int
	// OSDBytes is how much the OSD says that it holds. What is written takes
	// memory; the rest costs nothing.
	OSDBytes int64
	// Durable keeps the objects in a file (BlueStore) and not in memory (MemStore),
	// so that they are still there after the OSD was killed. It is slower.
	Durable bool
	// Pool is made and initialised for rbd; "kube" by default.
	Pool string
}

// Ceph is one Ceph cluster of the lab.
type Ceph struct {
	lab  *Lab
	opts CephOptions
}

// Ceph is the lab's main cluster.
func (l *Lab) Ceph() *Ceph { return l.CephCluster(l.settings.Ceph) }

// CephCluster is a cluster of the lab, one of several when it has a name.
func (l *Lab) CephCluster(opts CephOptions) *Ceph {
	if opts.Port == 0 {
		opts.Port = 6789
	}
	if opts.PortV2 == 0 {
		opts.PortV2 = 3300
	}
	if opts.OSDBytes == 0 {
		opts.OSDBytes = 64 * gib
	}
	if opts.Pool == "" {
		opts.Pool = "kube"
	}
	return &Ceph{lab: l, opts: opts}
}

// SecondCeph is a second cluster, with nothing in common with the main one but
// the host.
func (l *Lab) SecondCeph() *Ceph {
	return l.CephCluster(CephOptions{Name: "second", Port: 6790, PortV2: 3301})
}

// Pool is the pool that the cluster is made with.
func (c *Ceph) Pool() string { return c.opts.Pool }

// Monitors are the monitors' addresses as the kernel's client and a PV want them.
func (c *Ceph) Monitors() []string {
	return []string{fmt.Sprintf("%s:%d", HostIP, c.opts.Port)}
}

// ConfFile is the path of a ceph.conf with which its reader is client.admin.
func (c *Ceph) ConfFile() string { return c.file("ceph.conf") }

// Keyring is the path of the keyring of an entity such as "client.kube".
func (c *Ceph) Keyring(entity string) string { return c.file("ceph." + entity + ".keyring") }

// Key is the secret of an entity such as "client.kube".
func (c *Ceph) Key(ctx context.Context, entity string) (string, error) {
	out, err := c.lab.output(ctx, "ceph", "-c", c.ConfFile(), "--connect-timeout", "15", "auth", "print-key", entity)
	return strings.TrimSpace(string(out)), err
}

// Daemon finds one of the cluster's daemons, such as "osd.0".
func (c *Ceph) Daemon(name string) (*Daemon, error) { return c.lab.Daemon(c.daemon(name)) }

func (c *Ceph) daemon(name string) string {
	if c.opts.Name == "" {
		return name
	}
	return c.opts.Name + "." + name
}

func (c *Ceph) file(elem ...string) string {
	return c.lab.stateFile(append([]string{c.dir()}, elem...)...)
}

func (c *Ceph) runFile(elem ...string) string {
	return c.lab.runFile(append([]string{c.dir()}, elem...)...)
}

func (c *Ceph) dir() string {
	if c.opts.Name == "" {
		return "ceph"
	}
	return "ceph-" + c.opts.Name
}

// Start makes a new cluster and waits until its pool can be used.
func (c *Ceph) Start(ctx context.Context) error {
	what := "Ceph"
	if c.opts.Name != "" {
		what += " " + c.opts.Name
	}
	return c.lab.progress.Step(ctx, "starting "+what, func(ctx context.Context) error {
		for _, step := range []func(context.Context) error{c.configure, c.startMonitor, c.startManagerAndOSD, c.makePool} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// Stop ends the cluster's daemons.
func (c *Ceph) Stop(ctx context.Context) error {
	for _, name := range []string{"osd.0", "mgr.x", "mon.a"} {
		d, err := c.Daemon(name)
		if err != nil {
			return err
		}
		if !d.Running() {
			continue
		}
		if err := d.Terminate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// configure writes ceph.conf and the keyrings and makes the monitor's database.
func (c *Ceph) configure(ctx context.Context) error {
	for _, dir := range []string{c.file("osd.0"), c.file("mgr.x"), c.runFile("mon.a")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	fsid, err := newUUID()
	if err != nil {
		return err
	}
	if err := writeFile(c.ConfFile(), []byte(c.conf(fsid)), 0o644); err != nil {
		return err
	}
	if err := c.writeKeyrings(); err != nil {
		return err
	}
	if c.opts.Name == "" {
		if err := c.shareKeyring(); err != nil {
			return err
		}
	}
	monmap := c.file("monmap")
	addresses := fmt.Sprintf("[v2:%s:%d,v1:%s:%d]", HostIP, c.opts.PortV2, HostIP, c.opts.Port)
	if _, err := c.lab.output(ctx, "monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", addresses, monmap); err != nil {
		return err
	}
	_, err = c.lab.output(ctx, "ceph-mon", "-c", c.ConfFile(), "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", c.file("all.keyring"))
	return err
}

// shareKeyring gives the nodes the pool client's keyring, at the place where a PV
// without a secret has it.
func (c *Ceph) shareKeyring() error {
	keyring, err := os.ReadFile(c.Keyring("client." + c.opts.Pool))
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.lab.CephDir(), "keyring"), keyring, 0o600)
}

func (c *Ceph) startMonitor(ctx context.Context) error {
	mon, err := c.start(ctx, "mon.a", "ceph-mon", "-i", "a")
	if err != nil {
		return err
	}
	return mon.until(ctx, time.Minute, func(ctx context.Context) error {
		_, err := c.lab.output(ctx, "ceph", "-c", c.ConfFile(), "--connect-timeout", "5", "mon", "stat")
		return err
	})
}

func (c *Ceph) startManagerAndOSD(ctx context.Context) error {
	if _, err := c.start(ctx, "mgr.x", "ceph-mgr", "-i", "x"); err != nil {
		return err
	}
	uuid, err := newUUID()
	if err != nil {
		return err
	}
	if _, err := c.lab.output(ctx, "ceph", "-c", c.ConfFile(), "osd", "new", uuid); err != nil {
		return err
	}
	if _, err := c.lab.output(ctx, "ceph-osd", "-c", c.ConfFile(), "-i", "0", "--mkfs", "--osd-uuid", uuid); err != nil {
		return err
	}
	_, err = c.start(ctx, "osd.0", "ceph-osd", "-i", "0")
	return err
}

func (c *Ceph) makePool(ctx context.Context) error {
	osd, err := c.Daemon("osd.0")
	if err != nil {
		return err
	}
	if _, err := c.lab.output(ctx, "ceph", "-c", c.ConfFile(), "osd", "pool", "create", c.opts.Pool, "32"); err != nil {
		return osd.explain(err)
	}
	// This waits until the placement groups are there, hence for the OSD.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err = c.lab.output(ctx, "rbd", "-c", c.ConfFile(), "pool", "init", c.opts.Pool)
	return osd.explain(err)
}

func (c *Ceph) start(ctx context.Context, name, program string, args ...string) (*Daemon, error) {
	return c.lab.startDaemon(ctx, daemonSpec{
		Name: c.daemon(name),
		Argv: append([]string{"/usr/bin/" + program, "-f", "-c", c.ConfFile()}, args...),
		Log:  c.lab.logFile(c.daemon(name)),
	})
}

// logPattern is where Ceph writes a daemon's log; $name is the daemon's name.
func (c *Ceph) logPattern() string {
	return filepath.Join(c.lab.LogDir(), c.daemon("$name")+".log")
}
