// Package app is the program around the provisioner: options, clients, metrics and health, and the order
// in which its parts start and stop.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Store is a Ceph client. The program closes it before it ends.
type Store interface {
	rbdutil.Store
	Close()
}

// StoreOptions are the options of the Ceph client. See librbd.Options.
type StoreOptions struct {
	Timeout            time.Duration
	IdleTimeout        time.Duration
	Observe            func(operation string) func(error)
	ConnectionsChanged func(n int)
	Clients            rbdutil.Clients
	Limiter            rbdutil.Limiter
	Blocklisted        func(error)
}

// Main runs the program until SIGTERM or SIGINT. It returns the exit code: 0 after a clean stop, 1 after a
// failure, 2 for invalid arguments. If another process may lead already, it calls exit instead of
// returning, so that all operations end immediately.
func Main(args []string, stdout, stderr io.Writer, newStore func(StoreOptions) Store, exit func(code int)) int {
	opts := NewOptions()
	flags := opts.Flags()
	err := parse(flags, args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		printHelp(stdout, flags)
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "%v\nfor the list of flags, run rbd-provisioner --help\n", err)
		return 2
	case opts.Version:
		_, _ = fmt.Fprintln(stdout, "rbd-provisioner", version)
		return 0
	}
	if errs := opts.Validate(); len(errs) > 0 {
		_, _ = fmt.Fprintln(stderr, errs.ToAggregate())
		return 2
	}
	if err := logsapi.ValidateAndApply(opts.Logging, nil); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	klog.SetLogFilter(bodyRedactor{})
	defer logs.FlushLogs()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := Run(ctx, opts, newStore, exit); err != nil {
		klog.FromContext(ctx).Error(err, "Failed to run")
		return 1
	}
	return 0
}

// parse fills the options from the arguments.
func parse(flags cliflag.NamedFlagSets, args []string) error {
	all := pflag.NewFlagSet("rbd-provisioner", pflag.ContinueOnError)
	all.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	all.Usage = func() {} // Main prints the help
	all.SortFlags = false
	for _, name := range flags.Order {
		all.AddFlagSet(flags.FlagSets[name])
	}
	if err := all.Parse(args); err != nil {
		return err
	}
	if all.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: only flags are supported", all.Arg(0))
	}
	return nil
}

func printHelp(w io.Writer, flags cliflag.NamedFlagSets) {
	_, _ = fmt.Fprintln(w, `rbd-provisioner provisions PersistentVolumeClaims of its StorageClasses. For each claim, it
creates a Ceph RBD image and a PersistentVolume with an in-tree rbd source.

Usage:
  rbd-provisioner [flags]`)
	const columns = 0 // no line breaks, so that the documentation does not depend on the terminal
	cliflag.PrintSections(w, flags, columns)
}
