package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/lab"
)

const usage = `Usage:
  lab prepare [flags]               install Debian packages and build Kubernetes;
                                    --packages P,… installs more, --ceph 18 also Ceph 18
  lab up NAME [flags]               start a lab, after removing its remains
  lab exec NAME -- CMD ARG…         replace this process by CMD, in the lab's network;
                                    --librbd 18 uses the libraries and commands of Ceph 18
  lab run NAME [flags] -- CMD ARG…  start the lab, run CMD, stop the lab in any case
  lab down NAME | --all             stop the lab; the logs are kept
  lab env NAME                      print the lab's environment, for a shell's eval
  lab list                          print the names of the labs
  lab fault NAME FAULT DAEMON       pause, resume, kill, start; drop, restore (its
                                    incoming traffic); reset (its connections)

"lab up --help" prints the flags of up and run.
`

// stopTimeout is the time that a program has to end after SIGTERM before it is killed, and the
// time limit of Down.
const stopTimeout = 15 * time.Second

// invocation is a parsed command line: arguments before "--", the program after it.
type invocation struct {
	args    []string
	program []string
	flags   *pflag.FlagSet
	up      lab.UpOptions
	keep    bool
	all     bool
	librbd  int
	opts    lab.Options
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Print(usage)
		return nil
	}
	commands := map[string]struct {
		run       func(context.Context, *invocation) error
		positions int
		program   bool
	}{
		"prepare": {prepare, 0, false},
		"up":      {up, 1, false},
		"exec":    {execute, 1, true},
		"run":     {upRunDown, 1, true},
		"down":    {down, -1, false},
		"env":     {env, 1, false},
		"list":    {list, 0, false},
		"fault":   {fault, 3, false},
	}
	chosen, found := commands[args[0]]
	if !found {
		return usageError{fmt.Errorf("unknown command %q", args[0])}
	}
	call, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	switch {
	case chosen.positions >= 0 && len(call.args) != chosen.positions:
		return usageError{fmt.Errorf("%s: got %d arguments, want %d", args[0], len(call.args), chosen.positions)}
	case chosen.program && len(call.program) == 0:
		return usageError{fmt.Errorf("%s: no program given after --", args[0])}
	case !chosen.program && len(call.program) > 0:
		return usageError{fmt.Errorf("%s: does not accept a program", args[0])}
	}
	return chosen.run(ctx, call)
}

// parse parses the arguments of a command.
func parse(name string, args []string) (*invocation, error) {
	call := &invocation{opts: lab.Options{Out: os.Stderr}}
	if i := slices.Index(args, "--"); i >= 0 {
		args, call.program = args[:i], args[i+1:]
	}
	flags := pflag.NewFlagSet("lab "+name, pflag.ContinueOnError)
	call.flags = flags
	if name == "up" || name == "run" {
		addUpFlags(flags, &call.up)
	}
	if name == "up" || name == "run" || name == "prepare" {
		flags.StringVar(&call.opts.Kubernetes, "kubernetes", lab.DefaultKubernetes, "minor release of Kubernetes; only the default has nodes")
	}
	switch name {
	case "prepare":
		addPrepareFlags(flags, &call.up)
	case "exec":
		flags.IntVar(&call.librbd, "librbd", lab.HostCeph, "version of Ceph's libraries and commands for the program")
	case "run":
		flags.BoolVar(&call.keep, "keep", false, "do not stop the lab after the program")
	case "down":
		flags.BoolVar(&call.all, "all", false, "stop all labs")
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, usageError{fmt.Errorf("%s: %w", name, err)}
	}
	call.args = flags.Args()
	return call, nil
}

func addUpFlags(flags *pflag.FlagSet, up *lab.UpOptions) {
	flags.IntVar(&up.Nodes, "nodes", 2, "number of nodes, 0 to 8")
	flags.StringSliceVar(&up.Images, "images", nil, "comma-separated docker-archive files to import on the nodes")
	flags.BoolVar(&up.NoKubernetes, "ceph-only", false, "start only Ceph: no control plane, no nodes")
	flags.BoolVar(&up.NoCeph, "no-ceph", false, "do not start Ceph")
	flags.BoolVar(&up.Ceph.Durable, "durable-ceph", false, "keep Ceph's objects on disk, so that they survive a kill of the OSD (slower)")
	flags.BoolVar(&up.SecondCeph, "second-ceph", false, "start a second Ceph cluster, with its monitor at "+lab.HostIP+":6790")
	flags.BoolVar(&up.ControlPlane.RBDInControllerManager, "rbd-in-controller-manager", false, "add rbd to the controller manager's PATH, for the in-tree class kubernetes.io/rbd")
	flags.BoolVar(&up.ControlPlane.StockQPS, "stock-qps", false, "keep the controller manager's default of 20 requests per second")
	addPrepareFlags(flags, up)
}

