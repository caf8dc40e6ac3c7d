package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/prepare"
)

// ErrNotFound means that no lab of this name exists.
var ErrNotFound = errors.New("no such lab")

// validName limits names to what socket paths and namespaces allow.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Options are the directories of a lab. The zero value has the defaults of the command.
type Options struct {
	// RunDir has one temporary directory per lab; /run/rbd-lab by default. It must be short,
	// because Unix sockets are created in it.
	RunDir string
	// StateDir has logs, configuration and disks; /var/tmp/rbd-lab by default.
	StateDir string
	// CacheDir is shared by all labs; ${XDG_CACHE_HOME:-~/.cache}/rbd-provisioner-lab by
	// default.
	CacheDir string
	// Source is the directory of the Go modules that build Kubernetes. By default it is
	// searched from the working directory upwards.
	Source string
	// Kubernetes is the minor release to build and start, such as "1.20"; DefaultKubernetes by
	// default. Only the default has nodes.
	Kubernetes string
	// Out is the writer of the progress lines; nil discards them.
	Out io.Writer
}

// Lab is one lab, running or not.
type Lab struct {
	name     string
	opts     Options
	settings settings
	progress *prepare.Progress
	net      *network
}

// settings are the options of a running lab, stored in lab.json for processes that attach to
// it.
type settings struct {
	StateDir string `json:"stateDir"`
	CacheDir string `json:"cacheDir"`
	// BinDir has the Kubernetes programs, after they are built.
	BinDir string `json:"binDir,omitempty"`
	// Disk is the shared disk below the nodes' own disks, after it is created.
	Disk string `json:"disk,omitempty"`
	// Ceph is the main cluster.
	Ceph CephOptions `json:"ceph"`
	// CephVersion is the requested version of all clusters, or 0.
	CephVersion int `json:"cephVersion,omitempty"`
	// CephRoot has the programs of Ceph, if they are not those of the host.
	CephRoot cephRoot `json:"cephRoot,omitempty"`
}

// New returns a lab without creating anything.
func New(name string, opts Options) (*Lab, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("invalid lab name %q: want 1 to 20 characters of a-z, 0-9 and inner dashes", name)
	}
	if err := opts.complete(); err != nil {
		return nil, err
	}
	return &Lab{
		name:     name,
		opts:     opts,
		settings: settings{StateDir: opts.StateDir, CacheDir: opts.CacheDir},
		progress: prepare.NewProgress(opts.Out, "lab "+name),
		net:      &network{namespace: namespacePrefix + name},
	}, nil
}

// Open attaches to an existing lab. It uses the directories that the lab was created with,
// except for RunDir, which is taken from opts.
func Open(name string, opts Options) (*Lab, error) {
	l, err := New(name, opts)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(l.settingsFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &l.settings); err != nil {
		return nil, fmt.Errorf("read %s: %w", l.settingsFile(), err)
	}
	l.opts.StateDir, l.opts.CacheDir = l.settings.StateDir, l.settings.CacheDir
	return l, nil
}

// List returns the names of running labs and of labs whose start or stop was interrupted.
func List(opts Options) ([]string, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	var names []string
	for _, place := range []struct{ dir, prefix string }{{opts.RunDir, ""}, {namespaceDir, namespacePrefix}} {
		entries, err := os.ReadDir(place.dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			name, found := strings.CutPrefix(entry.Name(), place.prefix)
			if found && validName.MatchString(name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (o *Options) complete() error {
	if o.RunDir == "" {
		o.RunDir = "/run/rbd-lab"
	}
	if o.StateDir == "" {
		o.StateDir = "/var/tmp/rbd-lab"
	}
	if o.CacheDir == "" {
		o.CacheDir = prepare.CacheDir()
	}
	if o.Kubernetes == "" {
		o.Kubernetes = DefaultKubernetes
	}
	for _, dir := range []*string{&o.RunDir, &o.StateDir, &o.CacheDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return nil
}

// Name returns the lab's name.
func (l *Lab) Name() string { return l.name }

// LogDir returns the directory of the logs, one file per component. It is kept after Down.
func (l *Lab) LogDir() string { return l.stateFile("logs") }

// Kubeconfig returns the path of the administrator's kubeconfig.
func (l *Lab) Kubeconfig() string { return l.stateFile("kube", "admin.kubeconfig") }

// Env returns the environment variables that programs need to work with the lab. Append them to
// os.Environ.
func (l *Lab) Env() []string {
	env := []string{
		"RBD_LAB=" + l.name,
		"KUBECONFIG=" + l.Kubeconfig(),
		"CEPH_CONF=" + l.Ceph().ConfFile(),
	}
	if l.settings.BinDir != "" {
		env = append(env, "PATH="+l.settings.BinDir+":"+os.Getenv("PATH"))
	}
	return env
}

func (l *Lab) runFile(elem ...string) string {
	return filepath.Join(append([]string{l.opts.RunDir, l.name}, elem...)...)
}

func (l *Lab) stateFile(elem ...string) string {
	return filepath.Join(append([]string{l.opts.StateDir, l.name}, elem...)...)
}

func (l *Lab) logFile(component string) string {
	return filepath.Join(l.LogDir(), component+".log")
}

func (l *Lab) settingsFile() string { return l.runFile("lab.json") }

func (l *Lab) saveSettings() error {
	data, err := json.MarshalIndent(l.settings, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(l.settingsFile(), append(data, '\n'), 0o644)
}

// create creates the directories and the network of a lab after its remains were removed.
func (l *Lab) create() error {
	if err := os.RemoveAll(l.stateFile()); err != nil {
		return err
	}
	for _, dir := range []string{l.runFile(), l.LogDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The databases in the run directory sync after every write. On a disk, the lab would
	// measure that disk. The tmpfs also has the nodes' memory, of which only the used part is
	// allocated.
	size := fmt.Sprintf("size=%dg,mode=755", (4*gib+maxNodes*nodeMemory)/gib)
	if err := unix.Mount("rbd-lab", l.runFile(), "tmpfs", 0, size); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", l.runFile(), err)
	}
	if err := l.saveSettings(); err != nil {
		return err
	}
	// A User-Mode Linux crashes at boot if the directory of its socket does not exist.
	if err := os.Mkdir(l.runFile("uml"), 0o755); err != nil {
		return err
	}
	return l.net.create()
}

// writeFile writes a file atomically.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
