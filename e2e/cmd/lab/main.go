// Command lab starts a Ceph cluster and a Kubernetes cluster with rbd-capable nodes on one
// machine, runs programs in their network, and stops them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	os.Exit(run())
}

func run() int {
	// A closed pipe, for example of head, must not end this process before the lab is stopped.
	// A signal handler, unlike an ignored signal, is not inherited by programs.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() { cancel(signalError{(<-signals).(syscall.Signal)}) }()

	err := command(ctx, os.Args[1:])
	var interrupted signalError
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.As(context.Cause(ctx), &interrupted):
		fmt.Fprintf(os.Stderr, "lab: %v: %v\n", interrupted, err)
		return 128 + int(interrupted.signal)
	case errors.As(err, &exit):
		return exitStatus(exit)
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "lab: %v\n\n%s", err, usage)
		return 2
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
}

// exitStatus returns the status that a shell would return for the program.
func exitStatus(exit *exec.ExitError) int {
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

// signalError is the cause of the context's end after a signal.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "got " + e.signal.String() }

// usageError is an invalid command line.
type usageError struct{ error }