func addPrepareFlags(flags *pflag.FlagSet, up *lab.UpOptions) {
	flags.StringSliceVar(&up.Packages, "packages", nil, "additional Debian packages to install")
	flags.IntVar(&up.CephVersion, "ceph", 0, "version of Ceph: 16, or 18 from the packages of Debian 13; the default is what the host's packages have")
}

func prepare(ctx context.Context, call *invocation) error {
	l, err := lab.New("prepare", call.opts)
	if err != nil {
		return err
	}
	return l.Prepare(ctx, call.up)
}

func up(ctx context.Context, call *invocation) error {
	l, err := call.newLab()
	if err != nil {
		return err
	}
	return l.Up(ctx, call.up)
}

func (call *invocation) newLab() (*lab.Lab, error) {
	if call.up.NoKubernetes && !call.flags.Changed("nodes") {
		call.up.Nodes = 0
	}
	return lab.New(call.args[0], call.opts)
}

func execute(_ context.Context, call *invocation) error {
	l, err := lab.Open(call.args[0], call.opts)
	if err != nil {
		return err
	}
	return l.Exec(call.program, call.librbd)
}

func upRunDown(ctx context.Context, call *invocation) error {
	l, err := call.newLab()
	if err != nil {
		return err
	}
	call.up.DownOnFailure = !call.keep
	if err := l.Up(ctx, call.up); err != nil {
		return err
	}
	if err := runInside(ctx, call, l); err != nil {
		fmt.Fprintf(os.Stderr, "lab: the logs of lab %s are in %s\n", l.Name(), l.LogDir())
		return errors.Join(err, takeDown(ctx, call, l))
	}
	return takeDown(ctx, call, l)
}

// takeDown stops the lab of a run, also if ctx has ended.
func takeDown(ctx context.Context, call *invocation, l *lab.Lab) error {
	if call.keep {
		fmt.Fprintf(os.Stderr, "lab: lab %s is still running; use: lab exec %s -- CMD, lab down %s\n", l.Name(), l.Name(), l.Name())
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return l.Down(ctx)
}

// runInside runs the program in the lab's network. It forwards a signal that ended ctx.
func runInside(ctx context.Context, call *invocation, l *lab.Lab) error {
	cmd := l.Command(ctx, call.program[0], call.program[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error {
		var interrupted signalError
		if errors.As(context.Cause(ctx), &interrupted) {
			return cmd.Process.Signal(interrupted.signal)
		}
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = stopTimeout
	err := l.StartInside(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(call.program, " "), err)
	}
	return nil
}

func down(ctx context.Context, call *invocation) error {
	names := call.args
	switch {
	case call.all == (len(names) > 0):
		return usageError{errors.New("down: want either NAME or --all")}
	case call.all:
		var err error
		if names, err = lab.List(call.opts); err != nil {
			return err
		}
	}
	var problems []error
	for _, name := range names {
		l, err := lab.Open(name, call.opts)
		if errors.Is(err, lab.ErrNotFound) {
			// The lab does not exist, or is too new to have a record.
			l, err = lab.New(name, call.opts)
		}
		if err == nil {
			err = l.Down(ctx)
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

func env(_ context.Context, call *invocation) error {
	l, err := lab.Open(call.args[0], call.opts)
	if err != nil {
		return err
	}
	for _, entry := range l.Env() {
		name, value, _ := strings.Cut(entry, "=")
		fmt.Printf("export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	return nil
}

func list(_ context.Context, call *invocation) error {
	names, err := lab.List(call.opts)
	for _, name := range names {
		fmt.Println(name)
	}
	return err
}

func fault(ctx context.Context, call *invocation) error {
	l, err := lab.Open(call.args[0], call.opts)
	if err != nil {
		return err
	}
	d, err := l.Daemon(call.args[2])
	if err != nil {
		return err
	}
	switch call.args[1] {
	case "pause":
		return d.Pause()
	case "resume":
		return d.Resume()
	case "kill":
		return d.Kill()
	case "start":
		return d.Start(ctx)
	case "drop":
		return d.DropTraffic()
	case "restore":
		return d.RestoreTraffic()
	case "reset":
		_, err := d.Reset()
		return err
	}
	return usageError{fmt.Errorf("unknown fault %q", call.args[1])}
}
