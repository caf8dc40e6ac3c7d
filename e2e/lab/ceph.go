package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// CephOptions describe a Ceph cluster. The zero value is the lab's main one.
type CephOptions struct {
	// Name distinguishes further clusters from the main one: their daemons are called
	// NAME.mon.a and so on.
	Name string
	// Port and PortV2 are the monitor's ports for messenger v1 and v2. The defaults are 6789
	// and 3300. Clusters in the same lab must differ in both.
	Port, PortV2 int
	// OSDBytes is the capacity that the OSD reports. Only written data takes memory.
	OSDBytes int64
	// Durable keeps the objects in a file (BlueStore), not in memory (MemStore), so that they
	// survive a kill of the OSD. It is slower.
	Durable bool
	// Pool is created and initialised for rbd; "kube" by default.
	Pool string
}

// Ceph is one Ceph cluster of the lab.
type Ceph struct {
	lab  *Lab
	opts CephOptions
}

// Ceph returns the lab's main cluster.
func (l *Lab) Ceph() *Ceph { return l.CephCluster(l.settings.Ceph) }

// CephCluster returns a cluster of the lab. Additional clusters have a name.
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

// SecondCeph returns a second cluster, which shares only the host with the main one.
func (l *Lab) SecondCeph() *Ceph {
	return l.CephCluster(CephOptions{Name: "second", Port: 6790, PortV2: 3301})
}

// Pool returns the pool that the cluster is created with.
func (c *Ceph) Pool() string { return c.opts.Pool }

// Monitors returns the monitors' addresses in the format of the kernel client and a
// PersistentVolume.
func (c *Ceph) Monitors() []string {
	return []string{fmt.Sprintf("%s:%d", HostIP, c.opts.Port)}
}

// ConfFile returns the path of a ceph.conf that gives access as client.admin.
func (c *Ceph) ConfFile() string { return c.file("ceph.conf") }

// Keyring returns the path of the keyring of an entity such as "client.kube".
func (c *Ceph) Keyring(entity string) string { return c.file("ceph." + entity + ".keyring") }

// Key returns the secret of an entity such as "client.kube".
func (c *Ceph) Key(ctx context.Context, entity string) (string, error) {
	out, err := c.output(ctx, "ceph", "-c", c.ConfFile(), "--connect-timeout", "15", "auth", "print-key", entity)
	return strings.TrimSpace(string(out)), err
}

// Daemon returns one of the cluster's daemons, such as "osd.0".
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

// Start creates a new cluster and waits until its pool is usable.
func (c *Ceph) Start(ctx context.Context) error {
	return c.lab.progress.Step(ctx, "starting "+c.what(), func(ctx context.Context) error {
		for _, step := range []func(context.Context) error{c.configure, c.startMonitor, c.startManagerAndOSD, c.makePool, c.checkVersion} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Ceph) what() string {
	if c.opts.Name == "" {
		return "Ceph"
	}
	return "Ceph " + c.opts.Name
}

// Stop stops the cluster's daemons.
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

// configure writes ceph.conf and the keyrings and creates the monitor's database.
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
	if _, err := c.output(ctx, "monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", addresses, monmap); err != nil {
		return err
	}
	_, err = c.output(ctx, "ceph-mon", "-c", c.ConfFile(), "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", c.file("all.keyring"))
	return err
}

// shareKeyring copies the pool client's keyring to the nodes, to the path that a
// PersistentVolume without a secret uses.
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
	return mon.awaitReady(ctx, time.Minute, func(ctx context.Context) error {
		_, err := c.output(ctx, "ceph", "-c", c.ConfFile(), "--connect-timeout", "5", "mon", "stat")
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
	if _, err := c.output(ctx, "ceph", "-c", c.ConfFile(), "osd", "new", uuid); err != nil {
		return err
	}
	if _, err := c.output(ctx, "ceph-osd", "-c", c.ConfFile(), "-i", "0", "--mkfs", "--osd-uuid", uuid); err != nil {
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
	if _, err := c.output(ctx, "ceph", "-c", c.ConfFile(), "osd", "pool", "create", c.opts.Pool, "32"); err != nil {
		return osd.withLog(err)
	}
	// The command waits for the placement groups, and so for the OSD.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err = c.output(ctx, "rbd", "-c", c.ConfFile(), "pool", "init", c.opts.Pool)
	return osd.withLog(err)
}

func (c *Ceph) start(ctx context.Context, name, program string, args ...string) (*Daemon, error) {
	return c.lab.startDaemon(ctx, daemonSpec{
		Name: c.daemon(name),
		Argv: c.lab.settings.CephRoot.command(append([]string{"/usr/bin/" + program, "-f", "-c", c.ConfFile()}, args...)...),
		Log:  c.lab.logFile(c.daemon(name)),
	})
}

// output runs a command of the cluster's version and returns its output.
func (c *Ceph) output(ctx context.Context, argv ...string) ([]byte, error) {
	argv = c.lab.settings.CephRoot.command(argv...)
	return c.lab.output(ctx, argv[0], argv[1:]...)
}

// checkVersion checks that the daemons have the requested version, so that no test runs on
// another one.
func (c *Ceph) checkVersion(ctx context.Context) error {
	if c.lab.settings.CephVersion == 0 {
		return nil
	}
	out, err := c.output(ctx, "ceph", "-c", c.ConfFile(), "versions", "--format", "json")
	if err != nil {
		return err
	}
	version, err := versionOf(out, c.lab.settings.CephVersion)
	if err == nil {
		c.lab.progress.Printf("%s has %s", c.what(), version)
	}
	return err
}

// versionOf returns the version of monitor and OSD in the output of `ceph versions`. Its first
// number must be major.
func versionOf(versions []byte, major int) (string, error) {
	var found struct{ Mon, OSD map[string]int }
	if err := json.Unmarshal(versions, &found); err != nil {
		return "", fmt.Errorf("`ceph versions` printed %q: %w", versions, err)
	}
	names := slices.Sorted(maps.Keys(found.Mon))
	if len(names) != 1 || !maps.Equal(found.Mon, found.OSD) || !strings.HasPrefix(names[0], fmt.Sprintf("ceph version %d.", major)) {
		return "", fmt.Errorf("want version %d of Ceph, but the monitor has %v and the OSD has %v", major, found.Mon, found.OSD)
	}
	return names[0], nil
}

// logPattern returns the path of the daemons' logs; Ceph replaces $name by the daemon's name.
func (c *Ceph) logPattern() string {
	return filepath.Join(c.lab.LogDir(), c.daemon("$name")+".log")
}
