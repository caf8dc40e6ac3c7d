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

// ErrNotFound says that there is no lab of the wanted name.
var ErrNotFound = errors.New("no such lab")

// validName keeps names short enough for socket paths and fit for a namespace.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Options say where a lab keeps its things. The zero value is what the command
// uses.
type Options struct {
	// RunDir holds one short-lived directory per lab; /run/rbd-lab by default.
	// Unix sockets are made in it: keep it short.
	RunDir string
	// StateDir holds logs, configuration and disks; /var/tmp/rbd-lab by default.
	StateDir string
	// CacheDir holds what all labs share; by default
	// ${XDG_CACHE_HOME:-~/.cache}/rbd-provisioner-lab.
	CacheDir string
	// Source is the directory of the Go module that builds Kubernetes. By default
	// it is looked for from the working directory upwards.
	Source string
	// Out receives the progress lines; nil discards them.
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

// settings are what a running lab was brought up with, as lab.json keeps them
// for those that attach later.
type settings struct {
	StateDir string `json:"stateDir"`
	CacheDir string `json:"cacheDir"`
	// BinDir has the Kubernetes programs, once they are there.
	BinDir string `json:"binDir,omitempty"`
	// Disk is below the nodes' own disks, once it is there.
	Disk string `json:"disk,omitempty"`
	// Ceph is the main cluster.
	Ceph CephOptions `json:"ceph"`
}

// New describes a lab. It touches nothing.
func New(name string, opts Options) (*Lab, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("lab name %q: want 1 to 20 of a-z, 0-9 and dashes inside", name)
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

// Open attaches to a lab that was brought up before, by this process or another.
// The directories of opts give way to those that the lab was made with, except
// for RunDir.
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

// List names the labs of which something is left: running ones, and the remains
// of those that were interrupted.
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

// Name is the lab's name.
func (l *Lab) Name() string { return l.name }

// LogDir has one file per component. It outlives the lab.
func (l *Lab) LogDir() string { return l.stateFile("logs") }

// Kubeconfig is the path of the administrator's kubeconfig.
func (l *Lab) Kubeconfig() string { return l.stateFile("kube", "admin.kubeconfig") }

// Env is what a program needs in its environment to work with the lab, in the
// form of os.Environ and to be appended to it.
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

// create makes the directories and the network of a lab of which nothing is
// left from before.
func (l *Lab) create() error {
	if err := os.RemoveAll(l.stateFile()); err != nil {
		return err
	}
	for _, dir := range []string{l.runFile(), l.LogDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The databases in the run directory sync after every write; on a disk that
	// would be what the lab measures.
	// It holds the nodes' memory, too, and takes no more than is used.
	size := fmt.Sprintf("size=%dg,mode=755", (4*gib+maxNodes*nodeMemory)/gib)
	if err := unix.Mount("rbd-lab", l.runFile(), "tmpfs", 0, size); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", l.runFile(), err)
	}
	if err := l.saveSettings(); err != nil {
		return err
	}
	// A User-Mode Linux crashes at boot when the folder for its socket is missing.
	if err := os.Mkdir(l.runFile("uml"), 0o755); err != nil {
		return err
	}
	return l.net.create()
}

// writeFile writes a file that readers see whole or not at all.
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
